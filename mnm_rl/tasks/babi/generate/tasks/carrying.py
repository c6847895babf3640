"""Tasks 7 and 8: how many objects, and which, a person carries."""

from __future__ import annotations

from mnm_rl.tasks.babi.generate.draws import Draws
from mnm_rl.tasks.babi.generate.lines import TextStory
from mnm_rl.tasks.babi.generate.tasks.giving import GIVING
from mnm_rl.tasks.babi.generate.tasks.supporting_facts import CARRYING
from mnm_rl.tasks.babi.generate.window import act_and_ask
from mnm_rl.tasks.babi.generate.world import OBJECTS, Fact, World

NUMBERS = ("none", "one", "two", "three")


def counting(draws: Draws) -> TextStory:
    """Task 7: people move, get, drop and give objects. *How many objects is PERSON carrying?*

    After a *give* the giver is asked about, never the receiver.
    """
    world = World(draws, GIVING, objects=OBJECTS)

    def ask(fact: Fact) -> None:
        lines = [other.line for other in world.facts if _changes_hands(other, fact.person)]
        answer = NUMBERS[len(world.held_by(fact.person))]
        world.text.ask(f"How many objects is {fact.person} carrying?", answer, *lines)

    return act_and_ask(world, _is_about_objects, ask)


def lists_sets(draws: Draws) -> TextStory:
    """Task 8: people move, get and drop objects. *What is PERSON carrying?*"""
    world = World(draws, CARRYING, objects=OBJECTS)

    def ask(fact: Fact) -> None:
        mine = [other for other in world.facts if _changes_hands(other, fact.person)]
        things = list(dict.fromkeys(other.item for other in mine))
        lines = [other.line for thing in things for other in mine if other.item == thing]
        held = [thing for thing in things if thing in world.held_by(fact.person)]
        world.text.ask(f"What is {fact.person} carrying?", ",".join(held) or "nothing", *lines)

    return act_and_ask(world, _is_about_objects, ask)


def _is_about_objects(fact: Fact) -> bool:
    return fact.kind != "move"


def _changes_hands(fact: Fact, person: str) -> bool:
    return _is_about_objects(fact) and person in (fact.person, fact.receiver)

"""Tasks 11, 12 and 13: where people are, told with pronouns and of two at a time."""

from __future__ import annotations

from collections.abc import Callable

from mnm_rl.tasks.babi.generate.draws import Draws
from mnm_rl.tasks.babi.generate.lines import TextStory
from mnm_rl.tasks.babi.generate.window import any_fact, tell_and_ask
from mnm_rl.tasks.babi.generate.world import MOVE_VERBS, Fact, World

ADVERBS = ("then", "afterwards", "after that", "following that")
PRONOUNS = {"Mary": "she", "Sandra": "she", "John": "he", "Daniel": "he"}


def basic_coreference(draws: Draws) -> TextStory:
    """Task 11: *PERSON went to the PLACE. Then she went to the PLACE. Where is PERSON?*"""
    world = World(draws)
    return _ask_after(world, lambda: _tell_twice(world, 1), 2)


def conjunction(draws: Draws) -> TextStory:
    """Task 12: *PERSON and PERSON went to the PLACE. Where is PERSON?*"""
    world = World(draws)

    def tell() -> None:
        _tell_together(world, 2)
        _tell_together(world, 2)

    return _ask_after(world, tell, 1)


def compound_coreference(draws: Draws) -> TextStory:
    """Task 13: *PERSON and PERSON went to the PLACE. Then they went to the PLACE. Where is PERSON?*"""
    world = World(draws)
    return _ask_after(world, lambda: _tell_twice(world, 2), 2)


def _tell_together(world: World, size: int) -> list[str]:
    """Move a random group to a random place where none of it is; returns who went."""
    while True:
        group = world.draws.sample(world.people, size)
        place = world.draws.choice(world.places)
        if place not in [world.at[person] for person in group]:
            _tell_move(world, group, " and ".join(group), place)
            return group


def _tell_twice(world: World, size: int) -> None:
    """As :func:`_tell_together`, and then the same group to another place, with a pronoun."""
    group = _tell_together(world, size)
    adverb = world.draws.choice(ADVERBS)
    pronoun = PRONOUNS[group[0]] if size == 1 else "they"
    place = world.draws.other(world.places, world.at[group[0]])
    _tell_move(world, group, f"{adverb} {pronoun}", place)


def _tell_move(world: World, group: list[str], subject: str, place: str) -> None:
    line = world.text.tell(f"{subject} {world.draws.choice(MOVE_VERBS)} the {place}.")
    for person in group:
        world.at[person] = place
        world.facts.append(Fact("move", line, person, place))


def _ask_after(world: World, tell: Callable[[], object], supports: int) -> TextStory:
    """Where a person is; the answer rests on as many of the person's last facts as given."""

    def ask(fact: Fact) -> None:
        mine = [other for other in world.facts if other.person == fact.person]
        lines = [other.line for other in mine[-supports:]]
        world.text.ask(f"Where is {fact.person}?", mine[-1].item, *lines)

    return tell_and_ask(world, tell, any_fact, ask)

"""Tasks 6, 9 and 10: whether a person is in a place, also from denials and from alternatives."""

from __future__ import annotations

from mnm_rl.tasks.babi.generate.draws import Draws
from mnm_rl.tasks.babi.generate.lines import TextStory
from mnm_rl.tasks.babi.generate.tasks.supporting_facts import CARRYING, latest_fact
from mnm_rl.tasks.babi.generate.window import act_and_ask, any_fact, tell_and_ask
from mnm_rl.tasks.babi.generate.world import OBJECTS, TIMED_PEOPLE, TOWN, Fact, World


def yes_no_questions(draws: Draws) -> TextStory:
    """Task 6: people move, get and drop objects. *Is PERSON in the PLACE?*"""
    world = World(draws, CARRYING, objects=OBJECTS)

    def ask(fact: Fact) -> None:
        moves = [other for other in world.facts if other.kind == "move" and other.person == fact.person]
        ask_yes_or_no(world, moves[-1])

    return act_and_ask(world, lambda fact: fact.kind == "move", ask)


def ask_yes_or_no(world: World, fact: Fact) -> None:
    """Ask for the place of a fact, or as often for another."""
    true = world.draws.one_in(2)
    place = fact.item if true else world.draws.other(world.places, fact.item)
    world.text.ask(f"Is {fact.person} in the {place}?", "yes" if true else "no", fact.line)


def simple_negation(draws: Draws) -> TextStory:
    """Task 9: people move, are somewhere, or are somewhere no longer. *Is PERSON in the PLACE?*

    Who is no longer in a place has gone to another, which is not told.
    """
    world = World(draws)

    def tell() -> None:
        person, place = _draw_move(world)
        left = world.at[person]
        told = _tell_plainly(world, person, place)
        if told is None:
            gone = draws.choice(("no longer", "not"))
            line = world.text.tell(f"{person} is {gone} in the {left}.")
            world.at[person] = place
            told = Fact("left", line, person, left)
        world.facts.append(told)

    def ask(fact: Fact) -> None:
        last = latest_fact(world, fact.person)
        if last.kind == "left":
            world.text.ask(f"Is {last.person} in the {last.item}?", "no", last.line)
        else:
            ask_yes_or_no(world, last)

    return tell_and_ask(world, lambda: (tell(), tell()), any_fact, ask)


def indefinite_knowledge(draws: Draws) -> TextStory:
    """Task 10: people move, are somewhere, or are in one of two places. *Is PERSON in the PLACE?*

    The second place is drawn from all, so that in a sixth of the alternatives both are the same.
    """
    world = World(draws, people=TIMED_PEOPLE, places=TOWN)

    def tell() -> None:
        person, place = _draw_move(world)
        told = _tell_plainly(world, person, place)
        if told is None:
            one, other = draws.sample((place, draws.choice(world.places)), 2)
            line = world.text.tell(f"{person} is either in the {one} or the {other}.")
            world.at[person] = place
            told = Fact("either", line, person, one, other)
        world.facts.append(told)

    def ask(fact: Fact) -> None:
        last = latest_fact(world, fact.person)
        if last.kind != "either":
            ask_yes_or_no(world, last)
            return
        truth = world.at[last.person]
        place = truth if draws.one_in(2) else draws.other(world.places, truth)
        answer = "maybe" if place in (last.item, last.receiver) else "no"
        world.text.ask(f"Is {last.person} in the {place}?", answer, last.line)

    return tell_and_ask(world, lambda: (tell(), tell()), any_fact, ask)


def _draw_move(world: World) -> tuple[str, str]:
    """A random person and a random place where the person is not."""
    while True:
        person = world.draws.choice(world.people)
        place = world.draw_place(person)
        if place is not None:
            return person, place


def _tell_plainly(world: World, person: str, place: str) -> Fact | None:
    """Tell a move as such half of the time and by the place alone a quarter of it; else do nothing."""
    if world.draws.one_in(2):
        return Fact("move", world.move(person, place), person, place)
    if world.draws.one_in(2):
        world.at[person] = place
        return Fact("in", world.text.tell(f"{person} is in the {place}."), person, place)
    return None

"""Task 14: where people were before, told out of order but with times."""

from __future__ import annotations

from mnm_rl.tasks.babi.generate.draws import Draws
from mnm_rl.tasks.babi.generate.lines import TextStory
from mnm_rl.tasks.babi.generate.window import tell_and_ask
from mnm_rl.tasks.babi.generate.world import MOVE_VERBS, TIMED_PEOPLE, TOWN, Fact, World

TIMES = ("yesterday", "this morning", "this afternoon", "this evening")


def time_reasoning(draws: Draws) -> TextStory:
    """Task 14: *Yesterday PERSON went to the PLACE. Where was PERSON before the PLACE?*

    Statements come in blocks of two, the first one or more blocks long until somebody has been in two
    places. A block is told in the order of a random cyclic permutation, so never in order of time.
    """
    world = World(draws, people=TIMED_PEOPLE, places=TOWN)
    visits: dict[str, list[Fact]] = {person: [] for person in world.people}

    def visit() -> Fact:
        while True:
            person = draws.choice(world.people)
            place = world.draw_place(person)
            if place is not None and len(visits[person]) < len(TIMES):
                world.at[person] = place
                visits[person].append(Fact("move", 0, person, place))
                return visits[person][-1]

    def tell() -> None:
        block = [visit(), visit()]
        while not any(map(usable, [*world.facts, *block][-5:])):
            block += [visit(), visit()]
        world.facts += block
        draws.shuffle_cyclic(block)
        for fact in block:
            fact.line = world.text.tell(_word(draws, fact, visits[fact.person]))

    def usable(fact: Fact) -> bool:
        # Who was in a place twice is asked for what was before the second time.
        mine = visits[fact.person]
        return fact is not mine[0] and fact is [other for other in mine if other.item == fact.item][-1]

    def ask(fact: Fact) -> None:
        mine = visits[fact.person]
        number = next(number for number, other in enumerate(mine) if other is fact)
        earlier = mine[number - 1]
        question = f"Where was {fact.person} before the {fact.item}?"
        world.text.ask(question, earlier.item, fact.line, earlier.line)

    return tell_and_ask(world, tell, usable, ask)


def _word(draws: Draws, fact: Fact, mine: list[Fact]) -> str:
    time = TIMES[next(number for number, other in enumerate(mine) if other is fact)]
    action = f"{fact.person} {draws.choice(MOVE_VERBS)} the {fact.item}"
    return f"{time} {action}." if draws.one_in(2) else f"{action} {time}."

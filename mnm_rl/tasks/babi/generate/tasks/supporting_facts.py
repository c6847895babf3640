"""Tasks 1, 2 and 3: where people and objects are and were, from one, two or three statements."""

from __future__ import annotations

from dataclasses import dataclass, field

from mnm_rl.tasks.babi.generate.draws import Draws
from mnm_rl.tasks.babi.generate.lines import TextStory
from mnm_rl.tasks.babi.generate.window import act_and_ask, any_fact
from mnm_rl.tasks.babi.generate.world import OBJECTS, Fact, Kind, World

CARRYING: tuple[Kind, ...] = ("move", "get", "drop")
"""The kinds of action, equally often."""


def single_supporting_fact(draws: Draws) -> TextStory:
    """Task 1: people move. *Where is PERSON?*"""
    world = World(draws)

    def ask(fact: Fact) -> None:
        last = latest_fact(world, fact.person)
        world.text.ask(f"Where is {last.person}?", last.item, last.line)

    return act_and_ask(world, any_fact, ask)


def latest_fact(world: World, person: str) -> Fact:
    """The last fact about a person."""
    return next(fact for fact in reversed(world.facts) if fact.person == person)


@dataclass(slots=True)
class Holding:
    """The last time that an object was held.

    Attributes:
        proof: the *get*, or the *drop* if there was one: it says with whom the object goes or where it stays.
        place: the move that says where the object is, if one does.
        moves: the holder's moves with the object.
    """

    proof: Fact
    place: Fact | None = None
    moves: list[Fact] = field(default_factory=list)


class HoldingWorld(World):
    """A world that keeps, for every object, the last time that it was held."""

    def __init__(self, draws: Draws, got_there: bool = True) -> None:
        super().__init__(draws, CARRYING, objects=OBJECTS, got_there=got_there)
        self.holdings: dict[str, Holding] = {}
        self._last_moves: dict[str, Fact] = {}

    def act(self) -> Fact:
        """Draw, do and tell an action."""
        fact = super().act()
        if fact.kind == "get":
            self.holdings[fact.item] = Holding(fact)
        elif fact.kind == "drop":
            holding = self.holdings[fact.item]
            holding.proof, holding.place = fact, self._last_moves.get(fact.person)
        else:
            self._last_moves[fact.person] = fact
            for thing in self.held_by(fact.person):
                self.holdings[thing].place = fact
                self.holdings[thing].moves.append(fact)
        return fact

    def proven(self, fact: Fact) -> Holding | None:
        """The holding that this fact proves; none if it is a move or if a later fact does."""
        holding = self.holdings[fact.item] if fact.kind != "move" else None
        return holding if holding is not None and holding.proof is fact else None


def two_supporting_facts(draws: Draws) -> TextStory:
    """Task 2: people move, get and drop objects. *Where is the OBJECT?*"""
    world = HoldingWorld(draws)

    def usable(fact: Fact) -> bool:
        holding = world.proven(fact)
        return holding is not None and holding.place is not None

    def ask(fact: Fact) -> None:
        place = world.holdings[fact.item].place
        assert place is not None
        world.text.ask(f"Where is the {fact.item}?", place.item, fact.line, place.line)

    return act_and_ask(world, usable, ask)


def three_supporting_facts(draws: Draws) -> TextStory:
    """Task 3: as task 2. *Where was the OBJECT before the PLACE?*"""
    world = HoldingWorld(draws, got_there=False)

    def usable(fact: Fact) -> bool:
        holding = world.proven(fact)
        return holding is not None and len(holding.moves) > 1

    def ask(fact: Fact) -> None:
        moves = world.holdings[fact.item].moves
        last_visits = {move.item: number for number, move in enumerate(moves)}
        number = draw_late(draws, sorted(number for number in last_visits.values() if number))
        place, earlier = moves[number], moves[number - 1]
        question = f"Where was the {fact.item} before the {place.item}?"
        world.text.ask(question, earlier.item, fact.line, place.line, earlier.line)

    return act_and_ask(world, usable, ask)


def draw_late(draws: Draws, numbers: list[int]) -> int:
    """One of the numbers; each is 4/3 times as likely as the one before it, as measured on the real data."""
    weights = [4**rank * 3 ** (len(numbers) - rank) for rank in range(len(numbers))]
    place = draws.below(sum(weights))
    for number, weight in zip(numbers, weights, strict=True):
        if place < weight:
            return number
        place -= weight
    raise AssertionError("unreachable: the weights sum to the bound of the draw")

"""The world that the story tasks share: people move between places and carry objects about.

At the start everyone and everything is put in a random place that the reader is not told. One action is one
accepted draw: a person and a kind of action are drawn, then what the action needs; if it cannot be done,
everything is drawn again, the person too. Giving is an exception, measured on the real data: what is given,
by whom and to whom is not drawn but the first that is possible in the order of the objects and the people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mnm_rl.tasks.babi.generate.draws import Draws
from mnm_rl.tasks.babi.generate.lines import StoryText

Kind = Literal["move", "get", "drop", "give", "in", "left", "either"]

MOVE_VERBS = ("went to", "went back to", "journeyed to", "travelled to", "moved to")
GET_VERBS = ("took", "got", "grabbed", "picked up")
DROP_VERBS = ("dropped", "put down", "left", "discarded")
GIVE_VERBS = ("gave", "passed", "handed")

PEOPLE = ("John", "Mary", "Sandra", "Daniel")
GIVERS = ("Mary", "Fred", "Bill", "Jeff")
TIMED_PEOPLE = ("Mary", "Julie", "Fred", "Bill")
PLACES = ("kitchen", "bedroom", "bathroom", "garden", "hallway", "office")
TOWN = ("kitchen", "bedroom", "office", "school", "park", "cinema")
OBJECTS = ("apple", "football", "milk")


@dataclass(slots=True)
class Fact:
    """Something that a statement says about a person.

    Attributes:
        kind: what the person did; ``"told"`` if only where the person is or is not.
        line: number of the statement.
        person: who did it.
        item: the place or the object.
        receiver: to whom an object was given, or the second of two places.
    """

    kind: Kind
    line: int
    person: str
    item: str
    receiver: str = ""


class World:
    """Who and what is where, and what has been told of it.

    Args:
        draws: source of all random draws.
        kinds: the kinds of action, equally often.
        people: names.
        places: names.
        objects: names.
        got_there: whether ``there`` follows *got the OBJECT* always; otherwise one time in five.
        gap: what stands between ``?`` and the tab.

    Attributes:
        facts: all that has been told.
        at: person -> the place where the person is.
        lies: object -> the place where it lies, if it does.
        holder: object -> the person who holds it, if somebody does.
    """

    def __init__(
        self,
        draws: Draws,
        kinds: Sequence[Kind] = ("move",),
        people: Sequence[str] = PEOPLE,
        places: Sequence[str] = PLACES,
        objects: Sequence[str] = (),
        got_there: bool = True,
        gap: str = " ",
    ) -> None:
        self.draws, self.kinds = draws, kinds
        self.people, self.places, self.objects = people, places, objects
        self.got_there = got_there
        self.text = StoryText(gap)
        self.facts: list[Fact] = []
        self.at = {person: draws.choice(places) for person in people}
        self.lies = {thing: draws.choice(places) for thing in objects}
        self.holder: dict[str, str] = {}

    def act(self) -> Fact:
        """Draw actions until one can be done; do and tell it."""
        while True:
            person = self.draws.choice(self.people)
            kind = self.draws.choice(self.kinds)
            fact = self._try(kind, person)
            if fact is not None:
                self.facts.append(fact)
                return fact

    def move(self, person: str, place: str) -> int:
        """Move a person and tell it; returns the line's number."""
        self.at[person] = place
        return self.text.tell(f"{person} {self.draws.choice(MOVE_VERBS)} the {place}.")

    def get(self, person: str, thing: str) -> int:
        """Let a person take an object and tell it."""
        del self.lies[thing]
        self.holder[thing] = person
        there = " there" if self.got_there or self.draws.one_in(5) else ""
        return self.text.tell(f"{person} {self.draws.choice(GET_VERBS)} the {thing}{there}.")

    def drop(self, person: str, thing: str) -> int:
        """Let a person put down an object and tell it."""
        self.lies[thing] = self.at[person]
        del self.holder[thing]
        there = " there" if self.draws.one_in(5) else ""
        return self.text.tell(f"{person} {self.draws.choice(DROP_VERBS)} the {thing}{there}.")

    def give(self, person: str, thing: str, receiver: str) -> int:
        """Let a person give an object to another and tell it."""
        self.holder[thing] = receiver
        return self.text.tell(f"{person} {self.draws.choice(GIVE_VERBS)} the {thing} to {receiver}.")

    def draw_place(self, person: str) -> str | None:
        """A random place, or ``None`` if the person is there."""
        place = self.draws.choice(self.places)
        return None if place == self.at[person] else place

    def held_by(self, person: str) -> list[str]:
        """The objects that a person holds."""
        return [thing for thing, holder in self.holder.items() if holder == person]

    def _try(self, kind: Kind, person: str) -> Fact | None:
        if kind == "move":
            place = self.draw_place(person)
            return None if place is None else Fact(kind, self.move(person, place), person, place)
        if kind == "give":
            return self._try_to_give()
        if kind == "drop":
            held = self.held_by(person)
            thing = self.draws.choice(held) if held else None
            return None if thing is None else Fact(kind, self.drop(person, thing), person, thing)
        here = [thing for thing, place in self.lies.items() if place == self.at[person]]
        thing = self.draws.choice(here) if here else None
        return None if thing is None else Fact("get", self.get(person, thing), person, thing)

    def _try_to_give(self) -> Fact | None:
        for thing in self.objects:
            giver = self.holder.get(thing)
            for receiver in self.people:
                if giver not in (None, receiver) and self.at[giver] == self.at[receiver]:
                    return Fact("give", self.give(giver, thing, receiver), giver, thing, receiver)
        return None

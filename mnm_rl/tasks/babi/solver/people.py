"""Rules for the questions about people and what they did: tasks 1 to 3, 5 to 14 and 20."""

from __future__ import annotations

from itertools import pairwise

from mnm_rl.tasks.babi.solver.events import TIMES, Event, Proof, Rule, Solution

Events = list[Event]

NUMBERS = ("none", "one", "two", "three")
PLACES = {"hungry": "kitchen", "thirsty": "kitchen", "bored": "garden", "tired": "bedroom"}
WHEREABOUTS = ("move", "in", "left", "either")


def _one(answer: str, *lines: int) -> Solution:
    return [Proof(answer, lines)]


def _last(events: Events, *kinds: str, person: str = "", item: str = "") -> Event:
    """The latest event of some kinds, of a person or about an item where these are given."""
    return next(
        event
        for event in reversed(events)
        if event.kind in kinds
        and event.person == (person or event.person)
        and event.item == (item or event.item)
    )


def where_is_person(events: Events, person: str) -> Solution:
    """Where the last move led; if it was told with a pronoun, the line before it says whose move it was."""
    moves = [event for event in events if event.person == person]
    last = moves[-1]
    return _one(last.item, *([moves[-2].line] if last.pronoun else []), last.line)


def where_is_object(events: Events, thing: str) -> Solution:
    """Where its holder is, or was when it was dropped."""
    last = _last(events, "get", "drop", item=thing)
    told = events if last.kind == "get" else events[: events.index(last)]
    move = _last(told, "move", person=last.person)
    return _one(move.item, last.line, move.line)


def where_was_object(events: Events, thing: str, place: str) -> Solution:
    """Where it was carried before it was last carried to a place."""
    proof, start = _last(events, "get", "drop", item=thing), _last(events, "get", item=thing)
    stop = len(events) if proof is start else events.index(proof)
    moves = [
        event
        for event in events[events.index(start) : stop]
        if event.kind == "move" and event.person == start.person
    ]
    number = max(number for number, move in enumerate(moves) if move.item == place)
    return _one(moves[number - 1].item, proof.line, moves[number].line, moves[number - 1].line)


def where_was_person(events: Events, person: str, place: str) -> Solution:
    """Where the person was at the time before being in a place, whenever told."""
    visits = sorted((event for event in events if event.person == person), key=lambda e: TIMES.index(e.other))
    ways = [pair for pair in pairwise(visits) if pair[1].item == place]
    before, visit = ways[-1]
    return _one(before.item, visit.line, before.line)


def is_in(events: Events, person: str, place: str) -> Solution:
    """Yes, no or maybe."""
    last = _last(events, *WHEREABOUTS, person=person)
    if last.kind == "either":
        return _one("maybe" if place in (last.item, last.other) else "no", last.line)
    return _one("yes" if last.item == place and last.kind != "left" else "no", last.line)


def _held(events: Events, person: str) -> tuple[list[str], list[Event]]:
    """Objects in the order in which the person first had them, and all events that changed what is held."""
    mine = [e for e in events if e.kind in ("get", "drop", "give") and person in (e.person, e.other)]
    held = dict.fromkeys((event.item for event in mine), False)
    for event in mine:
        held[event.item] = event.kind == "get" or event.other == person
    return [thing for thing, holds in held.items() if holds], mine


def how_many(events: Events, person: str) -> Solution:
    """How many objects a person holds."""
    held, mine = _held(events, person)
    return _one(NUMBERS[len(held)], *(event.line for event in mine))


def what_is_carried(events: Events, person: str) -> Solution:
    """Which objects a person holds; the support goes object by object."""
    held, mine = _held(events, person)
    things = dict.fromkeys(event.item for event in mine)
    lines = [event.line for thing in things for event in mine if event.item == thing]
    return _one(",".join(held) or "nothing", *lines)


def what_given(events: Events, giver: str, receiver: str) -> Solution:
    """What one person gave to another; several answers are true if there were several objects.

    Only the last time that an object was given counts.
    """
    last = {event.item: event for event in events if event.kind == "give"}
    return [
        Proof(thing, (give.line,))
        for thing, give in last.items()
        if (give.person, give.other) == (giver, receiver)
    ]


def who_gave(events: Events, thing: str, receiver: str | None = None) -> Solution:
    """Who gave an object last."""
    give = _last(events, "give", item=thing)
    return _one(give.person, give.line)


def who_received(events: Events, thing: str) -> Solution:
    """To whom an object was given last."""
    give = _last(events, "give", item=thing)
    return _one(give.other, give.line)


def given_to_whom(events: Events, giver: str, thing: str) -> Solution:
    """To whom somebody gave an object last."""
    return who_received(events, thing)


def where_will_go(events: Events, person: str) -> Solution:
    """Where a person's feeling leads."""
    feeling = _last(events, "feels", person=person)
    return _one(PLACES[feeling.item], feeling.line)


def why(events: Events, person: str, goal: str) -> Solution:
    """Which feeling made a person do something."""
    feeling = _last(events, "feels", person=person)
    return _one(feeling.item, feeling.line)


RULES: dict[str, Rule] = {
    r"where is (\w+)\?": where_is_person,
    r"where is the (\w+)\?": where_is_object,
    r"where was the (\w+) before the (\w+)\?": where_was_object,
    r"where was (\w+) before the (\w+)\?": where_was_person,
    r"is (\w+) in the (\w+)\?": is_in,
    r"how many objects is (\w+) carrying\?": how_many,
    r"what is (\w+) carrying\?": what_is_carried,
    r"what did (\w+) give to (\w+)\?": what_given,
    r"who gave the (\w+)(?: to (\w+))?\?": who_gave,
    r"who received the (\w+)\?": who_received,
    r"who did (\w+) give the (\w+) to\?": given_to_whom,
    r"where will (\w+) go\?": where_will_go,
    r"why did (\w+) (?:go to|get) the (\w+)\?": why,
}

"""Statements about people as events."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple


class Event(NamedTuple):
    """What a statement says about a person; a statement about two people is two events.

    Attributes:
        line: number of the statement.
        kind: ``move``, ``get``, ``drop``, ``give``, ``in``, ``left``, ``either`` or ``feels``.
        person: who did it.
        item: the place, object or feeling.
        other: the receiver, the second of two places or the time.
        pronoun: whether the person was not named.
    """

    line: int
    kind: str
    person: str
    item: str
    other: str = ""
    pronoun: bool = False


class Proof(NamedTuple):
    """An answer and the lines that it rests on, in the order in which the files name them."""

    answer: str
    lines: tuple[int, ...]


Solution = list[Proof]
"""What may be answered, with what support: nearly always one proof, and nearly always one answer."""

Rule = Callable[..., Solution]
"""From the events and the words that a question's pattern catches to the solution."""

TIMES = ("yesterday", "this morning", "this afternoon", "this evening")
_TIME = "|".join(TIMES)
_WHO = r"(?P<who>(?:(?:then|afterwards|after that|following that) )?\w+(?: and \w+)?)"
_MOVE = r"(?:went to|went back to|journeyed to|travelled to|moved to)"
_PATTERNS = {
    kind: re.compile(pattern + r"\.")
    for kind, pattern in (
        ("move", rf"(?:(?P<early>{_TIME}) )?{_WHO} {_MOVE} the (?P<item>\w+)(?: (?P<late>{_TIME}))?"),
        ("get", rf"{_WHO} (?:took|got|grabbed|picked up) the (?P<item>\w+)(?: there)?"),
        ("drop", rf"{_WHO} (?:dropped|put down|left|discarded) the (?P<item>\w+)(?: there)?"),
        ("give", rf"{_WHO} (?:gave|passed|handed) the (?P<item>\w+) to (?P<other>\w+)"),
        ("in", rf"{_WHO} is in the (?P<item>\w+)"),
        ("left", rf"{_WHO} is (?:no longer|not) in the (?P<item>\w+)"),
        ("either", rf"{_WHO} is either in the (?P<item>\w+) or the (?P<other>\w+)"),
        ("feels", rf"{_WHO} is (?P<item>hungry|thirsty|bored|tired)"),
    )
}


def read_events(line: int, statement: str, before: list[Event]) -> list[Event]:
    """The events of a statement in lower case, one for each person that it is about.

    Args:
        line: its number.
        statement: its text.
        before: the events so far, for pronouns.

    Raises:
        ValueError: if it is not a known statement.
    """
    for kind, pattern in _PATTERNS.items():
        if match := pattern.fullmatch(statement):
            parts = match.groupdict(default="")
            other = parts.get("other") or parts.get("early") or parts.get("late") or ""
            pronoun = parts["who"].split()[-1] in ("he", "she", "they")
            people = _same_people(before) if pronoun else parts["who"].split(" and ")
            return [Event(line, kind, person, parts["item"], other, pronoun) for person in people]
    raise ValueError(f"not a known statement: {statement!r}")


def _same_people(before: list[Event]) -> list[str]:
    return [event.person for event in before if event.line == before[-1].line]

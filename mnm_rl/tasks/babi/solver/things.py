"""Rules for the questions about kinds, directions and sizes: tasks 4 and 15 to 19.

Each takes the statements so far, by line, and the words that the question's pattern catches.
"""

from __future__ import annotations

import re
from collections import deque
from itertools import permutations

from mnm_rl.tasks.babi.solver.events import Proof, Rule, Solution

Statements = dict[int, str]

SINGULARS = {"mice": "mouse", "sheep": "sheep", "wolves": "wolf", "cats": "cat"}
ANIMALS = ("swan", "lion", "frog", "rhino")
STEPS = {"north": (0, 1), "east": (1, 0), "south": (0, -1), "west": (-1, 0)}
SIDES = {"above": (0, 1), "to the right of": (1, 0), "below": (0, -1), "to the left of": (-1, 0)}
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}
_SIDE = "|".join(SIDES)


def _facts(statements: Statements, pattern: str) -> dict[int, tuple[str, ...]]:
    """Line -> what the pattern catches, for the statements that it fits."""
    found = ((line, re.fullmatch(pattern, text)) for line, text in statements.items())
    return {line: match.groups() for line, match in found if match}


def _compass(statements: Statements) -> dict[int, tuple[str, ...]]:
    return _facts(statements, r"the (\w+) is (\w+) of the (\w+)\.")


def what_is_beside(statements: Statements, direction: str, place: str) -> Solution:
    """Task 4: what lies in a direction from a place, from the fact that says so either way round."""
    for line, (subject, said, other) in _compass(statements).items():
        if (said, other) == (direction, place):
            return [Proof(subject, (line,))]
        if (OPPOSITE[said], subject) == (direction, place):
            return [Proof(other, (line,))]
    raise ValueError("no fact about this place and direction")


def what_is_place_beside(statements: Statements, place: str, direction: str) -> Solution:
    """Task 4, the other form: of what a place lies in a direction."""
    return what_is_beside(statements, OPPOSITE[direction], place)


def how_to_go(statements: Statements, start: str, goal: str) -> Solution:
    """Task 19: the shortest way."""
    steps: dict[str, list[tuple[str, str, int]]] = {}
    for line, (subject, said, other) in _compass(statements).items():
        steps.setdefault(other, []).append((subject, said, line))
        steps.setdefault(subject, []).append((other, OPPOSITE[said], line))
    waiting: deque[tuple[str, str, tuple[int, ...]]] = deque([(start, "", ())])
    seen = {start}
    while waiting:
        place, way, lines = waiting.popleft()
        if place == goal:
            return [Proof(",".join(way), lines)]
        for other, direction, line in steps[place]:
            if other not in seen:
                seen.add(other)
                waiting.append((other, way + direction[0], (*lines, line)))
    raise ValueError("no way")


def afraid_of(statements: Statements, name: str) -> Solution:
    """Task 15: what the name's kind is afraid of."""
    kind_line, kind = _kinds(statements)[name]
    for line, (plural, feared) in _facts(statements, r"(\w+) are afraid of (\w+)\.").items():
        if SINGULARS[plural] == kind:
            return [Proof(SINGULARS[feared], (kind_line, line))]
    raise ValueError("nothing is said of this kind")


def _kinds(statements: Statements) -> dict[str, tuple[int, str]]:
    said = _facts(statements, r"(\w+) is a (\w+)\.")
    return {name: (line, kind) for line, (name, kind) in said.items()}


def what_color(statements: Statements, name: str) -> Solution:
    """Task 16: the colour of the one of the same kind of whom the kind was said last."""
    kinds = _kinds(statements)
    line, kind = kinds[name]
    like, like_line = max(
        ((other, n) for other, (n, k) in kinds.items() if k == kind and other != name),
        key=lambda pair: pair[1],
    )
    colours = _facts(statements, rf"{like} is (\w+)\.")
    ((colour_line, (colour,)),) = colours.items()
    return [Proof(colour, (line, like_line, colour_line))]


def is_beside(statements: Statements, one: str, side: str, other: str) -> Solution:
    """Task 17: whether one shape is on a side of another, both being beside a third."""
    facts = _facts(statements, rf"the (.+) is ({_SIDE}) the (.+)\.")
    (middle,) = set.intersection(*({subject, object_} for subject, _, object_ in facts.values()))
    spots: dict[str, tuple[int, int]] = {}
    lines: dict[str, int] = {}
    for line, (subject, said, object_) in facts.items():
        sign = 1 if object_ == middle else -1
        outer = subject if object_ == middle else object_
        spots[outer] = (sign * SIDES[said][0], sign * SIDES[said][1])
        lines[outer] = line
    x, y = SIDES[side]
    true = (spots[one][0] - spots[other][0]) * x + (spots[one][1] - spots[other][1]) * y > 0
    return [Proof("yes" if true else "no", (lines[one], lines[other]))]


def is_bigger(statements: Statements, big: str, small: str) -> Solution:
    """Task 18: whether one thing is bigger than another; any two facts that show it may be the support."""
    fits = _facts(statements, r"the (.+) fits inside the (.+)\.")
    bigger = _facts(statements, r"the (.+) is bigger than the (.+)\.")
    facts = fits | {line: (low, high) for line, (high, low) in bigger.items()}
    proofs = []
    for one, other in permutations(facts, 2):
        if facts[one][1] == facts[other][0]:
            if (facts[one][0], facts[other][1]) == (small, big):
                proofs.append(Proof("yes", (other, one)))
            if (facts[one][0], facts[other][1]) == (big, small):
                proofs.append(Proof("no", (one, other)))
    return proofs


def fits_in(statements: Statements, small: str, big: str) -> Solution:
    """Task 18, the other form."""
    return is_bigger(statements, big, small)


RULES: dict[str, Rule] = {
    r"what is (north|east|south|west) of the (\w+)\?": what_is_beside,
    r"what is the (\w+) (north|east|south|west) of\?": what_is_place_beside,
    r"how do you go from the (\w+) to the (\w+)\?": how_to_go,
    r"what is (\w+) afraid of\?": afraid_of,
    r"what color is (\w+)\?": what_color,
    rf"is the (.+) ({_SIDE}) the (.+)\?": is_beside,
    r"is the (.+) bigger than the (.+)\?": is_bigger,
    r"does the (.+) fit in the (.+)\?": fits_in,
}

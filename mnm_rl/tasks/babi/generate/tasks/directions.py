"""Tasks 4, 17 and 19: what lies where, in words for the four directions of a plane."""

from __future__ import annotations

from collections.abc import Mapping

from mnm_rl.tasks.babi.generate.draws import Draws
from mnm_rl.tasks.babi.generate.lines import StoryText, TextStory
from mnm_rl.tasks.babi.generate.world import PLACES

Neighbours = dict[str, dict[str, int]]
"""Thing -> a neighbour of it -> the direction from the thing to the neighbour."""

COMPASS = ("north", "east", "south", "west")
SIDES = ("above", "to the right of", "below", "to the left of")
STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""What the four directions change; ``(number + 2) % 4`` is opposite."""

SHAPES = ("triangle", "pink rectangle", "red sphere", "blue square", "yellow square", "red square")
POSITION_QUESTIONS = 8


def opposite(direction: int) -> int:
    """The direction back."""
    return (direction + 2) % 4


def connect(neighbours: Neighbours, thing: str, other: str, direction: int) -> None:
    """Put ``other`` in a direction from ``thing``."""
    neighbours.setdefault(thing, {})[other] = direction
    neighbours.setdefault(other, {})[thing] = opposite(direction)


def draw_relations(draws: Draws, neighbours: Neighbours) -> list[tuple[str, str]]:
    """All pairs of neighbours in random order, each once.

    A thing and then one of its neighbours are drawn, and again if the pair was drawn already; so things with
    few neighbours come early, and first in their pairs.
    """
    pairs: list[tuple[str, str]] = []
    things = tuple(neighbours)
    wanted = sum(map(len, neighbours.values())) // 2
    while len(pairs) < wanted:
        thing = draws.choice(things)
        other = draws.choice(tuple(neighbours[thing]))
        if (thing, other) not in pairs and (other, thing) not in pairs:
            pairs.append((thing, other))
    return pairs


def two_argument_relations(draws: Draws) -> TextStory:
    """Task 4: three places in a line. *The PLACE is north of the PLACE. What is north of the PLACE?*"""
    text, neighbours = StoryText(gap=""), {}
    first, middle, last = draws.sample(PLACES, 3)
    direction = draws.below(2)
    connect(neighbours, first, middle, direction)
    connect(neighbours, middle, last, direction)
    facts = draw_relations(draws, neighbours)
    lines = _tell_compass(text, neighbours, facts)
    answer, asked = draws.choice(facts)
    direction = neighbours[asked][answer]
    if draws.one_in(2):
        question = f"What is {COMPASS[direction]} of the {asked}?"
    else:
        question = f"What is the {asked} {COMPASS[opposite(direction)]} of?"
    text.ask(question, answer, lines[answer, asked])
    return text.lines


def positional_reasoning(draws: Draws) -> TextStory:
    """Task 17: two shapes beside a third. *Is the SHAPE above the SHAPE?*"""
    text, neighbours = StoryText(gap=""), {}
    middle, first, last = draws.sample(SHAPES, 3)
    directions = draws.sample(range(4), 2)
    connect(neighbours, middle, first, directions[0])
    connect(neighbours, middle, last, directions[1])
    lines: dict[str, int] = {}
    for other, subject in draw_relations(draws, neighbours):
        relation = SIDES[neighbours[other][subject]]
        lines[other if subject == middle else subject] = text.tell(
            f"The {subject} is {relation} the {other}."
        )
    for _ in range(POSITION_QUESTIONS):
        one, other = draws.sample((first, last), 2)
        true = {neighbours[middle][one], neighbours[other][middle]}
        answer = draws.one_in(2)
        direction = draws.choice([side for side in range(4) if (side in true) == answer])
        question = f"Is the {one} {SIDES[direction]} the {other}?"
        text.ask(question, "yes" if answer else "no", lines[one], lines[other])
    return text.lines


def path_finding(draws: Draws) -> TextStory:
    """Task 19: a way of two steps among six places. *How do you go from the PLACE to the PLACE?*

    Each of the three places that are not on the way lies beside one of those that are; two of them may
    happen to be in the same spot, of which nothing is told.
    """
    text, neighbours = StoryText(gap=""), {}
    start, middle, goal, *others = draws.sample(PLACES, len(PLACES))
    first = draws.below(4)
    second = draws.choice([step for step in range(4) if step != opposite(first)])
    connect(neighbours, start, middle, first)
    connect(neighbours, middle, goal, second)
    free = [
        (place, step)
        for place in (start, middle, goal)
        for step in range(4)
        if step not in neighbours[place].values()
    ]
    for other, (place, step) in zip(others, draws.sample(free, len(others)), strict=True):
        connect(neighbours, place, other, step)
    lines = _tell_compass(text, neighbours, draw_relations(draws, neighbours))
    answer = f"{COMPASS[first][0]},{COMPASS[second][0]}"
    question = f"How do you go from the {start} to the {goal}?"
    text.ask(question, answer, lines[start, middle], lines[middle, goal])
    return text.lines


def _tell_compass(
    text: StoryText, neighbours: Mapping[str, Mapping[str, int]], pairs: list[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    """Tell where the first of each pair is from the second; returns pair, either way round, -> line."""
    lines: dict[tuple[str, str], int] = {}
    for subject, other in pairs:
        line = text.tell(f"The {subject} is {COMPASS[neighbours[other][subject]]} of the {other}.")
        lines[subject, other] = lines[other, subject] = line
    return lines

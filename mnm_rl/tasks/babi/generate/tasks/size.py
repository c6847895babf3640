"""Task 18: which of two things is bigger."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

from mnm_rl.tasks.babi.generate.draws import Draws
from mnm_rl.tasks.babi.generate.lines import StoryText, TextStory

SMALL = ("chocolate", "box of chocolates")
BOXES = ("box", "chest", "suitcase", "container")
BLOCK = 5
QUESTIONS = 5
TRIES = 100


class Size(NamedTuple):
    """A fact: the first is smaller than the second.

    Attributes:
        pair: smaller and bigger.
        form: one of two forms in which a fact is known; only facts of the same form repeat each other.
    """

    pair: tuple[str, str]
    form: int


class Conclusion(NamedTuple):
    """Two facts about a common thing, by number, from which a third follows.

    Attributes:
        start: the fact from which the conclusion is reached; its line is printed first.
        link: the other.
        upward: whether the start has the bigger thing.
    """

    start: int
    link: int
    upward: bool


def size_reasoning(draws: Draws) -> TextStory:
    """Task 18: *The BOX is bigger than the BOX. Does the BOX fit in the BOX?*

    Facts come in fives. After five of them up to five questions are asked; a question is one random way from
    fact to fact (see :func:`conclude`), and there are a hundred tries for all five. A story ends when five
    questions follow each other, and else goes on with five more facts.
    """
    text = StoryText(gap="")
    pairs = tuple(combinations((*SMALL, *draws.sample(BOXES, len(BOXES))), 2))
    facts: list[Size] = []
    lines: list[int] = []
    while True:
        for _ in range(BLOCK):
            facts.append(Size(draws.choice(pairs), draws.below(2)))
            lines.append(_tell(draws, text, *facts[-1].pair))
        asked = 0
        for conclusion in _find_conclusions(draws, facts):
            _ask(draws, text, facts, lines, conclusion)
            asked += 1
        if asked == QUESTIONS:
            return text.lines


def conclude(facts: list[Size], number: int, side: int) -> Conclusion | None:
    """Where a way leads that begins at a fact and goes on over the smaller (0) or bigger (1) of its things.

    It goes to the last repetition of the fact, to the thing, and to the first other fact about that thing. It
    leads to a conclusion if the thing is the smaller in one of the two facts and the bigger in the other.
    """
    start = len(facts) - 1 - facts[::-1].index(facts[number])
    thing = facts[start].pair[side]
    others = (n for n, other in enumerate(facts) if thing in other.pair and n != start)
    link = next(others, None)
    if link is None or facts[link].pair[1 - side] != thing:
        return None
    return Conclusion(start, link, side == 0)


def _find_conclusions(draws: Draws, facts: list[Size]) -> list[Conclusion]:
    ways = [conclude(facts, number, side) for number in range(len(facts)) for side in (0, 1)]
    found: list[Conclusion] = []
    for _ in range(TRIES if any(ways) else 0):
        way = draws.choice(ways)
        if way is not None:
            found.append(way)
        if len(found) == QUESTIONS:
            break
    return found


def _tell(draws: Draws, text: StoryText, small: str, big: str) -> int:
    if draws.one_in(2):
        return text.tell(f"The {small} fits inside the {big}.")
    return text.tell(f"The {big} is bigger than the {small}.")


def _ask(draws: Draws, text: StoryText, facts: list[Size], lines: list[int], conclusion: Conclusion) -> None:
    start, link, upward = conclusion
    low, high = (link, start) if upward else (start, link)
    inner, outer = facts[low].pair[0], facts[high].pair[1]
    if not upward:
        inner, outer = outer, inner
    bigger = f"Is the {outer} bigger than the {inner}?"
    question = bigger if draws.one_in(2) else f"Does the {inner} fit in the {outer}?"
    text.ask(question, "yes" if upward else "no", lines[start], lines[link])

"""What is counted in a story when two sets of stories are compared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise

from mnm_rl.tasks.babi.generate.lines import TextLine, TextStory

ENTITIES = {
    "PERSON": "mary sandra john daniel fred bill jeff julie gertrude winona jessica emily lily bernhard greg "
    "julius brian sumit yann jason antoine",
    "PLACE": "kitchen bedroom bathroom garden hallway office school park cinema",
    "OBJECT": "football milk apple pajamas",
    "ANIMALS": "mice wolves cats sheep",
    "ANIMAL": "mouse wolf cat swan lion frog rhino",
    "COLOUR": "gray white yellow green",
    "FEELING": "hungry thirsty bored tired",
    "NUMBER": "none one two three",
}
SHAPES = ("triangle", "pink rectangle", "red sphere", "blue square", "yellow square", "red square")
BOXES = ("box of chocolates", "chocolate", "chest", "suitcase", "container", "box")

KINDS = {name: kind for kind, names in ENTITIES.items() for name in names.split()}
KINDS |= dict.fromkeys(SHAPES, "SHAPE") | dict.fromkeys(BOXES, "BOX")
_NAME = re.compile(
    r"\b(?:" + "|".join(sorted(KINDS, key=len, reverse=True)) + r")\b",
    re.IGNORECASE,
)
_VERBS = (
    ("MOVE", r"(?:went back to|went to|journeyed to|travelled to|moved to)"),
    ("GET", r"(?:took|got|grabbed|picked up)"),
    ("DROP", r"(?:dropped|put down|left|discarded)"),
    ("GIVE", r"(?:gave|passed|handed)"),
)
MOST_SHOWN = 12
"""Larger numbers of lines count as this."""

Features = Callable[[TextStory], Iterator[str]]


@lru_cache(maxsize=100_000)
def abstract(text: str) -> str:
    """The text with a kind in place of each name; the kind is in lower case where the name is."""

    def replace(match: re.Match[str]) -> str:
        kind = KINDS[match[0].lower()]
        # Only people are written with and without a capital in the middle of a sentence.
        return kind.lower() if kind == "PERSON" and match[0].islower() else kind

    return _NAME.sub(replace, text)


@lru_cache(maxsize=100_000)
def names_in(text: str) -> tuple[str, ...]:
    """The names in a text, in lower case."""
    return tuple(match[0].lower() for match in _NAME.finditer(text))


@lru_cache(maxsize=100_000)
def _action(text: str) -> str:
    """The abstract text with the kind of action in place of its verb."""
    for kind, verbs in _VERBS:
        text = re.sub(verbs, kind, text)
    return abstract(text).removesuffix(" there.")


def words_of(stories: list[TextStory]) -> set[str]:
    """All words, in lower case, answers included."""
    lines = {(line.text, line.answer) for story in stories for line in story}
    return {word for text, answer in lines for word in re.findall(r"[a-z]+", f"{text} {answer}".lower())}


def _statements(story: TextStory) -> list[TextLine]:
    return [line for line in story if not line.answer]


def _questions(story: TextStory) -> list[TextLine]:
    return [line for line in story if line.answer]


def _words(story: TextStory) -> Iterator[str]:
    return (word for line in story for word in re.findall(r"[a-z]+", line.text.lower()))


def _length(story: TextStory) -> Iterator[str]:
    """Numbers of statements in ten classes of growing width, so that long stories do not each stand alone."""
    length, width = len(_statements(story)), 1
    while length > 20 * width:
        width *= 2
    yield str(length // width * width)


def _gaps(story: TextStory) -> Iterator[str]:
    since = 0
    for line in story:
        if line.answer:
            yield str(min(since, 3 * MOST_SHOWN))
            since = 0
        else:
            since += 1


def _supports(story: TextStory) -> Iterator[str]:
    """For each line of support, which it is and how many statements back."""
    told: list[int] = []
    for number, line in enumerate(story, 1):
        if not line.answer:
            told.append(number)
        for rank, support in enumerate(line.supports[:4]):
            back = len(told) - told.index(support)
            yield f"{rank}: {min(back, MOST_SHOWN)} back"


def _support_orders(story: TextStory) -> Iterator[str]:
    """How many lines support an answer, and in which order they are named."""
    for line in _questions(story):
        ranks = sorted(line.supports)
        yield str([ranks.index(support) for support in line.supports[:6]])


def _successions(story: TextStory) -> Iterator[str]:
    """What follows what, and which of its names are those of the statement before."""
    told = _statements(story)
    for first, second in pairwise(told):
        known = names_in(first.text)
        shared = "".join(str(known.index(name)) if name in known else "-" for name in names_in(second.text))
        yield f"{_action(first.text)} {_action(second.text)} {shared}"


def _returns(story: TextStory) -> Iterator[str]:
    """How many statements ago the first name of a statement was last mentioned, by kind of action."""
    told = _statements(story)
    for number, line in enumerate(told):
        name = names_in(line.text)[:1]
        back = next((b for b in range(1, number + 1) if {*name} & {*names_in(told[number - b].text)}), 0)
        yield f"{_action(line.text)} {min(back, MOST_SHOWN)}"


def _repetitions(story: TextStory) -> Iterator[str]:
    """How a question compares with the one before it."""
    asked = _questions(story)
    for first, second in pairwise(asked):
        same_text, same_answer = first.text == second.text, first.answer == second.answer
        yield f"question {'same' if same_text else 'other'}, answer {'same' if same_answer else 'other'}"


FEATURES: dict[str, Features] = {
    "statement templates": lambda story: (abstract(line.text) for line in _statements(story)),
    "question templates": lambda story: (abstract(line.text) for line in _questions(story)),
    "answers": lambda story: (line.answer for line in _questions(story)),
    "answers by question": lambda story: (f"{abstract(q.text)} {q.answer}" for q in _questions(story)),
    "words": _words,
    "statements per story": _length,
    "questions per story": lambda story: iter([str(len(_questions(story)))]),
    "statements before a question": _gaps,
    "distance of supports": _supports,
    "order of supports": _support_orders,
    "successive statements": _successions,
    "returns to a name": _returns,
    "successive questions": _repetitions,
}
"""Name -> the categories that a story counts for."""


def story_features(stories: list[TextStory], feature: str) -> list[Counter[str]]:
    """The counts of a feature for each story."""
    return [Counter(FEATURES[feature](story)) for story in stories]

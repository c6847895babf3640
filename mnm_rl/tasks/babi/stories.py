"""Reading bAbI files: numbered lines, each a statement, or a question with its answer.

    1 Mary moved to the bathroom.
    2 Where is Mary? <tab>bathroom<tab>1

The number 1 begins a new story. Words are lower-cased, and ``.`` and ``?`` are words of their own. The answer
may be several words with commas between them; the third field, the lines that support the answer, is checked
but not kept.
"""

from __future__ import annotations

import re
from typing import NamedTuple

PLACEHOLDER = "-"
"""The symbol that stands in the input where a word of an answer is to be predicted."""

BYTE_ORDER_MARK = "\ufeff"
"""What some editors put before the first line."""

Words = tuple[str, ...]

_LINE = re.compile(r"(\d+) (?:([^\t.?]+\.)|([^\t.?]+\?) ?\t([^\t]*)\t[\d ]*) *")
_QUESTION_ALONE = re.compile(r"\d+ [^\t]*\?\s*")


class Line(NamedTuple):
    """A statement or a question.

    Attributes:
        words: words in lower case; the last is ``.`` or ``?``.
        answer: the words of the answer; empty for a statement.
    """

    words: Words
    answer: Words


Story = list[Line]


class _Reader:
    """Turns texts into words; equal texts give the same tuple, which makes files quick to read and small."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], Line] = {}

    def line(self, text: str, answer: str) -> Line:
        """The line's words; raises a :class:`ValueError` about words that cannot be."""
        key = (text, answer)
        if key not in self.known:
            words = (*text[:-1].lower().split(), text[-1])
            answers = tuple(answer.lower().split(",")) if answer else ()
            for word in (*words[:-1], *answers):
                if not word or word in (PLACEHOLDER, ".", "?") or " " in word or "," in word:
                    raise ValueError(f"{word!r} cannot be a word")
            self.known[key] = Line(words, answers)
        return self.known[key]


def read_stories(contents: bytes, name: str) -> list[Story]:
    """All stories of a file; ``name`` is what errors call it.

    Raises:
        ValueError: if the file is not in the official format; the message names file and line.
    """
    reader, stories = _Reader(), []
    for number, text in enumerate(_lines(contents, name), 1):
        try:
            _add_line(stories, text, reader)
        except ValueError as error:
            raise ValueError(f"{name}, line {number}: {error}.") from None
    if not stories:
        raise ValueError(f"{name} is empty.")
    try:
        _require_question(stories[-1:], "the file ends")
    except ValueError as error:
        raise ValueError(f"{name}: {error}.") from None
    return stories


def _lines(contents: bytes, name: str) -> list[str]:
    try:
        text = contents.decode("utf-8")
    except UnicodeDecodeError as error:
        number = contents.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{name}, line {number}: not UTF-8 (byte 0x{contents[error.start]:02x}).") from None
    lines = text.removeprefix(BYTE_ORDER_MARK).replace("\r\n", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    # Only what ends a line is taken off: the last one, too, may end with an empty field of supports.
    return [*lines[:-1], lines[-1].rstrip("\r")] if lines else []


def _add_line(stories: list[Story], text: str, reader: _Reader) -> None:
    match = _LINE.fullmatch(text)
    if match is None:
        raise ValueError(_complaint(text))
    number, words, question, answer = match.groups(default="")
    expected = len(stories[-1]) + 1 if stories else 1
    if int(number) == 1:
        _require_question(stories[-1:], "a new story begins")
        stories.append([])
    elif int(number) != expected:
        raise ValueError(
            f"number {number} where 1 or {expected} was expected" if stories else "must have number 1"
        )
    if question and not answer.strip():
        raise ValueError("a question without an answer")
    stories[-1].append(reader.line(words or question, answer.strip()))


def _complaint(text: str) -> str:
    if _QUESTION_ALONE.fullmatch(text):
        return "a question without an answer"
    shown = text if len(text) <= 60 else text[:57] + "..."
    return f"expected 'ID statement.' or 'ID question?<tab>answer<tab>supporting IDs', got {shown!r}"


def _require_question(stories: list[Story], where: str) -> None:
    if stories and not any(line.answer for line in stories[0]):
        raise ValueError(f"{where}, but the story before it has no question")

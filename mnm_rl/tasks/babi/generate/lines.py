"""Stories as the lines of a file: text as it is printed, answers, and the lines that support them.

    1 Mary moved to the bathroom.
    2 Where is Mary? <tab>bathroom<tab>1

Most tasks have a blank between ``?`` and the tab, and seven have none (4 and 15 to 20). It is kept as part of
the text, so that what is read and written again is the same file.
"""

from __future__ import annotations

from typing import NamedTuple


class TextLine(NamedTuple):
    """A statement or a question as it is printed, without its number.

    Attributes:
        text: with its full stop or question mark, and a blank after the latter where the task has it.
        answer: words joined by commas; empty for a statement.
        supports: numbers of the lines that the answer rests on, in the order in which they are printed.
    """

    text: str
    answer: str = ""
    supports: tuple[int, ...] = ()


TextStory = list[TextLine]
"""Lines; the first has number 1."""


class StoryText:
    """A story that is being told.

    Args:
        gap: what stands between ``?`` and the tab.
    """

    def __init__(self, gap: str = " ") -> None:
        self.lines: TextStory = []
        self.questions = 0
        self._gap = gap

    def tell(self, text: str) -> int:
        """Add a statement, capitalised; returns the number of its line."""
        self.lines.append(TextLine(text[0].upper() + text[1:]))
        return len(self.lines)

    def ask(self, text: str, answer: str, *supports: int) -> None:
        """Add a question and its answer."""
        self.lines.append(TextLine(text + self._gap, answer, supports))
        self.questions += 1


def format_stories(stories: list[TextStory]) -> str:
    """The stories as the text of a file."""
    return "".join(map(_format_story, stories))


def _format_story(story: TextStory) -> str:
    lines = []
    for number, (text, answer, supports) in enumerate(story, 1):
        if answer:
            lines.append(f"{number} {text}\t{answer}\t{' '.join(map(str, supports))}\n")
        else:
            lines.append(f"{number} {text}\n")
    return "".join(lines)


def parse_stories(text: str) -> list[TextStory]:
    """The stories of a file that is in the official format; the inverse of :func:`format_stories`.

    This is for files whose format is known to be right; see :func:`mnm_rl.tasks.babi.stories.read_stories`
    for a reader that says what is wrong with others.
    """
    stories: list[TextStory] = []
    for line in text.splitlines():
        number, _, rest = line.partition(" ")
        if number == "1":
            stories.append([])
        words, *answer = rest.split("\t")
        supports = tuple(map(int, answer[1].split())) if answer else ()
        stories[-1].append(TextLine(words, answer[0] if answer else "", supports))
    return stories

"""Stories as sequences of symbols, in either of two formats.

``question``: one sequence per question: the story so far without earlier questions, then the question, then
a placeholder for each word of the answer (section 4.2 of Munkhdalai et al. 2019). ``story``: one sequence per
story, with all its questions and placeholders where they stand (the set-up of the DNC, Graves et al. 2016).

Sequences are put together only when they are needed: written out, the question format would repeat every
story about five times.

Dimensions: ``M`` stories, ``Q`` questions, ``N`` sequences, ``T`` time, ``B`` batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnm_rl.tasks.babi.stories import Line, Story
from mnm_rl.tasks.babi.vocabulary import Vocabulary
from mnm_rl.tasks.base import Batch

Format = Literal["question", "story"]

Integers = NDArray[np.integer]
Piece = tuple[Integers, Integers]
"""Inputs and targets of a part of a sequence."""


class StoryFile(NamedTuple):
    """Stories of one task and the name of the file that they come from."""

    task: int
    name: str
    stories: list[Story]
    is_whole: bool = True
    """Whether these are all the stories of the file, so that its lines can be counted."""

    def place(self, holds: Callable[[Line], bool]) -> str:
        """The file, and where it is known the number, of the first line for which something holds."""
        numbers = (number for number, line in enumerate(chain(*self.stories), 1) if holds(line))
        return f"{self.name}, line {next(numbers)}" if self.is_whole else self.name


class Longest(NamedTuple):
    """The longest sentence or answer of a corpus: its number of words, and where it is."""

    words: int = 0
    place: str = ""


@dataclass(frozen=True)
class Corpus:
    """Encoded stories, each stored once. Of ends, which begin with 0, part i is ``ends[i] : ends[i + 1]``.

    Attributes:
        statements: the statements of all stories, one after the other.
        asks: all questions, each with its placeholders.
        ask_targets: like ``asks``, with the words of the answers at the placeholders.
        story_tasks: ``[M]``, the number of each story's task.
        statement_ends: ``[M + 1]``, the stories' parts of ``statements``.
        question_ends: ``[M + 1]``, the stories' parts of the questions.
        ask_ends: ``[Q + 1]``, the questions' parts of ``asks``.
        contexts: ``[Q]``, where in ``statements`` the text before a question ends.
        placeholder: number of the placeholder.
        longest_sentence: the longest statement or question, its end included.
        longest_answer: the longest answer.
    """

    statements: Integers
    asks: Integers
    ask_targets: Integers
    story_tasks: Integers
    statement_ends: Integers
    question_ends: Integers
    ask_ends: Integers
    contexts: Integers
    placeholder: int
    longest_sentence: Longest
    longest_answer: Longest

    @classmethod
    def encode(cls, files: Iterable[StoryFile], vocabulary: Vocabulary) -> Corpus:
        """Encode files.

        Raises:
            ValueError: if words are not in the vocabulary; the message names the file.
        """
        builder = _Builder(vocabulary)
        for file in files:
            builder.add_file(file)
        return builder.build()

    @property
    def question_tasks(self) -> Integers:
        """``[Q]``, the number of each question's task."""
        return self.story_tasks[self.question_stories]

    @property
    def question_stories(self) -> Integers:
        """``[Q]``, the story of each question."""
        return np.repeat(np.arange(len(self.story_tasks)), np.diff(self.question_ends))


class Sequences:
    """The sequences of a corpus in one of the formats.

    Attributes:
        lengths: ``[N]``, numbers of symbols.
        tasks: ``[N]``, numbers of tasks.
    """

    def __init__(self, corpus: Corpus, form: Format) -> None:
        self.corpus = corpus
        self.form = form
        asks = np.diff(corpus.ask_ends)
        if form == "question":
            self._stories = corpus.question_stories
            self.lengths = corpus.contexts - corpus.statement_ends[self._stories] + asks
            self.tasks = corpus.question_tasks
        else:
            asks = np.diff(corpus.ask_ends[corpus.question_ends])
            self.lengths = np.diff(corpus.statement_ends) + asks
            self.tasks = corpus.story_tasks

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, chosen: Integers) -> Batch:
        """The chosen sequences side by side, padded at the end to the longest."""
        rows = [self.pieces(int(number)) for number in chosen]
        lengths = self.lengths[chosen]
        inputs = np.zeros((len(rows), int(lengths.max())), np.int64)
        targets = np.zeros_like(inputs)
        for row, pieces in enumerate(rows):
            inputs[row, : lengths[row]] = np.concatenate([piece[0] for piece in pieces])
            targets[row, : lengths[row]] = np.concatenate([piece[1] for piece in pieces])
        present = np.arange(inputs.shape[1]) < lengths[:, None]
        answers = number_answers((inputs == self.corpus.placeholder) & present)
        return Batch(
            _time_first(inputs),
            _time_first(targets),
            _time_first(answers),
            torch.from_numpy(lengths.astype(np.int64)),
            torch.from_numpy(self.tasks[chosen].astype(np.int64)),
        )

    def pieces(self, number: int) -> list[Piece]:
        """The texts and questions of a sequence; answers are at the ends of pieces."""
        corpus = self.corpus
        if self.form == "question":
            start = int(corpus.statement_ends[self._stories[number]])
            return [self._text(start, int(corpus.contexts[number])), self._ask(number)]
        start, end = corpus.statement_ends[number : number + 2].tolist()
        pieces = []
        for question in range(*corpus.question_ends[number : number + 2].tolist()):
            pieces += [self._text(start, int(corpus.contexts[question])), self._ask(question)]
            start = int(corpus.contexts[question])
        return [*pieces, self._text(start, end)]

    def _text(self, start: int, end: int) -> Piece:
        text = self.corpus.statements[start:end]
        return text, text

    def _ask(self, question: int) -> Piece:
        start, end = self.corpus.ask_ends[question : question + 2]
        return self.corpus.asks[start:end], self.corpus.ask_targets[start:end]


def number_answers(asked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number the runs of true steps within each row of ``asked [B, T]`` from 0; -1 elsewhere."""
    begins = asked.copy()
    begins[:, 1:] &= ~asked[:, :-1]
    return np.where(asked, begins.cumsum(1) - 1, -1)


def _time_first(array: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array.T))


class _Builder:
    """Gathers encoded stories in lists."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.encoded: dict[Line, Piece] = {}
        self.statements: list[Integers] = []
        self.asks: list[Piece] = []
        self.story_tasks: list[int] = []
        self.statement_ends, self.question_ends, self.contexts = [0], [0], []
        self.position = 0
        self.longest_sentence = self.longest_answer = Longest()

    def add_file(self, file: StoryFile) -> None:
        lines = set(chain.from_iterable(file.stories))
        self.vocabulary.require((word for line in lines for word in (*line.words, *line.answer)), file.name)
        self.longest_sentence = self._longer(self.longest_sentence, lines, file, lambda line: len(line.words))
        self.longest_answer = self._longer(self.longest_answer, lines, file, lambda line: len(line.answer))
        self.encoded.update({line: self._encode(line) for line in lines if line not in self.encoded})
        for story in file.stories:
            self._add_story(story)
        self.story_tasks += [file.task] * len(file.stories)

    def build(self) -> Corpus:
        def integers(numbers: Sequence[int]) -> Integers:
            return np.asarray(numbers, np.int64)

        return Corpus(
            _join(self.statements),
            _join([ask[0] for ask in self.asks]),
            _join([ask[1] for ask in self.asks]),
            integers(self.story_tasks),
            integers(self.statement_ends),
            integers(self.question_ends),
            np.cumsum([0, *(len(ask[0]) for ask in self.asks)]),
            integers(self.contexts),
            self.vocabulary.placeholder,
            self.longest_sentence,
            self.longest_answer,
        )

    def _longer(
        self, before: Longest, lines: set[Line], file: StoryFile, length: Callable[[Line], int]
    ) -> Longest:
        """The longest so far; it is looked for in the file only where it is there."""
        most = max(map(length, lines), default=0)
        if most <= before.words:
            return before
        return Longest(most, file.place(lambda line: length(line) == most))

    def _add_story(self, story: Story) -> None:
        for line in story:
            piece = self.encoded[line]
            if line.answer:
                self.asks.append(piece)
                self.contexts.append(self.position)
            else:
                self.statements.append(piece[0])
                self.position += len(piece[0])
        self.statement_ends.append(self.position)
        self.question_ends.append(len(self.asks))

    def _encode(self, line: Line) -> Piece:
        numbers = self.vocabulary.numbers
        words = [numbers[word] for word in line.words]
        hidden = [self.vocabulary.placeholder] * len(line.answer)
        targets = words + [numbers[word] for word in line.answer]
        return np.array(words + hidden, np.int32), np.array(targets, np.int32)


def _join(parts: list[Integers]) -> Integers:
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)

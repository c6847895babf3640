"""The 20 bAbI question answering tasks as a supervised task (Munkhdalai et al. 2019, section 4.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mnm_rl.field_types import check_own_fields
from mnm_rl.tasks.babi.dataset import ALL_TASKS, Dataset, Size, load_dataset
from mnm_rl.tasks.babi.encoding import Corpus, Format, Sequences
from mnm_rl.tasks.babi.files import Source
from mnm_rl.tasks.babi.generate.files import check_tasks
from mnm_rl.tasks.babi.generated import FreshQuestions, Origin, choose_source
from mnm_rl.tasks.babi.order import Balance, TrainingOrder, contents_generator
from mnm_rl.tasks.babi.renaming import Renaming
from mnm_rl.tasks.babi.report import describe_sequences, dropped_note
from mnm_rl.tasks.babi.table import babi_table
from mnm_rl.tasks.babi.vocabulary import Vocabulary
from mnm_rl.tasks.base import Batch, ErrorCounts, Task
from mnm_rl.tasks.sentences import SentenceLayout
from mnm_rl.text_tables import Row

MOST_REPEATS = 1000
LONGEST_SENTENCE, LONGEST_ANSWER = 12, 3
"""Words of the longest sentence, its end included, and answer of bAbI v1.2."""


@dataclass(eq=False)
class BabiTask(Task):
    """Word-level question answering: one placeholder for each word of an answer, and loss only there.

    The data are read, checked and encoded at once, so that whatever is wrong with them is said before any
    training. An answer of several words counts as right only when every word is right.

    Raises:
        ValueError: if an option or the data are unusable; the message says which.
    """

    decided_by = "answer_error"
    data: str | Path | None = None
    """The official archive, or a folder with it or what comes out of it; else see ``files.find_source``."""
    origin: Origin = "any"
    """Official files, generated ones, or generated ones only where no official ones are found."""
    fresh: bool = False
    """Train on newly generated questions all the time, none of them twice, instead of on a training set."""
    tasks: tuple[int, ...] = ALL_TASKS
    """Numbers of the tasks that are trained jointly."""
    size: Size = "10k"
    """9,000 or 900 training questions for each task."""
    format: Format = "question"
    """One sequence for each question, or one for each story with all its questions."""
    supplement: bool = False
    """Add the synthetic stories to task 3's training set, where the real file is missing."""
    max_length: int | None = None
    """Leave longer sequences out of training, never out of evaluation. They are not cut: without its start
    a story may not hold what is asked for."""
    balance: Balance = "questions"
    """What is drawn equally often in training: every question, or every task. They differ where a task has
    fewer questions (task 3's real subset) and where stories hold one question or several (story format)."""
    repeat: Mapping[int, int] = field(default_factory=dict)
    """Tasks whose training questions are drawn so many times as often, for those that are slow to learn."""
    adaptive: bool = False
    """Set ``repeat`` after every validation: half of the questions are then drawn evenly, the other half in
    proportion to the errors of their tasks."""
    rename: bool = False
    """Rename people, places and things at random in every training sequence, each time anew."""
    pool_batches: int = 100
    """Batches that are sorted by length together: more means less padding."""
    mixing: float = 0.3
    """How freely lengths are sorted; see :class:`mnm_rl.tasks.babi.order.TrainingOrder`."""
    saved_vocabulary: Vocabulary | None = None
    """That of a trained model; without it, the words of the training files of all 20 tasks."""
    further_notes: tuple[str, ...] = ()
    """What else every log and table must say."""

    def __post_init__(self) -> None:
        self._check_options()
        self.source: Source
        data = None if self.data is None else str(self.data)
        self.source, self._origin_notes = choose_source(data, self.origin, self.size)
        dataset = load_dataset(self.source, self.size, self.tasks, self.supplement, self.saved_vocabulary)
        self._dataset: Dataset = dataset
        self.sequences = {split: Sequences(corpus, self.format) for split, corpus in dataset.splits.items()}
        self.order = self._order_training()
        self._fresh = self._fresh_questions() if self.fresh else None
        self._renaming = Renaming(dataset.splits["train"], dataset.vocabulary) if self.rename else None

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary in use, given or built; save its ``to_dict()`` with the model."""
        return self._dataset.vocabulary

    @property
    def input_symbols(self) -> int:
        """Size of the vocabulary: 159 for the official data."""
        return len(self.vocabulary)

    @property
    def output_size(self) -> int:
        """Any symbol may be predicted."""
        return len(self.vocabulary)

    @property
    def data_place(self) -> str:
        """See :class:`mnm_rl.tasks.base.Task`."""
        return str(self.source.path)

    @property
    def symbol_names(self) -> tuple[str, ...]:
        """The words of the vocabulary."""
        return self.vocabulary.symbols

    @property
    def sentence_layout(self) -> SentenceLayout:
        """Sentences end with a full stop or a question mark, and are as long as in the official files.

        Raises:
            ValueError: the data have a longer sentence, or a longer answer; the message says where.
        """
        for split, sequences in self.sequences.items():
            if not (self.fresh and split == "train"):
                _check_lengths(sequences.corpus)
        numbers = self.vocabulary.numbers
        return SentenceLayout(
            numbers["."], numbers["?"], self.vocabulary.placeholder, LONGEST_SENTENCE, LONGEST_ANSWER
        )

    def saved(self) -> dict[str, Any]:
        """The vocabulary, by which the numbers of symbols mean words."""
        return {"vocabulary": self.vocabulary.to_dict()}

    def error_table(self, counts: ErrorCounts) -> list[Row]:
        """The paper's Table 3 with a column for these errors."""
        return babi_table(counts)

    @cached_property
    def notes(self) -> list[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What every log and table must say: parts of the data that are missing, synthetic or left out."""
        if self.fresh:
            limit = "" if self.max_length is None else f"; none is longer than {self.max_length} symbols"
            fresh = f"trained on GENERATED questions, fresh all the time{limit}"
            return [*self._origin_notes, fresh, *self.further_notes]
        train = self.sequences["train"]
        renamed = ["trained on stories whose people, places and things are RENAMED at random"]
        return [
            *self._origin_notes,
            *self._dataset.notes,
            *(renamed if self.rename else []),
            *dropped_note(train, self.max_length),
            *self.further_notes,
        ]

    def describe(self) -> str:
        """Lines that say what is trained on, with numbers of questions and lengths by task, and the notes."""
        balance = f"every {'task' if self.balance == 'tasks' else 'question'} equally often"
        for number, times in sorted(self.repeat.items()):
            balance += f", those of task {number} {times} times as often"
        if self.adaptive:
            balance += ", after a validation half of them by the errors of their tasks"
        head = f"bAbI {self.size}, one sequence per {self.format}, {balance}, {self.input_symbols} symbols"
        return "\n".join(
            [f"{head}, from {self.source.path}", *describe_sequences(self.sequences), *self.notes]
        )

    def training_batch(self, index: int, batch_size: int, seed: int) -> Batch:
        """Sequences of similar lengths; always ``batch_size`` of them."""
        if self._fresh is not None:
            return self._fresh.batch(index, batch_size, seed)
        batch = self.sequences["train"].batch(self.order.batch(index, batch_size, seed))
        if self._renaming is None:
            return batch
        return self._renaming.rename(batch, contents_generator(seed, index))

    def adapt(self, errors: Mapping[int, float]) -> None:
        """Choose anew what is repeated, by the errors of each task in a validation, if that is wanted."""
        if self.adaptive:
            self.repeat = repeats_by_error(errors)
            self.order = self._order_training()

    def evaluation_batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """All sequences of a set, shortest first; the last batch may be smaller.

        Raises:
            ValueError: if there is no such set.
        """
        if split not in self.sequences:
            raise ValueError(f"Unknown set {split!r}; known sets: {', '.join(self.sequences)}.")
        sequences = self.sequences[split]
        order = np.argsort(sequences.lengths, kind="stable")
        return (
            sequences.batch(order[start : start + batch_size]) for start in range(0, len(order), batch_size)
        )

    def _check_options(self) -> None:
        check_own_fields(self, "pool_batches", "max_length")
        self.tasks = tuple(sorted(self.tasks))
        check_tasks(self.tasks)
        if not 0 <= self.mixing < float("inf"):
            raise ValueError(f"mixing must be a number from 0 on, got {self.mixing}.")
        for number, times in self.repeat.items():
            if number not in self.tasks or times < 1:
                raise ValueError(
                    f"repeat gives a number from 1 on for tasks of the run, not {times} for task {number}."
                )
        if self.repeat and self.adaptive:
            raise ValueError("An adaptive task chooses itself what to repeat.")
        if (self.repeat or self.adaptive) and (self.fresh or self.balance == "tasks"):
            raise ValueError("repeat is for a fixed training set whose questions all come equally often.")
        if self.fresh and self.supplement:
            raise ValueError("Fresh questions need no supplement: leave out one of the two.")
        if self.fresh and self.rename:
            raise ValueError("Fresh questions come with all names already: leave out fresh or rename.")

    def _fresh_questions(self) -> FreshQuestions:
        return FreshQuestions(
            self.tasks,
            self.vocabulary,
            self.format,
            self.balance,
            self.max_length,
            self.pool_batches,
            self.mixing,
        )

    def _order_training(self) -> TrainingOrder:
        train = self.sequences["train"]
        fits = train.lengths <= (train.lengths.max() if self.max_length is None else self.max_length)
        if not fits.any():
            raise ValueError(
                f"No training sequence has {self.max_length} symbols or fewer; raise max_length."
            )
        chosen = np.flatnonzero(fits)
        chosen = np.repeat(chosen, [self.repeat.get(int(task), 1) for task in train.tasks[chosen]])
        return TrainingOrder(train.lengths, train.tasks, chosen, self.balance, self.pool_batches, self.mixing)


def _check_lengths(corpus: Corpus) -> None:
    """Make sure that sentences and answers have no more words than models of sentences have places."""
    sentence, answer = corpus.longest_sentence, corpus.longest_answer
    if sentence.words > LONGEST_SENTENCE:
        raise ValueError(
            f"{sentence.place}: a sentence of {sentence.words} words, its end included; models of sentences "
            f"take {LONGEST_SENTENCE} at most."
        )
    if answer.words > LONGEST_ANSWER:
        raise ValueError(
            f"{answer.place}: an answer of {answer.words} words; models of sentences give {LONGEST_ANSWER} "
            "at most."
        )


def parse_tasks(text: str) -> tuple[int, ...]:
    """Numbers of tasks from a command line, such as ``"1,2,19"`` or ``"1-5,20"``.

    Raises:
        ValueError: if it is not a list of numbers of tasks.
    """
    tasks: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = [int(end) for end in ([first, last] if dash else [first]) if end.isdecimal()]
        if len(ends) != 1 + len(dash) or ends[0] > ends[-1]:
            raise ValueError(f"{part!r} is not a bAbI task; write numbers from 1 to 20: 1,2,19 or 1-5,20.")
        check_tasks(sorted({*ends}))
        tasks += range(ends[0], ends[-1] + 1)
    check_tasks(tasks)
    return tuple(tasks)


def repeats_by_error(errors: Mapping[int, float]) -> dict[int, int]:
    """How often to draw the questions of each task, half evenly and half in proportion to the errors.

    Each of n tasks comes once, and n further times are shared out in proportion to the errors.

    Args:
        errors: task -> fraction of wrong answers.
    """
    total = sum(errors.values())
    if total == 0:
        return {}
    return {task: 1 + round(len(errors) * error / total) for task, error in errors.items()}


def parse_repeat(text: str) -> dict[int, int]:
    """How often the questions of some tasks are repeated, from a command line: ``"3:4,16:2"``; may be empty.

    Raises:
        ValueError: if it is not of this form.
    """
    repeat = {}
    for part in text.split(",") if text.strip() else []:
        task, _, times = part.strip().partition(":")
        if not (task.isdecimal() and times.isdecimal()):
            raise ValueError(
                f"{part!r} is not a task and how often its questions come; write 3:4,16:2, or auto."
            )
        if int(times) > MOST_REPEATS or int(task) in repeat:
            raise ValueError(
                f"repeat names each task once, with at most {MOST_REPEATS} repetitions, got {text!r}."
            )
        repeat[int(task)] = int(times)
    return repeat

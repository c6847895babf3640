"""Concatenated bAbI: the stories of all tasks as texts without end (catbAbI, Schlag et al. 2021).

Schlag, Munkhdalai and Schmidhuber 2021, "Learning associative inference using fast weight memory", section
4.1. Stories of all tasks come one after the other in random order, with a symbol where one begins. An answer,
of several words too, is one symbol of the text, right after its question mark, and is predicted there: the
target of every step is the symbol after it. What is learned is either the whole text or the answers alone.
A batch goes on where the last one ended.

Dimensions: ``M`` stories, ``T`` time, ``B`` batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tyro.conf import arg

from mnm_rl.field_types import check_own_fields
from mnm_rl.tasks.babi.dataset import ALL_TASKS, SPLITS, Size, load_dataset
from mnm_rl.tasks.babi.encoding import Corpus, Sequences, number_answers
from mnm_rl.tasks.babi.generate.files import check_tasks
from mnm_rl.tasks.babi.generated import Origin, choose_source
from mnm_rl.tasks.babi.options import SUPPLEMENT_NOTE
from mnm_rl.tasks.babi.streams import Streams
from mnm_rl.tasks.babi.table import catbabi_table
from mnm_rl.tasks.babi.task import parse_tasks
from mnm_rl.tasks.babi.vocabulary import Vocabulary
from mnm_rl.tasks.base import Batch, ErrorCounts, ModelSizes, Task, TaskOptions
from mnm_rl.text_tables import Row

Mode = Literal["question", "language"]

BEGIN = "<story>"
"""The symbol before a story's first word."""
HELD_OUT_SEED = 0


@dataclass(frozen=True)
class Text:
    """Stories as texts, one after the other.

    Attributes:
        symbols: of all stories, each with :data:`BEGIN` before it.
        ends: ``[M + 1]``, from 0 on.
        tasks: ``[M]``, numbers of tasks.
    """

    symbols: NDArray[np.int64]
    ends: NDArray[np.int64]
    tasks: NDArray[np.int64]


@dataclass(eq=False)
class CatbabiTask(Task):
    """The text of all stories; ``question``: loss at question marks only; ``language``: at every symbol.

    Errors are those of the answers in either mode, by the task of the story that they are in.

    Raises:
        ValueError: if an option or the data are unusable; the message says which.
    """

    decided_by = "answer_error"
    carries_state = True
    data: str | Path | None = None
    """As in :class:`mnm_rl.tasks.babi.BabiTask`, and so are origin, tasks, size and supplement."""
    origin: Origin = "any"
    tasks: tuple[int, ...] = ALL_TASKS
    size: Size = "10k"
    supplement: bool = False
    mode: Mode = "question"
    """What is learned."""
    window: int = 200
    """T, symbols of a batch in each column: gradients do not go back further."""
    saved_symbols: tuple[str, ...] | None = None
    """Those of a trained model."""
    further_notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_own_fields(self, "window")
        self.tasks = tuple(sorted(self.tasks))
        check_tasks(self.tasks)
        words = self.saved_symbols
        data = None if self.data is None else str(self.data)
        source, self._origin_notes = choose_source(data, self.origin, self.size)
        vocabulary = None if words is None else Vocabulary(words[: words.index(BEGIN)])
        dataset = load_dataset(source, self.size, self.tasks, self.supplement, vocabulary, (BEGIN,))
        self._place, self._data_notes = str(source.path), dataset.notes
        answers = {split: long_answers(dataset.splits[split], dataset.vocabulary) for split in SPLITS}
        if words is None:
            words = (*dataset.vocabulary.symbols, BEGIN, *sorted(set().union(*answers.values())))
        self.symbols = words
        self._numbers = {word: number for number, word in enumerate(words)}
        for split, found in answers.items():
            if unknown := sorted(found - self._numbers.keys()):
                raise ValueError(f"The model does not know the answer {unknown[0]!r} of the {split} set.")
        self.texts = {split: self._read(dataset.splits[split]) for split in SPLITS}
        self._streams: Streams | None = None

    @property
    def input_symbols(self) -> int:
        """All words, :data:`BEGIN`, and the answers of several words."""
        return len(self.symbols)

    @property
    def output_size(self) -> int:
        """Any symbol may come next."""
        return len(self.symbols)

    @property
    def symbol_names(self) -> tuple[str, ...]:
        """See :class:`mnm_rl.tasks.base.Task`."""
        return self.symbols

    @property
    def data_place(self) -> str:
        """See :class:`mnm_rl.tasks.base.Task`."""
        return self._place

    @property
    def least_steps(self) -> int:
        """See :class:`mnm_rl.tasks.base.Task`."""
        return self.window

    @cached_property
    def notes(self) -> list[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See :class:`mnm_rl.tasks.base.Task`."""
        return [*self._origin_notes, *self._data_notes, *self.further_notes]

    def saved(self) -> dict[str, Any]:
        """The symbols, by their numbers."""
        return {"symbols": list(self.symbols)}

    def error_table(self, counts: ErrorCounts) -> list[Row]:
        """Accuracies beside the published ones."""
        return catbabi_table(counts, self.mode)

    def training_batch(self, index: int, batch_size: int, seed: int) -> Batch:
        """The part of each column that follows that of batch ``index - 1``; lengths are all T.

        Raises:
            ValueError: there are fewer stories than columns.
        """
        text = self.texts["train"]
        if batch_size > len(text.tasks):
            raise ValueError(
                f"There are {len(text.tasks)} training stories, too few for a batch_size of {batch_size}: "
                "every sequence of a batch needs stories of its own."
            )
        if self._streams is None or (self._streams.columns, self._streams.seed) != (batch_size, seed):
            self._streams = Streams(np.diff(text.ends), batch_size, seed)
        parts = [self._streams.part(b, index * self.window, self.window + 1) for b in range(batch_size)]
        return self._batch(text, parts)

    def evaluation_batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """Every story once, in columns that are read to their ends from batch to batch.

        Raises:
            ValueError: if there is no such set.
        """
        if split not in ("valid", "test"):
            raise ValueError(f"Unknown set {split!r}; known sets: valid, test.")
        return self._held_out(self.texts[split], batch_size)

    def _held_out(self, text: Text, batch_size: int) -> Iterator[Batch]:
        columns = min(batch_size, len(text.tasks))
        streams = Streams(np.diff(text.ends), columns, HELD_OUT_SEED)
        totals = [streams.first_round(column) for column in range(columns)]
        for start in range(0, max(totals) - 1, self.window):
            sizes = [max(1, min(self.window + 1, total - start)) for total in totals]
            # What is left of a column that has ended is its last symbol, which is not asked about.
            starts = [min(start, total - 1) for total in totals]
            yield self._batch(text, [streams.part(b, starts[b], sizes[b]) for b in range(columns)])

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the next symbol, summed over the steps where that is learned."""
        return F.cross_entropy(logits[batch.asked], batch.targets[batch.asked], reduction="sum")

    def count_errors(self, logits: Tensor, batch: Batch) -> ErrorCounts:
        """Wrong answers, by task; in the mode ``language`` too, although more is learned there."""
        return super().count_errors(
            logits, batch._replace(answers=self._questions(batch.inputs, batch.present))
        )

    def _questions(self, inputs: Tensor, present: Tensor) -> Tensor:
        """Numbers of the answers that follow question marks, ``[T, B]``; -1 elsewhere."""
        asked = ((inputs == self._numbers["?"]) & present).T.numpy(force=True)
        return torch.from_numpy(number_answers(asked).T.copy()).to(inputs.device)

    def _batch(self, text: Text, parts: list[NDArray[np.integer]]) -> Batch:
        """From pieces and places of T + 1 symbols of each column, or of fewer."""
        lengths = torch.tensor([len(part) - 1 for part in parts])
        longest = int(lengths.max())
        symbols = np.zeros((longest + 1, len(parts)), np.int64)
        kinds = np.zeros((longest, len(parts)), np.int64)
        for b, part in enumerate(parts):
            symbols[: len(part), b] = text.symbols[text.ends[part[:, 0]] + part[:, 1]]
            kinds[: len(part) - 1, b] = text.tasks[part[:-1, 0]]
        inputs, targets = torch.from_numpy(symbols[:-1].copy()), torch.from_numpy(symbols[1:].copy())
        steps = torch.arange(longest).unsqueeze(1)
        present = steps < lengths
        every = torch.where(present, steps, -1)
        answers = every if self.mode == "language" else self._questions(inputs, present)
        return Batch(inputs, targets, answers, lengths, torch.zeros_like(lengths), torch.from_numpy(kinds))

    def _read(self, corpus: Corpus) -> Text:
        """All stories of a set."""
        sequences = Sequences(corpus, "story")
        begin, texts = np.array([self._numbers[BEGIN]]), []
        for number in range(len(sequences)):
            texts += [begin, *(self._piece(*piece, corpus) for piece in sequences.pieces(number))]
        counts = [len(part) for part in texts]
        begins = [place for place, part in enumerate(texts) if part is begin]
        ends = np.concatenate([[0], np.cumsum(counts)])[[*begins, len(texts)]]
        return Text(np.concatenate(texts), ends, corpus.story_tasks.astype(np.int64))

    def _piece(
        self, inputs: NDArray[np.integer], targets: NDArray[np.integer], corpus: Corpus
    ) -> NDArray[np.integer]:
        """A part of a story with its answer as one symbol at its end, if there is one."""
        words = int((inputs == corpus.placeholder).sum())
        if words < 2:
            return targets
        answer = ",".join(self.symbols[number] for number in targets[-words:])
        return np.append(targets[:-words], self._numbers[answer])


def long_answers(corpus: Corpus, vocabulary: Vocabulary) -> set[str]:
    """The answers of several words, with commas between them, as in the files."""
    words = np.add.reduceat((corpus.asks == corpus.placeholder).astype(np.int64), corpus.ask_ends[:-1])
    found = {
        tuple(corpus.ask_targets[end - count : end].tolist())
        for end, count in zip(corpus.ask_ends[1:], words, strict=True)
        if count > 1
    }
    return {",".join(vocabulary.symbols[number] for number in answer) for answer in found}


@dataclass(frozen=True)
class CatbabiOptions(TaskOptions):
    """What of concatenated bAbI is learned, and from which data."""

    task_class = CatbabiTask
    sizes = ModelSizes(embedding_size=256, hidden_size=256, heads=1, batch_size=32)
    changeable = ("data",)
    free = ("data", "supplement")

    data: str | None = None
    """Folder or archive with the official files; otherwise MNM_BABI_DATA, then the usual places, and where
    there are none, generated questions."""
    origin: Annotated[Origin, arg(name="babi-origin")] = "any"
    """Official files, generated ones, or generated ones only where no official ones are found (any)."""
    tasks: Annotated[str, arg(name="babi-tasks")] = "1-20"
    """Tasks whose stories make the text, such as 1,4,6 or 1-5,19."""
    size: Annotated[Literal["10k", "1k"], arg(name="babi-size")] = "10k"
    """Questions per task in the training files."""
    supplement: Annotated[bool, arg(name="babi-supplement")] = False
    """Fill up task 3's missing 10k training file with synthetic stories; every log then says so."""
    mode: Mode = "question"
    """Learn the symbol after every question mark, or (language) after every symbol."""
    window: int = 200
    """Symbols of an update in each column, over which gradients go back; the state goes on."""

    def __post_init__(self) -> None:
        check_own_fields(self, "window")
        parse_tasks(self.tasks)

    def make(self, saved: Mapping[str, Any] | None = None, evaluation: bool = False) -> CatbabiTask:
        """See :class:`mnm_rl.tasks.base.TaskOptions`; for evaluation a supplement is left out, and noted."""
        return CatbabiTask(
            data=self.data,
            origin="any" if evaluation and self.data else self.origin,
            tasks=parse_tasks(self.tasks),
            size=self.size,
            supplement=self.supplement and not evaluation,
            mode=self.mode,
            window=self.window,
            saved_symbols=None if saved is None else _saved_symbols(saved),
            further_notes=(SUPPLEMENT_NOTE,) if evaluation and self.supplement else (),
        )


def _saved_symbols(saved: Mapping[str, Any]) -> tuple[str, ...]:
    symbols = saved.get("symbols")
    if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
        raise ValueError("What the task has saved must have a list of words, symbols.")
    if BEGIN not in symbols or len({*symbols}) < len(symbols):
        raise ValueError(f"The saved symbols must hold {BEGIN}, and no symbol twice.")
    return tuple(symbols)

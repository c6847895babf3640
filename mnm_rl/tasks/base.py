"""What a supervised task offers to the trainer, and how its errors are counted.

Dimensions: ``T`` time, ``B`` batch, ``C`` classes, ``F`` features.
"""

from __future__ import annotations

import functools
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mnm_rl.field_types import check_whole
from mnm_rl.sizes import check_fits
from mnm_rl.tasks.sentences import SentenceLayout
from mnm_rl.text_tables import Row


class Batch(NamedTuple):
    """Sequences with the answers that are to be predicted, padded to the longest.

    Attributes:
        inputs: int64 symbols ``[T, B]``, or float vectors ``[T, B, F]``.
        targets: int64 symbols ``[T, B]``, or bits as float ``[T, B, F]``; any value outside of answers.
        answers: int64 ``[T, B]``: the number, within its sequence, of the answer that a step belongs to, or
            -1 where nothing is to be predicted. An answer is right when all its steps are.
        lengths: int64 ``[B]``: steps before the padding begins.
        kinds: int64 ``[B]``: which of several kinds of sequence each one is (for bAbI the task's number).
        step_kinds: int64 ``[T, B]``: the same for steps, where a sequence is of several kinds; else empty.
    """

    inputs: Tensor
    targets: Tensor
    answers: Tensor
    lengths: Tensor
    kinds: Tensor
    step_kinds: Tensor = torch.empty(0, dtype=torch.int64)

    @property
    def asked(self) -> Tensor:
        """Boolean ``[T, B]``, true where a prediction is asked for."""
        return self.answers >= 0

    @property
    def present(self) -> Tensor:
        """Boolean ``[T, B]``, false in the padding."""
        steps = torch.arange(len(self.inputs), device=self.lengths.device)
        return steps.unsqueeze(1) < self.lengths

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch._make(part.to(device) for part in self)

    def columns(self, chosen: slice) -> Batch:
        """Some of the sequences, for instance one process's share, without padding none of them needs."""
        lengths = self.lengths[chosen]
        steps = slice(int(lengths.max()))
        inputs, targets, answers = (part[steps, chosen] for part in self[:3])
        step_kinds = self.step_kinds[steps, chosen] if self.step_kinds.numel() else self.step_kinds
        return Batch(inputs, targets, answers, lengths, self.kinds[chosen], step_kinds)


ErrorName = Literal["symbol_error", "answer_error"]


LEAST = {"index": 0, "batch_size": 1, "seed": 0}
"""Arguments that name a batch, by the names that :class:`Task` gives them, and the least they may be."""


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a task that draws batches, with its numbers checked first."""
    signature = inspect.signature(method)
    is_one_batch = method.__name__ != "evaluation_batches"

    @functools.wraps(method)
    def draw(task: Task, *arguments: Any, **named: Any) -> Any:
        given = signature.bind(task, *arguments, **named).arguments
        for name, least in LEAST.items():
            if name in given:
                check_whole(name, given[name], least)
        if is_one_batch and (size := given.get("batch_size")):
            needed = size * task.least_steps * task.bytes_per_step
            check_fits(needed, f"a batch of {size} sequences")
        return method(task, *arguments, **named)

    return draw


class Task(ABC):
    """A source of batches. Batches depend on nothing but the arguments, so that a run can go on anywhere.

    The numbers that batches are asked for with are checked before a method runs, in subclasses, too: a
    TypeError for what is not a whole number, a ValueError for one that is too small or that no memory holds.

    Attributes:
        input_symbols: number of input symbols, or ``None`` if inputs are vectors.
        input_features: size of the input vectors, or ``None`` if inputs are symbols.
        output_size: number of logits per step.
        decided_by: the error by which the best parameters are chosen and a run ends.
        carries_state: whether every batch, and every held-out one, goes on where the last ended, so that the
            state is carried from one to the next.
    """

    input_symbols: int | None = None
    input_features: int | None = None
    output_size: int
    decided_by: ClassVar[ErrorName] = "symbol_error"
    carries_state: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("training_batch", "evaluation_batches", "sample"):
            if inspect.isfunction(vars(cls).get(name)):
                setattr(cls, name, _checked(vars(cls)[name]))

    @abstractmethod
    def training_batch(self, index: int, batch_size: int, seed: int) -> Batch:
        """The batch of training iteration ``index`` = 0, 1, ... of a run with this seed.

        Raises:
            ValueError: there can be no such batch, such as one of more sequences than the data have.
        """

    @abstractmethod
    def evaluation_batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """All sequences of a held-out set, ``"valid"`` or ``"test"``, always the same.

        Raises:
            ValueError: there is no such set.
        """

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The task loss summed over the steps asked for; ``logits`` is ``[T, B, output_size]``.

        Cross-entropy, unless a task says otherwise.
        """
        return symbol_loss(logits, batch)

    def count_errors(self, logits: Tensor, batch: Batch) -> ErrorCounts:
        """Wrong symbols and wrong answers of a batch; ``logits`` is ``[T, B, output_size]``."""
        return count_symbol_errors(logits, batch)

    def score(self, counts: ErrorCounts) -> float:
        """The error that decides, as a fraction: the lower the better."""
        return getattr(counts, self.decided_by)

    def adapt(self, errors: Mapping[int, float]) -> None:
        """Take note of a validation: the fraction of wrong answers for each kind of sequence.

        A task whose training batches depend on it is told again when a run goes on. Others ignore it.
        """
        del errors

    @property
    def least_steps(self) -> int:
        """T of its shortest training batch, as far as that is known before there is one."""
        return 1

    @property
    def bytes_per_step(self) -> int:
        """What a batch holds for each step of a sequence: its input, target, and number of the answer."""
        features = self.input_features or 0
        return 8 * 3 if self.input_symbols is not None else 4 * (features + self.output_size) + 8

    @property
    def sentence_layout(self) -> SentenceLayout | None:
        """How its sequences are made of sentences; ``None`` if they are not.

        Raises:
            ValueError: the data have sentences that models of sentences cannot read.
        """
        return None

    @property
    def notes(self) -> Sequence[str]:
        """What every log and table must say about the data, such as that parts are synthetic."""
        return ()

    @property
    def data_place(self) -> str | None:
        """Where the data come from, in words; ``None`` if they are drawn at random."""
        return None

    @property
    def symbol_names(self) -> tuple[str, ...] | None:
        """Names of the input symbols, of which the output symbols are the first; ``None`` without names."""
        return None

    def saved(self) -> dict[str, Any]:
        """Plain values to be kept with a model's parameters, and given to :meth:`TaskOptions.make` again."""
        return {}

    def error_table(self, counts: ErrorCounts) -> list[Row]:
        """Errors beside published ones, a heading first; empty if there is no such table."""
        return []


@dataclass(frozen=True)
class ModelSizes:
    """Sizes with which the paper trains a task: a row of its Table 2, with the batch size of appendix A."""

    embedding_size: int
    hidden_size: int
    heads: int
    batch_size: int


ALGORITHMIC_SIZES = ModelSizes(embedding_size=100, hidden_size=100, heads=1, batch_size=32)


@dataclass(frozen=True)
class TaskOptions(ABC):
    """What a task can be told: a frozen dataclass beside each task, whose fields are command line options.

    ``__post_init__`` raises a ValueError for what does not fit; nothing is read or built before :meth:`make`.

    Attributes:
        task_class: what :meth:`make` builds.
        sizes: the paper's, for whatever a run leaves open.
        changeable: options that a run may be given anew when it goes on.
        free: options that may differ in a run that counts as the same experiment.
        can_be_fixed: sizes that a trained model can be tested with: name -> the options that are given it.
        has_sentences: whether the task has a :attr:`Task.sentence_layout`.
    """

    task_class: ClassVar[type[Task]]
    sizes: ClassVar[ModelSizes] = ALGORITHMIC_SIZES
    changeable: ClassVar[tuple[str, ...]] = ()
    free: ClassVar[tuple[str, ...]] = ()
    can_be_fixed: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
    has_sentences: ClassVar[bool] = False

    @abstractmethod
    def make(self, saved: Mapping[str, Any] | None = None, evaluation: bool = False) -> Task:
        """The task, with its data read.

        Args:
            saved: what :meth:`Task.saved` gave for a trained model, whose symbols are then used.
            evaluation: for testing a trained model, which need not have all its training data at hand.

        Raises:
            ValueError: the data are unusable.
        """

    def describe(self) -> str:
        """What tells this task from others of its name, for a heading; empty if nothing does."""
        return ""


@dataclass
class ErrorCounts:
    """Numbers of wrong and of all symbols and answers; the answers also by kind of sequence."""

    wrong_symbols: int = 0
    symbols: int = 0
    wrong_answers: int = 0
    answers: int = 0
    by_kind: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Kind -> (wrong answers, answers)."""
    cost: float = 0.0
    """Bits that the right bits cost: binary cross-entropies in base 2, summed over all sequences."""
    sequences: int = 0
    """Sequences that the cost is of; 0 where symbols are predicted and not bits."""

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        kinds = sorted({*self.by_kind, *other.by_kind})
        none = (0, 0)
        return ErrorCounts(
            self.wrong_symbols + other.wrong_symbols,
            self.symbols + other.symbols,
            self.wrong_answers + other.wrong_answers,
            self.answers + other.answers,
            {
                kind: (
                    self.by_kind.get(kind, none)[0] + other.by_kind.get(kind, none)[0],
                    self.by_kind.get(kind, none)[1] + other.by_kind.get(kind, none)[1],
                )
                for kind in kinds
            },
            self.cost + other.cost,
            self.sequences + other.sequences,
        )

    @property
    def error_by_kind(self) -> dict[int, float]:
        """Fraction of answers with anything wrong in them, for each kind of sequence."""
        return {kind: wrong / answers for kind, (wrong, answers) in self.by_kind.items()}

    @property
    def symbol_error(self) -> float:
        """Fraction of symbols (or bits) that are wrong."""
        return self.wrong_symbols / max(1, self.symbols)

    @property
    def answer_error(self) -> float:
        """Fraction of answers with anything wrong in them."""
        return self.wrong_answers / max(1, self.answers)

    @property
    def bits_per_sequence(self) -> float:
        """The cost of a sequence, as Graves et al. 2014 draw it; 1 for each bit that is guessed."""
        return self.cost / max(1, self.sequences)

    @property
    def wrong_bits_per_sequence(self) -> float:
        """Bits of a sequence that are wrong, where bits are predicted."""
        return self.wrong_symbols / max(1, self.sequences)


def symbol_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy, summed over the steps asked for; ``logits`` is ``[T, B, C]``."""
    return F.cross_entropy(logits[batch.asked], batch.targets[batch.asked], reduction="sum")


def bit_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Mean binary cross-entropy of a step's bits, summed over the steps; ``logits`` is ``[T, B, F]``."""
    return _bit_losses(logits, batch).mean(-1).sum()


def _bit_losses(logits: Tensor, batch: Batch) -> Tensor:
    """Binary cross-entropies of the bits asked for, ``[steps asked, F]``."""
    asked = batch.asked
    return F.binary_cross_entropy_with_logits(logits[asked], batch.targets[asked], reduction="none")


def count_symbol_errors(logits: Tensor, batch: Batch) -> ErrorCounts:
    """Errors of the most likely symbols; ``logits`` is ``[T, B, C]``."""
    wrong = logits.argmax(-1) != batch.targets
    return _count(wrong.unsqueeze(-1), batch)


def count_bit_errors(logits: Tensor, batch: Batch) -> ErrorCounts:
    """Errors of the more likely bits, and what the right ones cost; ``logits`` is ``[T, B, F]``."""
    counts = _count((logits > 0) != (batch.targets > 0.5), batch)
    cost = float(_bit_losses(logits, batch).sum(dtype=torch.float64)) / math.log(2)
    return replace(counts, cost=cost, sequences=len(batch.lengths))


def _count(wrong: Tensor, batch: Batch) -> ErrorCounts:
    """Errors from ``wrong``, boolean ``[T, B, symbols per step]``."""
    asked = batch.asked
    wrong = wrong & asked.unsqueeze(-1)
    most = max(1, int(batch.answers.max()) + 1)
    step_answers = batch.answers.clamp(min=0)
    shape = (most, len(batch.lengths))
    wrong_steps = torch.zeros(shape, device=wrong.device).scatter_add_(0, step_answers, wrong.any(-1).float())
    exists = torch.zeros(shape, device=wrong.device).scatter_add_(0, step_answers, asked.float()) > 0
    is_wrong = (wrong_steps > 0) & exists
    kinds = batch.kinds.expand(shape)
    if batch.step_kinds.numel():
        own = torch.where(asked, batch.step_kinds, 0)
        kinds = torch.zeros_like(kinds).scatter_reduce_(0, step_answers, own, "amax")
    return ErrorCounts(
        int(wrong.sum()),
        int(asked.sum()) * wrong.shape[-1],
        int(is_wrong.sum()),
        int(exists.sum()),
        {
            int(kind): (int(is_wrong[kinds == kind].sum()), int(exists[kinds == kind].sum()))
            for kind in (kinds[exists] if batch.step_kinds.numel() else batch.kinds).unique()
        },
    )


def whole_sequences(inputs: Tensor, targets: Tensor, asked: Tensor) -> Batch:
    """A batch without padding and with one answer per sequence, from its ``[T, B, ...]`` parts."""
    lengths = torch.full((inputs.shape[1],), len(inputs))
    return Batch(inputs, targets, asked.long() - 1, lengths, torch.zeros_like(lengths))


def batch_generator(*numbers: int) -> torch.Generator:
    """A generator for one batch, from the numbers that name it: the same whenever asked again."""
    # Torch seeds its generator with 32 bits only, so large numbers have to be mixed first.
    mixed = np.random.SeedSequence(numbers).generate_state(1)[0]
    return torch.Generator().manual_seed(int(mixed))

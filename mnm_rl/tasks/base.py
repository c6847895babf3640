"""What a supervised task offers to the trainer, and how its errors are counted.

Dimensions: ``T`` time, ``B`` batch, ``C`` classes, ``F`` features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


class Batch(NamedTuple):
    """Sequences with the answers that are to be predicted, padded to the longest.

    Attributes:
        inputs: int64 symbols ``[T, B]``, or float vectors ``[T, B, F]``.
        targets: int64 symbols ``[T, B]``, or bits as float ``[T, B, F]``; any value outside of answers.
        answers: int64 ``[T, B]``: the number, within its sequence, of the answer that a step belongs to, or
            -1 where nothing is to be predicted. An answer is right when all its steps are.
        lengths: int64 ``[B]``: steps before the padding begins.
        kinds: int64 ``[B]``: which of several kinds of sequence each one is (for bAbI the task's number).
    """

    inputs: Tensor
    targets: Tensor
    answers: Tensor
    lengths: Tensor
    kinds: Tensor

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
        return Batch(inputs, targets, answers, lengths, self.kinds[chosen])


class Task(Protocol):
    """A source of batches. Batches depend on nothing but the arguments, so that a run can go on anywhere."""

    @property
    def input_symbols(self) -> int | None:
        """Number of input symbols, or ``None`` if inputs are vectors."""

    @property
    def input_features(self) -> int | None:
        """Size of the input vectors, or ``None`` if inputs are symbols."""

    @property
    def output_size(self) -> int:
        """Number of logits per step."""
        ...

    def training_batch(self, index: int, batch_size: int, seed: int) -> Batch:
        """The batch of training iteration ``index`` = 0, 1, ... of a run with this seed."""
        ...

    def evaluation_batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """All sequences of a held-out set, ``"valid"`` or ``"test"``, always the same."""
        ...

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The task loss summed over the steps asked for; ``logits`` is ``[T, B, output_size]``."""
        ...

    def count_errors(self, logits: Tensor, batch: Batch) -> ErrorCounts:
        """Wrong symbols and wrong answers of a batch."""
        ...


@runtime_checkable
class AdaptiveTask(Protocol):
    """A task whose training batches also depend on what it was told last by :meth:`adapt`."""

    def adapt(self, errors: Mapping[int, float]) -> None:
        """Take note of a validation: the fraction of wrong answers for each kind of sequence."""
        ...


@dataclass
class ErrorCounts:
    """Numbers of wrong and of all symbols and answers; the answers also by kind of sequence."""

    wrong_symbols: int = 0
    symbols: int = 0
    wrong_answers: int = 0
    answers: int = 0
    by_kind: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Kind -> (wrong answers, answers)."""

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


def symbol_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy, summed over the steps asked for; ``logits`` is ``[T, B, C]``."""
    return F.cross_entropy(logits[batch.asked], batch.targets[batch.asked], reduction="sum")


def bit_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Mean binary cross-entropy of a step's bits, summed over the steps; ``logits`` is ``[T, B, F]``."""
    loss = F.binary_cross_entropy_with_logits(
        logits[batch.asked], batch.targets[batch.asked], reduction="none"
    )
    return loss.mean(-1).sum()


def count_symbol_errors(logits: Tensor, batch: Batch) -> ErrorCounts:
    """Errors of the most likely symbols; ``logits`` is ``[T, B, C]``."""
    wrong = logits.argmax(-1) != batch.targets
    return _count(wrong.unsqueeze(-1), batch)


def count_bit_errors(logits: Tensor, batch: Batch) -> ErrorCounts:
    """Errors of the more likely bits; ``logits`` is ``[T, B, F]``."""
    return _count((logits > 0) != (batch.targets > 0.5), batch)


def _count(wrong: Tensor, batch: Batch) -> ErrorCounts:
    """Errors from ``wrong``, boolean ``[T, B, symbols per step]``."""
    asked = batch.asked
    wrong = wrong & asked.unsqueeze(-1)
    most = int(batch.answers.max()) + 1
    step_answers = batch.answers.clamp(min=0)
    shape = (most, len(batch.lengths))
    wrong_steps = torch.zeros(shape, device=wrong.device).scatter_add_(0, step_answers, wrong.any(-1).float())
    exists = torch.zeros(shape, device=wrong.device).scatter_add_(0, step_answers, asked.float()) > 0
    wrong_answers = ((wrong_steps > 0) & exists).sum(0)
    answers = exists.sum(0)
    return ErrorCounts(
        int(wrong.sum()),
        int(asked.sum()) * wrong.shape[-1],
        int(wrong_answers.sum()),
        int(answers.sum()),
        {
            int(kind): (
                int(wrong_answers[batch.kinds == kind].sum()),
                int(answers[batch.kinds == kind].sum()),
            )
            for kind in batch.kinds.unique()
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

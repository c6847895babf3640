"""Repeat copy: give back a sequence a number of times (Graves, Wayne and Danihelka 2014, section 4.2).

Dimensions: ``T`` time, ``B`` batch, ``n`` vectors of a sequence, ``k`` copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from mnm_rl.field_types import check_own_fields
from mnm_rl.tasks.base import Batch, TaskOptions
from mnm_rl.tasks.bits import BitTask, at, check_range
from mnm_rl.tasks.copy import BITS

NUMBER = MARKER = BITS
MEAN, DEVIATION = 5.5, 8.25**0.5
"""Of the numbers 1 to 10. The number of copies is told in these units whatever the task's range, so that it
means the same when more copies are asked for than in training."""


@dataclass(frozen=True)
class RepeatCopyTask(BitTask):
    """``n`` random vectors of 8 bits, a number ``k``, then the vectors ``k`` times and an end marker.

    Both numbers are drawn uniformly for each sequence. An input has 9 features: the bits, and at the step
    after the last vector ``(k - 5.5) / sqrt(8.25)``, which has mean 0 and variance 1 for 1 to 10 copies. In
    the following ``n k + 1`` steps, with zero input, 9 bits are to be predicted: those of the vectors in
    order, ``k`` times, with a marker of 0, and at the last step zeros with a marker of 1.
    ``T = n + n k + 2``, and shorter sequences are padded.
    """

    input_features = BITS + 1
    output_size = BITS + 1
    min_length: int = 1
    """Smallest n."""
    max_length: int = 10
    """Largest n."""
    min_repeats: int = 1
    """Smallest k."""
    max_repeats: int = 10
    """Largest k."""

    def __post_init__(self) -> None:
        check_own_fields(self)
        check_range("length", self.min_length, self.max_length)
        check_range("repeats", self.min_repeats, self.max_repeats)

    @property
    def least_steps(self) -> int:
        """See :class:`mnm_rl.tasks.base.Task`."""
        return self.max_length * (1 + self.max_repeats) + 2

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw episodes."""
        n = torch.randint(self.min_length, self.max_length + 1, (batch_size,), generator=generator)
        k = torch.randint(self.min_repeats, self.max_repeats + 1, (batch_size,), generator=generator)
        vectors = torch.randint(2, (self.max_length, batch_size, BITS), generator=generator).float()
        lengths = n + n * k + 2
        steps = torch.arange(int(lengths.max())).unsqueeze(1)
        inputs = torch.zeros(len(steps), batch_size, BITS + 1)
        inputs[..., :BITS] = at(vectors, steps, steps < n)
        inputs[..., NUMBER] = (steps == n) * ((k - MEAN) / DEVIATION)
        place = steps - n - 1
        targets = torch.zeros(len(steps), batch_size, BITS + 1)
        targets[..., :BITS] = at(vectors, place % n, (place >= 0) & (place < n * k))
        targets[..., MARKER] = (place == n * k).float()
        asked = (place >= 0) & (place <= n * k)
        return Batch(inputs, targets, asked.long() - 1, lengths, torch.zeros_like(n))


@dataclass(frozen=True)
class RepeatCopyOptions(TaskOptions):
    """Lengths and numbers of copies of repeat copy."""

    task_class = RepeatCopyTask
    can_be_fixed: ClassVar = {
        "length": ("min_length", "max_length"),
        "repeats": ("min_repeats", "max_repeats"),
    }
    min_length: int = 1
    """Vectors of the shortest sequence."""
    max_length: int = 10
    """Vectors of the longest sequence."""
    min_repeats: int = 1
    """Smallest number of copies."""
    max_repeats: int = 10
    """Largest number of copies."""

    def __post_init__(self) -> None:
        self.make()

    def make(self, saved: Mapping[str, Any] | None = None, evaluation: bool = False) -> RepeatCopyTask:
        """See :class:`mnm_rl.tasks.base.TaskOptions`."""
        return RepeatCopyTask(self.min_length, self.max_length, self.min_repeats, self.max_repeats)

"""Copy: give back a sequence of random vectors (Graves, Wayne and Danihelka 2014, section 4.1).

Dimensions: ``T`` time, ``B`` batch, ``n`` vectors of a sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from mnm_rl.field_types import check_own_fields
from mnm_rl.tasks.base import Batch, TaskOptions
from mnm_rl.tasks.bits import BitTask, at, check_range

BITS = 8
END = BITS


@dataclass(frozen=True)
class CopyTask(BitTask):
    """``n`` random vectors of 8 bits, ``n`` drawn uniformly for each sequence, then the same once more.

    An input has 9 features: the bits, and a flag that is 1 at the step after the last vector. In the
    following ``n`` steps, with zero input, the vectors are to be predicted in order; ``T = 2 n + 1``, and
    shorter sequences are padded. Guessing costs 8 bits a vector, 84 a sequence with the paper's lengths.
    """

    input_features = BITS + 1
    output_size = BITS
    min_length: int = 1
    """Smallest n."""
    max_length: int = 20
    """Largest n."""

    def __post_init__(self) -> None:
        check_own_fields(self)
        check_range("length", self.min_length, self.max_length)

    @property
    def least_steps(self) -> int:
        """See :class:`mnm_rl.tasks.base.Task`."""
        return 2 * self.max_length + 1

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw episodes."""
        n = torch.randint(self.min_length, self.max_length + 1, (batch_size,), generator=generator)
        vectors = torch.randint(2, (self.max_length, batch_size, BITS), generator=generator).float()
        steps = torch.arange(2 * int(n.max()) + 1).unsqueeze(1)
        inputs = torch.zeros(len(steps), batch_size, BITS + 1)
        inputs[..., :BITS] = at(vectors, steps, steps < n)
        inputs[..., END] = (steps == n).float()
        place = steps - n - 1
        asked = (place >= 0) & (place < n)
        targets = at(vectors, place, asked)
        return Batch(inputs, targets, asked.long() - 1, 2 * n + 1, torch.zeros_like(n))


@dataclass(frozen=True)
class CopyOptions(TaskOptions):
    """Lengths of copy."""

    task_class = CopyTask
    can_be_fixed: ClassVar = {"length": ("min_length", "max_length")}
    min_length: int = 1
    """Vectors of the shortest sequence."""
    max_length: int = 20
    """Vectors of the longest sequence."""

    def __post_init__(self) -> None:
        CopyTask(self.min_length, self.max_length)

    def make(self, saved: Mapping[str, Any] | None = None, evaluation: bool = False) -> CopyTask:
        """See :class:`mnm_rl.tasks.base.TaskOptions`."""
        return CopyTask(self.min_length, self.max_length)

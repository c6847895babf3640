"""Priority sort: give back vectors in the order of their priorities (Graves et al. 2014, section 4.5).

Munkhdalai et al. 2019, section 4.1 and appendix A.

Dimensions: ``T`` time, ``B`` batch, ``n`` vectors, ``m`` vectors to be given back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mnm_rl.field_types import check_own_fields
from mnm_rl.tasks.base import Batch, ErrorCounts, TaskOptions, bit_loss, count_bit_errors, whole_sequences
from mnm_rl.tasks.generated import GeneratedTask

BITS = 8
PRIORITY, END = BITS, BITS + 1


@dataclass(frozen=True)
class PrioritySortTask(GeneratedTask):
    """``n`` random vectors of 8 bits, each with a priority drawn uniformly from [-1, 1].

    An input has 10 features: the bits, the priority, and a flag that is 1 at the step after the last vector.
    In the following ``m`` steps, with zero input, the vectors of highest priority are to be predicted,
    highest first; ``T = n + 1 + m``.
    """

    input_features = BITS + 2
    output_size = BITS
    vectors: int = 20
    """n."""
    predicted: int = 16
    """m."""

    def __post_init__(self) -> None:
        check_own_fields(self)
        if not 1 <= self.predicted <= self.vectors:
            raise ValueError(
                f"predicted must be from 1 to the number of vectors, {self.vectors}, got {self.predicted}."
            )

    @property
    def least_steps(self) -> int:
        """See :class:`mnm_rl.tasks.base.Task`."""
        return self.vectors + 1 + self.predicted

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw episodes."""
        n, m = self.vectors, self.predicted
        bits = torch.randint(2, (n, batch_size, BITS), generator=generator).float()
        priorities = torch.rand(n, batch_size, generator=generator) * 2 - 1
        inputs = torch.zeros(n + 1 + m, batch_size, BITS + 2)
        inputs[:n, :, :BITS], inputs[:n, :, PRIORITY], inputs[n, :, END] = bits, priorities, 1
        highest = priorities.argsort(0, descending=True)[:m]
        targets = torch.zeros(n + 1 + m, batch_size, BITS)
        targets[n + 1 :] = bits.gather(0, highest.unsqueeze(2).expand(-1, -1, BITS))
        asked = torch.zeros(n + 1 + m, batch_size, dtype=torch.bool)
        asked[n + 1 :] = True
        return whole_sequences(inputs, targets, asked)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Binary cross-entropy of the bits."""
        return bit_loss(logits, batch)

    def count_errors(self, logits: Tensor, batch: Batch) -> ErrorCounts:
        """Wrong bits, and sequences with any wrong bit."""
        return count_bit_errors(logits, batch)


@dataclass(frozen=True)
class PrioritySortOptions(TaskOptions):
    """Sizes of priority sort."""

    task_class = PrioritySortTask
    vectors: int = 20
    """Vectors that are shown, n."""
    predicted: int = 16
    """Vectors to be given back, m."""

    def __post_init__(self) -> None:
        PrioritySortTask(self.vectors, self.predicted)

    def make(self, saved: Mapping[str, Any] | None = None, evaluation: bool = False) -> PrioritySortTask:
        """See :class:`mnm_rl.tasks.base.TaskOptions`."""
        return PrioritySortTask(self.vectors, self.predicted)

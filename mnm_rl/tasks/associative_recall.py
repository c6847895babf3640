"""Associative recall: what came after this item? (Graves, Wayne and Danihelka 2014, section 4.3).

Dimensions: ``T`` time, ``B`` batch, ``n`` items of a sequence, ``L`` = 3 vectors of an item.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from mnm_rl.field_types import check_own_fields
from mnm_rl.tasks.base import Batch, TaskOptions
from mnm_rl.tasks.bits import BitTask, at, check_range

BITS, ITEM_LENGTH = 6, 3
ITEM, QUERY = BITS, BITS + 1
BLOCK = ITEM_LENGTH + 1
"""Steps of an item with the flag before it."""


@dataclass(frozen=True)
class AssociativeRecallTask(BitTask):
    """``n`` items of three random vectors of 6 bits, one of them again, and the item after it as the answer.

    ``n`` is drawn uniformly for each sequence, and the item that is shown again among all but the last. An
    input has 8 features: the bits, a flag that is 1 at the step before each item, and a flag that is 1 at the
    steps before and after the item that is shown again. In the following three steps, with zero input, the
    next item is to be predicted; ``T = 4 n + 8``, and shorter sequences are padded. Guessing costs 18 bits.
    """

    input_features = BITS + 2
    output_size = BITS
    min_items: int = 2
    """Smallest n."""
    max_items: int = 6
    """Largest n."""

    def __post_init__(self) -> None:
        check_own_fields(self)
        check_range("items", self.min_items, self.max_items, least=2)

    @property
    def least_steps(self) -> int:
        """See :class:`mnm_rl.tasks.base.Task`."""
        return BLOCK * (self.max_items + 2)

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw episodes."""
        n = torch.randint(self.min_items, self.max_items + 1, (batch_size,), generator=generator)
        query = (torch.rand(batch_size, generator=generator) * (n - 1)).long()
        shape = (self.max_items * ITEM_LENGTH, batch_size, BITS)
        vectors = torch.randint(2, shape, generator=generator).float()
        steps = torch.arange(BLOCK * (int(n.max()) + 2)).unsqueeze(1)
        # Blocks of a flag and three vectors: the items, the query, and the answer.
        block, inside = steps // BLOCK, steps % BLOCK
        item = torch.where(block < n, block, query + block - n)
        values = at(vectors, item * ITEM_LENGTH + inside - 1, (inside > 0) & (block < n + 2))
        inputs = torch.zeros(len(steps), batch_size, BITS + 2)
        inputs[..., :BITS] = values * (block <= n).unsqueeze(2)
        inputs[..., ITEM] = ((inside == 0) & (block < n)).float()
        inputs[..., QUERY] = ((inside == 0) & ((block == n) | (block == n + 1))).float()
        asked = (inside > 0) & (block == n + 1)
        targets = values * asked.unsqueeze(2)
        return Batch(inputs, targets, asked.long() - 1, BLOCK * (n + 2), torch.zeros_like(n))


@dataclass(frozen=True)
class AssociativeRecallOptions(TaskOptions):
    """Numbers of items of associative recall."""

    task_class = AssociativeRecallTask
    can_be_fixed: ClassVar = {"items": ("min_items", "max_items")}
    min_items: int = 2
    """Items of the shortest sequence."""
    max_items: int = 6
    """Items of the longest sequence."""

    def __post_init__(self) -> None:
        self.make()

    def make(self, saved: Mapping[str, Any] | None = None, evaluation: bool = False) -> AssociativeRecallTask:
        """See :class:`mnm_rl.tasks.base.TaskOptions`."""
        return AssociativeRecallTask(self.min_items, self.max_items)

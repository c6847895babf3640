"""Tasks whose episodes are drawn at random as they are needed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import torch

from mnm_rl.tasks.base import Batch, Task, batch_generator

HELD_OUT_NUMBERS = {"valid": (0, 0, 1), "test": (0, 0, 2)}
"""Names of the held-out batches; training batches are named by two numbers."""


class GeneratedTask(Task):
    """Fresh episodes in every batch, and held-out sets of a fixed size that are always the same.

    Attributes:
        held_out_episodes: size of the validation set and of the test set.
    """

    held_out_episodes: int = 1000

    @abstractmethod
    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw episodes."""

    def training_batch(self, index: int, batch_size: int, seed: int) -> Batch:
        """See :class:`mnm_rl.tasks.base.Task`."""
        return self.sample(batch_size, batch_generator(seed, index))

    def evaluation_batches(self, split: str, batch_size: int) -> Iterator[Batch]:
        """See :class:`mnm_rl.tasks.base.Task`."""
        if split not in HELD_OUT_NUMBERS:
            raise ValueError(f"Unknown set {split!r}; known sets: {', '.join(HELD_OUT_NUMBERS)}.")
        return self._held_out(split, batch_size)

    def _held_out(self, split: str, batch_size: int) -> Iterator[Batch]:
        whole = self.sample(self.held_out_episodes, batch_generator(*HELD_OUT_NUMBERS[split]))
        for start in range(0, self.held_out_episodes, batch_size):
            yield whole.columns(slice(start, start + batch_size))

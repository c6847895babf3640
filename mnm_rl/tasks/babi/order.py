"""The order in which training sequences are seen: an endless stream that is a function of the seed alone.

The stream is one random permutation of all sequences after the other. It is cut into pools of some batches;
a pool is sorted by length, so that little of a batch is padding, cut into batches, and these are shuffled.
Every batch is full, and a pool may reach from one permutation into the next.

Several tasks have sequences of one length only, and exact sorting would make batches of a single task, one
pulling at the model after the other. So lengths are sorted after multiplication with random factors. Over all
20 tasks, one sequence per question and batches of 128, the most frequent task then has 20% of a batch instead
of 46%, and batches are 84 steps long instead of 65; without any sorting it would be 9% and 324 steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Balance = Literal["questions", "tasks"]

PERMUTATION, POOL, BATCH = 0, 1, 2
"""Names of random streams."""

Pool = TypeVar("Pool")


class Pools(Generic[Pool]):
    """Pools of batches, drawn when a batch of them is asked for; the last one is kept.

    Args:
        batches: in a pool.
        draw: makes a pool from its number, the batch size and the seed.
    """

    def __init__(self, batches: int, draw: Callable[[int, int, int], Pool]) -> None:
        self._batches, self._draw = batches, draw
        self._last: tuple[tuple[int, int, int], Pool] | None = None

    def find(self, index: int, batch_size: int, seed: int) -> tuple[Pool, int]:
        """The pool that holds batch ``index`` = 0, 1, ..., and the batch's place in it.

        Raises:
            ValueError: if there is no such batch.
        """
        if index < 0 or batch_size < 1:
            raise ValueError(
                f"Batches are numbered from 0 and hold a sequence at least, got {index} and {batch_size}."
            )
        pool, place = divmod(index, self._batches)
        key = (pool, batch_size, seed)
        if self._last is None or self._last[0] != key:
            self._last = (key, self._draw(*key))
        return self._last[1], place


@dataclass
class TrainingOrder:
    """Numbers of the sequences of any training batch.

    Attributes:
        lengths: ``[N]``, lengths of all sequences.
        groups: ``[N]``, the task of each.
        chosen: numbers of the sequences that may be drawn.
        balance: ``"questions"``: every sequence once in each permutation; ``"tasks"``: every task equally
            often, so that sequences of small tasks come several times and some of large tasks not at all.
        pool_batches: batches in a pool.
        mixing: logarithm of the largest random factor on a length; 0 sorts exactly.
    """

    lengths: NDArray[np.integer]
    groups: NDArray[np.integer]
    chosen: NDArray[np.integer]
    balance: Balance
    pool_batches: int
    mixing: float

    def __post_init__(self) -> None:
        self._pools = Pools(self.pool_batches, self._draw_pool)
        tasks = np.unique(self.groups[self.chosen])
        self._members = [self.chosen[self.groups[self.chosen] == task] for task in tasks]
        self._share = -(-len(self.chosen) // max(1, len(tasks)))

    @property
    def epoch(self) -> int:
        """Number of sequences in a permutation."""
        return len(self.chosen) if self.balance == "questions" else self._share * len(self._members)

    def batch(self, index: int, batch_size: int, seed: int) -> NDArray[np.integer]:
        """Numbers of the sequences of batch ``index``, ``[batch_size]``."""
        pool, place = self._pools.find(index, batch_size, seed)
        return pool[place]

    def _draw_pool(self, pool: int, batch_size: int, seed: int) -> NDArray[np.integer]:
        """``[pool_batches, batch_size]``."""
        size = self.pool_batches * batch_size
        first, start = divmod(pool * size, self.epoch)
        epochs = -(-(start + size) // self.epoch)
        stream = np.concatenate([self._permutation(first + number, seed) for number in range(epochs)])
        drawn = stream[start : start + size]
        generator = named_generator(seed, POOL, pool)
        keys = self.lengths[drawn] * np.exp(self.mixing * generator.uniform(-1, 1, size))
        batches = drawn[np.argsort(keys, kind="stable")].reshape(-1, batch_size)
        return batches[generator.permutation(self.pool_batches)]

    def _permutation(self, epoch: int, seed: int) -> NDArray[np.integer]:
        generator = named_generator(seed, PERMUTATION, epoch)
        if self.balance == "questions":
            return generator.permutation(self.chosen)
        return generator.permutation(
            np.concatenate([self._draw_share(task, generator) for task in self._members])
        )

    def _draw_share(
        self, members: NDArray[np.integer], generator: np.random.Generator
    ) -> NDArray[np.integer]:
        rounds = -(-self._share // len(members))
        return np.concatenate([generator.permutation(members) for _ in range(rounds)])[: self._share]


def contents_generator(seed: int, index: int) -> np.random.Generator:
    """Randomness for what is in batch ``index``, such as names; which sequences it has is drawn apart."""
    return named_generator(seed, BATCH, index)


def named_generator(*name: int) -> np.random.Generator:
    """The generator of a random stream, from the numbers that name it."""
    return np.random.default_rng([number % 2**64 for number in name])

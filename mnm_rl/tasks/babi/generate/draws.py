"""Random draws that are the same on every machine.

Python guarantees two things about its generator across versions and platforms: an integer seed gives the
same state (seeding version 2), and ``random()`` gives the same numbers from it, multiples of 2^-53. Nothing
else of the module ``random`` is guaranteed, so the draws below are made of ``random()`` alone. The product of
such a number and a small integer is rounded alike by all IEEE arithmetic, and so is the same everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import MutableSequence, Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Draws:
    """A stream of draws that is a function of its name.

    Args:
        name: integers and words that name the stream; different names give independent streams.
    """

    def __init__(self, *name: int | str) -> None:
        digest = hashlib.sha256("/".join(map(str, name)).encode()).digest()
        generator = Random(0)
        generator.seed(int.from_bytes(digest[:16], "big"), version=2)
        self._random = generator.random

    def below(self, count: int) -> int:
        """One of 0, 1, ..., ``count - 1``, uniformly."""
        return int(self._random() * count)

    def one_in(self, count: int) -> bool:
        """True with probability ``1 / count``."""
        return self.below(count) == 0

    def choice(self, items: Sequence[T]) -> T:
        """One of the items, uniformly; an item that is there twice is drawn twice as often."""
        return items[int(self._random() * len(items))]

    def other(self, items: Sequence[T], left_out: T) -> T:
        """One of the items that differ from one of them, uniformly."""
        return self.choice([item for item in items if item != left_out])

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """Different items in random order."""
        rest = list(items)
        return [rest.pop(self.below(len(rest))) for _ in range(count)]

    def shuffle_cyclic(self, items: MutableSequence[T]) -> None:
        """Reorder by a random cyclic permutation, in which no item keeps its place (Sattolo 1986)."""
        for last in range(len(items) - 1, 0, -1):
            place = self.below(last)
            items[last], items[place] = items[place], items[last]

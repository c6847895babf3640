"""Endless texts side by side, of pieces in random order, of which any part can be had.

The pieces are permuted again and again, each permutation a function of the seed and its number, and shared
out: of every permutation a column gets every ``B``-th piece, one after the other.

Dimensions: ``N`` pieces, ``B`` columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mnm_rl.tasks.babi.order import PERMUTATION, named_generator

Integers = NDArray[np.integer]


@dataclass
class _Column:
    """A column in one permutation."""

    round: int
    start: int
    """Where in the column its pieces of this permutation begin."""
    pieces: Integers
    ends: Integers
    """Of the pieces, counted from ``start``."""


@dataclass
class Streams:
    """Columns of pieces.

    Attributes:
        lengths: ``[N]``, of the pieces.
        columns: ``B``, at most N.
        seed: of the permutations.
    """

    lengths: Integers
    columns: int
    seed: int
    _now: dict[int, _Column] = field(default_factory=dict)
    _rounds: dict[int, Integers] = field(default_factory=dict)

    def part(self, column: int, start: int, size: int) -> Integers:
        """What is at ``start : start + size`` of a column: ``[size, 2]``, pieces and places in them."""
        now = self._now.get(column)
        if now is None or start < now.start:
            now = self._begin(column, 0, 0)
        found: list[Integers] = []
        while size:
            while start >= now.start + now.ends[-1]:
                now = self._begin(column, now.round + 1, now.start + int(now.ends[-1]))
            taken = min(size, now.start + int(now.ends[-1]) - start)
            places = np.arange(start, start + taken) - now.start
            which = np.searchsorted(now.ends, places, side="right")
            pieces = now.pieces[which]
            found.append(np.stack([pieces, places - now.ends[which] + self.lengths[pieces]], 1))
            start, size = start + taken, size - taken
        return np.concatenate(found)

    def first_round(self, column: int) -> int:
        """How long a column is until it has had all its pieces once."""
        return int(self._begin(column, 0, 0).ends[-1])

    def _begin(self, column: int, number: int, start: int) -> _Column:
        pieces = self._round(number)[column :: self.columns]
        self._now[column] = _Column(number, start, pieces, self.lengths[pieces].cumsum())
        return self._now[column]

    def _round(self, number: int) -> Integers:
        """A permutation; the last two are kept, as columns do not end together."""
        if number not in self._rounds:
            generator = named_generator(self.seed, PERMUTATION, number)
            self._rounds[number] = generator.permutation(len(self.lengths))
            for old in sorted(self._rounds)[:-2]:
                if old != number:
                    del self._rounds[old]
        return self._rounds[number]

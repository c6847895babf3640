"""Several short sequences one after the other in one column of a batch, instead of padding.

A core that starts an episode anywhere at no great cost computes the same for every sequence, on fewer steps:
a quarter to a third of bAbI's batches is padding. For processors only: a GPU would rather have many columns.

Dimensions: ``T`` time, ``B`` sequences, ``P`` packed columns of ``S`` steps.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import torch
from torch import Tensor

COLUMNS = 32
"""Packed columns come in multiples of this for each thread: the C++ kernel runs as many together."""


@dataclass(frozen=True)
class Packing:
    """Where each step of each sequence lies among the packed ones.

    Attributes:
        sources: int64 ``[S, P]``: place of the step among those of ``[T, B]``, row by row; 0 in what padding
            is left.
        resets: boolean ``[S, P]``: true where a sequence, or the padding, begins.
        places: int64 ``[T, B]``: the inverse of ``sources``; 0 in the padding.
    """

    sources: Tensor
    resets: Tensor
    places: Tensor

    def pack(self, sequences: Tensor) -> Tensor:
        """From ``[T, B, ...]`` to ``[S, P, ...]``."""
        return _take(sequences, self.sources)

    def unpack(self, packed: Tensor) -> Tensor:
        """From ``[S, P, ...]`` to ``[T, B, ...]``; padding holds copies of some step."""
        return _take(packed, self.places)


def make_packing(lengths: Tensor) -> Packing | None:
    """A packing with little padding, or ``None`` where it would not pay.

    Args:
        lengths: int64 ``[B]``, steps of each sequence.
    """
    sizes = lengths.tolist()
    longest = max(sizes)
    step = COLUMNS * torch.get_num_threads()
    choices = [_fill(sizes, columns) for columns in range(step, len(sizes), step)]
    if not choices:
        return None
    filled = min(choices, key=lambda filled: len(filled) * _steps(sizes, filled))
    columns, steps = len(filled), _steps(sizes, filled)
    if steps * columns > 0.95 * longest * len(sizes):
        return None
    sources = torch.zeros(steps, columns, dtype=torch.int64)
    resets = torch.zeros(steps, columns, dtype=torch.bool)
    places = torch.zeros(longest, len(sizes), dtype=torch.int64)
    for column, numbers in enumerate(filled):
        start = 0
        for number in numbers:
            end = start + sizes[number]
            resets[start, column] = True
            sources[start:end, column] = torch.arange(sizes[number]) * len(sizes) + number
            places[: sizes[number], number] = torch.arange(start, end) * columns + column
            start = end
        resets[start : start + 1, column] = True
    device = lengths.device
    return Packing(sources.to(device), resets.to(device), places.to(device))


def _fill(sizes: list[int], columns: int) -> list[list[int]]:
    """Numbers of the sequences in each column: the longest first, always into the column with most room."""
    filled: list[list[int]] = [[] for _ in range(columns)]
    heap = [(0, column) for column in range(columns)]
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        used, column = heapq.heappop(heap)
        filled[column].append(number)
        heapq.heappush(heap, (used + sizes[number], column))
    return filled


def _steps(sizes: list[int], filled: list[list[int]]) -> int:
    """Length of the longest column."""
    return max(sum(sizes[number] for number in column) for column in filled)


def _take(values: Tensor, places: Tensor) -> Tensor:
    return values.flatten(0, 1).index_select(0, places.flatten()).unflatten(0, places.shape)

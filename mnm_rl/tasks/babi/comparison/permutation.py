"""A test of homogeneity for counts that come in stories.

Sentences of one story depend on each other, so an ordinary chi-squared test would see differences where
there are none. Here stories are exchanged between the two sets at random, whole: if both come from one
source, the exchanged sets differ as much as the given ones. That needs no other assumption.

Dimensions: ``S`` stories, ``C`` categories, ``P`` permutations.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 999
CHUNK = 100

Floats = NDArray[np.float64]


class Difference(NamedTuple):
    """How two sets differ in one feature.

    Attributes:
        distance: total variation distance of the two sets' frequencies: the part of the mass that differs.
        expected: its mean when stories are exchanged at random: what chance alone makes of equal sources.
        p_value: part of the random exchanges whose chi-squared statistic is at least that of the given sets.
        missing: categories of the first set that the second has not, with their counts.
        extra: categories of the second set that the first has not, with their counts.
    """

    distance: float
    expected: float
    p_value: float
    missing: dict[str, int]
    extra: dict[str, int]


def compare(
    first: list[Counter[str]], second: list[Counter[str]], seed: int = 0, permutations: int = PERMUTATIONS
) -> Difference:
    """Compare the counts of the stories of two sets."""
    totals = _total(first), _total(second)
    missing = {name: count for name, count in totals[0].items() if name not in totals[1]}
    extra = {name: count for name, count in totals[1].items() if name not in totals[0]}
    counts = _matrix([*first, *second])
    generator = np.random.default_rng(seed)
    sides = np.zeros((1, len(counts)))
    sides[0, : len(first)] = 1
    statistic, distance = (float(value[0]) for value in _differences(sides, counts))
    as_large, distances = 1, []
    for start in range(0, permutations, CHUNK):
        rows = np.tile(sides, (min(CHUNK, permutations - start), 1))
        statistics, chances = _differences(generator.permuted(rows, axis=1), counts)
        as_large += int((statistics >= statistic - 1e-9).sum())
        distances.append(chances)
    expected = float(np.concatenate(distances).mean())
    return Difference(distance, expected, as_large / (permutations + 1), missing, extra)


def _total(stories: list[Counter[str]]) -> Counter[str]:
    whole: Counter[str] = Counter()
    for story in stories:
        whole.update(story)
    return whole


def _matrix(stories: list[Counter[str]]) -> Floats:
    """``[S, C]``."""
    names = {
        name: number for number, name in enumerate(sorted({name for story in stories for name in story}))
    }
    counts = np.zeros((len(stories), len(names)))
    for row, story in enumerate(stories):
        for name, count in story.items():
            counts[row, names[name]] = count
    return counts


def _differences(sides: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Chi-squared statistics and distances ``[P]`` of the divisions ``sides [P, S]`` of the stories."""
    ones, whole = sides @ counts, counts.sum(0)
    others = whole - ones
    one, other = ones.sum(1, keepdims=True), others.sum(1, keepdims=True)
    shares, other_shares = ones / one, others / np.maximum(other, 1)
    gaps = shares - other_shares
    statistic = (gaps**2 / np.maximum(whole, 1)).sum(1) * one[:, 0] * other[:, 0]
    return statistic, np.abs(gaps).sum(1) / 2

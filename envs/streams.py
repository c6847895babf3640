"""Random numbers for many mazes at once, one independent stream per maze.

Dimensions: ``N`` mazes.

A stream is one 64-bit number, advanced and scrambled by SplitMix64 (Steele, Lea and Flood, "Fast Splittable
Pseudorandom Number Generators", OOPSLA 2014). This draws for any subset of the mazes in a handful of numpy
operations, where numpy's own generators would need one Python call per maze, and the whole state of N streams
is a plain array of N numbers. Seeds go through Gymnasium's seeding, so that a maze seeded with s has the same
stream whether it is alone or one of a batch.
"""

from __future__ import annotations

from numbers import Integral

import numpy as np
from gymnasium.utils import seeding
from numpy.typing import NDArray

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_FACTOR_1 = np.uint64(0xBF58476D1CE4E5B9)
_FACTOR_2 = np.uint64(0x94D049BB133111EB)
_SHIFTS = tuple(np.uint64(bits) for bits in (30, 27, 31, 32))


def stream_from_generator(generator: np.random.Generator) -> np.uint64:
    """Draw the start of a stream from a numpy generator."""
    return generator.integers(2**64, dtype=np.uint64)


def checked_seed(seed: object) -> int:
    """A seed as Gymnasium's seeding takes it, which knows Python's numbers only.

    Raises:
        ValueError: it is not a whole number, or negative.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise ValueError(f"a seed must be a whole number of at least 0, got {seed!r}.")
    return int(seed)


def stream_from_seed(seed: int) -> np.uint64:
    """The start of the stream that belongs to a seed, the one ``MazeEnv.reset(seed=seed)`` uses.

    Raises:
        ValueError: as :func:`checked_seed`.
    """
    return stream_from_generator(seeding.np_random(checked_seed(seed))[0])


def unseeded_streams(count: int) -> NDArray[np.uint64]:
    """``count`` streams that start at random, from the operating system's entropy, shape ``[count]``."""
    return np.random.default_rng().integers(2**64, size=count, dtype=np.uint64)


def draw_below(streams: NDArray[np.uint64], rows: NDArray[np.intp], bound: int) -> NDArray[np.intp]:
    """Draw one number from 0 to bound - 1 for each of the given mazes and advance their streams.

    Args:
        streams: the streams of all mazes, shape ``[N]``; changed in place.
        rows: the mazes to draw for, each at most once, shape ``[R]``.
        bound: how many values are possible. Each is equally likely up to a relative error of bound / 2^32.

    Returns:
        the numbers drawn, shape ``[R]``.
    """
    word = streams[rows] + _INCREMENT
    streams[rows] = word
    word = (word ^ (word >> _SHIFTS[0])) * _FACTOR_1
    word = (word ^ (word >> _SHIFTS[1])) * _FACTOR_2
    word ^= word >> _SHIFTS[2]
    return (((word >> _SHIFTS[3]) * np.uint64(bound)) >> _SHIFTS[3]).astype(np.intp)

"""Whether what a memory reads and writes has to do with the goal: cosine similarities with earlier visits.

Dimensions: ``T`` time, ``B`` mazes, ``F`` free cells, ``S`` side of the maze's interior, ``D`` distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mnm_rl.analysis import similarities
from mnm_rl.analysis.maze.episodes import MazeEpisodes
from mnm_rl.envs.layout import MazeLayout

LEAST_STEPS = 30
"""Fewer steps than this make no mean."""


@dataclass(frozen=True)
class Comparison:
    """Vectors at all steps are compared with vectors at the visits of the goal."""

    now: str
    """Which tensor of the trace, at every step."""
    then: str
    """Which, at the visits."""
    delay: int
    """0 takes the visit's vector at the step on to the goal, 1 at the next step, which sees the reward."""


class GoalSimilarities(NamedTuple):
    """Cosine similarities of every step with visits, each the mean over the visits; NaN where there are none.

    The visits are all but the first of an episode: only by then the agent can know what it steps on.
    """

    later: NDArray[np.float64]
    """Steps after visits, with these visits, ``[T, B]``."""
    other_goal: NDArray[np.float64]
    """The same steps with visits of another episode that has another goal, ``[T, B]``: what has nothing to do
    with this goal."""
    before: NDArray[np.float64]
    """Steps before the goal was found for the first time, with the visits to come, ``[T, B]``."""


def goal_similarities(episodes: MazeEpisodes, comparison: Comparison) -> GoalSimilarities:
    """Compare every step with the visits of its own and of another episode.

    The mean over all steps and episodes is taken off the vectors first: it says nothing about any place, and
    written values all share much of it.

    Args:
        episodes: of two mazes at least.
        comparison: what is compared with what.

    Raises:
        ValueError: the trace lacks one of the tensors.
    """
    now, then = (_centred(episodes.trace[name]) for name in (comparison.now, comparison.then))
    found, steps = episodes.found, np.arange(len(episodes.cells))
    seen = np.cumsum(found, axis=0)
    visits = (found & (seen > 1)).T[:, None]
    visits[:, :, len(steps) - comparison.delay :] = False
    # The vector of step t stands at t - delay, so that columns are visits in every comparison.
    cosines = similarities(now, then.roll(-comparison.delay, 0)).numpy()
    others = similarities(now, then.roll((-comparison.delay, 1), (0, 1))).numpy()
    # The step that sees the reward compares with itself; later steps are at another place.
    after = steps[:, None] > steps[None] + 1
    unaware = (seen == 0).T[:, :, None]
    elsewhere = (episodes.goals != np.roll(episodes.goals, 1))[:, None, None]
    return GoalSimilarities(
        later=_mean(cosines, visits & after),
        other_goal=_mean(others, np.roll(visits, 1, axis=0) & after & ~unaware & elsewhere),
        before=_mean(cosines, visits & unaware),
    )


def by_distance(
    episodes: MazeEpisodes, values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of ``values [T, B]`` by the agent's distance to the goal, ``[D]`` each.

    NaN where there are fewer than ``LEAST_STEPS`` steps.
    """
    distances = walking_distances(episodes.rules.layout)
    places = distances[episodes.cells, episodes.goals]
    return _grouped(values, places, (int(distances.max()) + 1,))


def by_place(episodes: MazeEpisodes, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of ``values [T, B]`` by where the agent is as seen from the goal, ``[2 S - 1, 2 S - 1]``.

    The goal is in the middle, so that episodes with different goals lie on each other. NaN where there are
    fewer than ``LEAST_STEPS`` steps.
    """
    positions = episodes.rules.layout.positions
    reach = episodes.rules.size - 1
    rows, columns = np.moveaxis(positions[episodes.cells] - positions[episodes.goals] + reach, -1, 0)
    width = 2 * reach + 1
    means, _ = _grouped(values, rows * width + columns, (width, width))
    return means


def walking_distances(layout: MazeLayout) -> NDArray[np.intp]:
    """Steps from every cell to every other, ``[F, F]``."""
    unknown = layout.num_cells
    distances = np.where(np.eye(layout.num_cells, dtype=bool), 0, unknown)
    while (distances == unknown).any():
        distances = np.minimum(distances, distances[layout.next_cell].min(1) + 1)
    return distances


def _centred(vectors: Tensor) -> Tensor:
    return vectors - vectors.mean((0, 1))


def _mean(cosines: NDArray[np.float32], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over the chosen visits, from ``[B, T, T]`` to ``[T, B]``."""
    counts = chosen.sum(2)
    sums = np.where(chosen, cosines, 0).sum(2, dtype=np.float64)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).T


def _grouped(
    values: NDArray[np.float64], places: NDArray[np.intp], shape: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of the values at each of the numbered places."""
    known = ~np.isnan(values)
    groups, numbers, size = places[known], values[known], int(np.prod(shape))
    counts = np.bincount(groups, minlength=size)
    divisors = np.maximum(counts, 1)
    means = np.bincount(groups, numbers, size) / divisors
    squares = np.bincount(groups, np.square(numbers - means[groups]), size)
    parts = [np.where(counts >= LEAST_STEPS, part, np.nan) for part in (means, np.sqrt(squares / divisors))]
    return parts[0].reshape(shape), parts[1].reshape(shape)

"""How to look for a goal that can be anywhere: the first half of :class:`BeliefPlayer`.

Dimensions: ``B`` paths kept (the beam), ``F`` free cells, ``A`` = 4 actions, ``T`` horizon.

Until the goal is found nothing random happens, so the agent knows where it is, and all it learns is which
cells the goal is not in. A plan for the search is therefore simply a path. Its value is the expected return
of the episode: the sooner it comes through the cells, the more time is left once the goal is found. The best
path is sought by beam search; it is good, but not proved to be the best. :func:`score_bound` says how much
better any other player could be.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnm_rl.envs.layout import ACTIONS, symmetries
from mnm_rl.envs.localisation import localisation_plan
from mnm_rl.envs.oracle import goal_prior
from mnm_rl.envs.rules import MazeRules

BEAM = 2000


class SearchPath(NamedTuple):
    """A path from the centre; build it with :func:`search_path`."""

    actions: NDArray[np.intp]
    """``[T]``: the action of each step as long as the goal is not found."""
    cells: NDArray[np.intp]
    """``[T]``: the cell after each step."""
    value: float
    """Expected return of an episode of this search followed by optimal play."""


class _Beam(NamedTuple):
    cell: NDArray[np.intp]  # [B]
    untested: NDArray[np.bool_]  # [B, F]: the goal may still be here
    value: NDArray[np.float64]  # [B]: expected return of the part of the search behind us
    marks: NDArray[np.uint64]  # [B, 8]: a hash of the tested cells under every symmetry

    def pick(self, rows: NDArray[np.intp]) -> _Beam:
        return _Beam(self.cell[rows], self.untested[rows], self.value[rows], self.marks[rows])


@lru_cache(maxsize=4)
def search_path(rules: MazeRules) -> SearchPath:
    """Find a path that brings a high expected return; takes about a second on 9x9."""
    layout, horizon = rules.layout, rules.horizon
    gains = find_gains(rules)
    cell_marks, place_marks = _marks(rules)
    beam = _Beam(
        cell=np.array([layout.centre]),
        untested=goal_prior(rules)[None] > 0,
        value=np.zeros(1),
        marks=np.zeros((1, cell_marks.shape[1]), dtype=np.uint64),
    )
    history: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    for left in range(horizon - 1, -1, -1):
        parents = np.repeat(np.arange(len(beam.cell)), len(ACTIONS))
        actions = np.tile(np.arange(len(ACTIONS)), len(beam.cell))
        grown = _grow(beam.pick(parents), actions, rules, gains[left], cell_marks)
        kept = _most_promising(grown, gains, left, place_marks)
        beam = grown.pick(kept)
        history.append((parents[kept], actions[kept]))
    best = int(beam.value.argmax())
    return _trace(rules, history, best, float(beam.value[best]))


def find_gains(rules: MazeRules) -> NDArray[np.float64]:
    """What finding the goal in each cell is worth, with so many steps left after it, shape ``[T + 1, F]``.

    That is the reward plus the value of optimal play from then on, times the probability of that goal.
    """
    return (rules.goal_reward + localisation_plan(rules).relocated_values) * goal_prior(rules)


def score_bound(rules: MazeRules) -> float:
    """A score that no player can exceed in expectation unless it is told the goal.

    The k-th step can test only one cell. Let the search test a new cell at every step, in whatever order is
    best, and play optimally once the goal is found: the best assignment of cells to steps bounds every
    player. Its value is itself bounded by its dual: for any prices of the cells, the sum of the prices plus,
    for each step, the best of gain minus price.
    """
    candidates = np.flatnonzero(goal_prior(rules))
    steps = np.minimum(np.arange(1, len(candidates) + 1), rules.horizon)
    gains = find_gains(rules)[rules.horizon - steps][:, candidates]
    prices = gains[len(candidates) // 2]  # those of halfway through the search bound tightly
    best = float(prices.sum() + (gains - prices).max(axis=1).sum())
    return best + max(rules.wall_reward, 0.0) * rules.horizon


def _marks(rules: MazeRules) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Random marks of the cells as tested and as the place of the agent, ``[F, 8]`` each."""
    layout = rules.layout
    marks = np.random.default_rng(0).integers(2**64, size=(2, layout.num_cells), dtype=np.uint64)
    turned = symmetries(layout).T
    return marks[0][turned], marks[1][turned]


def _grow(
    beam: _Beam,
    actions: NDArray[np.intp],
    rules: MazeRules,
    gains: NDArray[np.float64],
    cell_marks: NDArray[np.uint64],
) -> _Beam:
    """Take one action from each path."""
    cell = rules.layout.next_cell[beam.cell, actions]
    rows = np.arange(len(cell))
    new = beam.untested[rows, cell]
    still_searching = beam.untested @ goal_prior(rules)
    bump = np.where(rules.layout.bumps[beam.cell, actions], rules.wall_reward, 0.0) * still_searching
    untested = beam.untested.copy()
    untested[rows, cell] = False
    marks = np.where(new[:, None], beam.marks ^ cell_marks[cell], beam.marks)
    return _Beam(cell, untested, beam.value + bump + np.where(new, gains[cell], 0.0), marks)


def _most_promising(
    beam: _Beam, gains: NDArray[np.float64], left: int, place_marks: NDArray[np.uint64]
) -> NDArray[np.intp]:
    """The best B paths, only one of those that are in the same situation up to symmetry."""
    # Estimate of the rest: a new cell at every step, so each on average after half as many steps.
    later = np.maximum(left - beam.untested.sum(axis=1) // 2, 0)
    promise = beam.value + (gains[later] * beam.untested).sum(axis=1)
    order = np.argsort(-promise, kind="stable")
    situation = (beam.marks ^ place_marks[beam.cell]).min(axis=1)
    first = np.unique(situation[order], return_index=True)[1]
    return order[np.sort(first)[:BEAM]]


def _trace(
    rules: MazeRules, history: list[tuple[NDArray[np.intp], NDArray[np.intp]]], last: int, value: float
) -> SearchPath:
    """Follow the parents back from the end of the best path."""
    actions = np.empty(rules.horizon, dtype=np.intp)
    cells = np.empty(rules.horizon, dtype=np.intp)
    for step in range(rules.horizon - 1, -1, -1):
        parents, taken = history[step]
        actions[step], last = taken[last], int(parents[last])
    cell = rules.layout.centre
    for step, action in enumerate(actions):
        cells[step] = cell = rules.layout.next_cell[cell, action]
    return SearchPath(actions, cells, value)

"""The player that knows everything, and the exact scores of playing best and of playing at random.

Dimensions: ``G`` goals (= F free cells), ``F`` cells, ``A`` = 4 actions, ``T`` horizon, ``N`` mazes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnm_rl.envs.layout import ACTIONS
from mnm_rl.envs.rules import TIME_COLUMN, MazeRules
from mnm_rl.envs.turn import Turn


class GoalValues(NamedTuple):
    """The result of :func:`goal_values`."""

    start: NDArray[np.float64]
    """``[G]``: expected return of an episode for each goal."""
    policy: NDArray[np.int8]
    """``[T + 1, G, F]``: best action with so many steps left."""


def goal_prior(rules: MazeRules) -> NDArray[np.float64]:
    """The probability of each cell to be the goal, shape ``[F]``."""
    prior = np.ones(rules.layout.num_cells)
    if rules.relocation == "2019":
        prior[rules.layout.centre] = 0.0
    return prior / prior.sum()


def relocation_chances(rules: MazeRules) -> NDArray[np.float64]:
    """The probability of each cell after a visit to each goal, shape ``[G, F]``."""
    num_cells = rules.layout.num_cells
    chances = np.ones((num_cells, num_cells))
    if rules.relocation == "2019":
        np.fill_diagonal(chances, 0.0)
    return chances / chances.sum(axis=1, keepdims=True)


@lru_cache(maxsize=8)
def goal_values(rules: MazeRules, choice: Literal["best", "uniform"] = "best") -> GoalValues:
    """Solve the maze exactly for a player that knows goal and position.

    Dynamic programming over the steps left: the value of a cell is the best over the actions (or their mean,
    for a player that picks them uniformly) of the reward plus the value of where the action leads.
    """
    layout = rules.layout
    num_cells, horizon = layout.num_cells, rules.horizon
    chances = relocation_chances(rules)
    hit = layout.next_cell == np.arange(num_cells)[:, None, None]  # [G, F, A]
    reward = np.where(layout.bumps, rules.wall_reward, 0.0) + hit * rules.goal_reward
    values = np.zeros((num_cells, num_cells))
    policy = np.zeros((horizon + 1, num_cells, num_cells), dtype=np.int8)
    for left in range(1, horizon + 1):
        relocated = (chances * values).sum(axis=1)[:, None, None]
        action_values = reward + np.where(hit, relocated, values[:, layout.next_cell])
        policy[left] = action_values.argmax(axis=-1)
        values = action_values.max(axis=-1) if choice == "best" else action_values.mean(axis=-1)
    return GoalValues(values[:, layout.centre], policy)


class OraclePlayer:
    """Knows the goal and its own position and plays exactly optimally: no player can score more."""

    def __init__(self, rules: MazeRules) -> None:
        self.rules = rules
        self._policy = goal_values(rules).policy

    def exact_score(self) -> float:
        """The expected return of an episode."""
        return float(goal_prior(self.rules) @ goal_values(self.rules).start)

    def reset(self, num_mazes: int, generator: np.random.Generator) -> None:
        """Do nothing: this player remembers nothing and needs no luck."""

    def act(self, turn: Turn) -> NDArray[np.intp]:
        """The best actions, shape ``[N]``."""
        horizon = self.rules.horizon
        left = horizon - np.rint(turn.observations[:, TIME_COLUMN] * horizon).astype(np.intp)
        return self._policy[left, turn.goals, turn.cells].astype(np.intp)


class RandomPlayer:
    """Takes each of the four actions with the same probability."""

    def __init__(self, rules: MazeRules) -> None:
        self.rules = rules
        self._generator = np.random.default_rng()

    def exact_score(self) -> float:
        """The expected return of an episode."""
        return float(goal_prior(self.rules) @ goal_values(self.rules, "uniform").start)

    def reset(self, num_mazes: int, generator: np.random.Generator) -> None:
        """Take the random numbers from ``generator`` from now on."""
        self._generator = generator

    def act(self, turn: Turn) -> NDArray[np.intp]:
        """Random actions, shape ``[N]``."""
        return self._generator.integers(len(ACTIONS), size=len(turn.observations))

"""The player that is told the map and nothing else, and plays close to the best that is then possible.

Dimensions: ``N`` mazes, ``F`` free cells, ``O`` observation size, ``T`` horizon.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mnm_rl.envs.localisation import MAX_SIZE, localisation_plan, view_classes, view_codes
from mnm_rl.envs.oracle import goal_prior
from mnm_rl.envs.rules import REWARD_COLUMN, TIME_COLUMN, MazeRules
from mnm_rl.envs.searching import score_bound, search_path
from mnm_rl.envs.turn import Turn

_SEARCHING = -1


class BeliefPlayer:
    """Knows the map and the rules, sees what the agent sees, and keeps the exact belief about the rest.

    The joint belief about its own position and the goal is always one of two kinds. Before the first visit it
    knows where it is, and the goal is equally likely in every cell not yet tested: it follows the path of
    :mod:`mnm_rl.envs.searching`. From the first visit on it knows where the goal is, and is itself equally
    likely in each of a set of cells: it acts exactly optimally by the table of
    :mod:`mnm_rl.envs.localisation`, which includes moves that only serve to find out where it is. So the
    second half cannot be played better, and the first half is as good as a wide beam search makes it.

    Raises:
        ValueError: the goal does not pay (``goal_reward`` <= 0), or ``size`` is above 13, too large to plan
            for.
    """

    def __init__(self, rules: MazeRules) -> None:
        if rules.goal_reward <= 0:
            raise ValueError(f"the belief player needs a positive goal_reward, got {rules.goal_reward}.")
        self.rules = rules
        self._plan = localisation_plan(rules)
        self._path = search_path(rules)
        layout = rules.layout
        self._views = view_classes(layout)
        self._view_of_code = np.zeros(2**9, dtype=np.intp)
        self._view_of_code[view_codes(layout.views)] = self._views
        self._bump_reward = np.zeros((self._views.max() + 1, layout.bumps.shape[1]))
        self._bump_reward[self._views] = np.where(layout.bumps, rules.wall_reward, 0.0)
        self._belief = np.empty(0, dtype=np.intp)
        self._action = np.empty(0, dtype=np.intp)
        self._view = np.empty(0, dtype=np.intp)
        self._time = np.empty(0, dtype=np.intp)

    @staticmethod
    def can_play(rules: MazeRules) -> bool:
        """Say whether this player can be built for these rules."""
        return rules.goal_reward > 0 and rules.size <= MAX_SIZE

    def exact_score(self) -> float:
        """The expected return of an episode."""
        return self._path.value

    def score_bound(self) -> float:
        """A score that no player can exceed that is not told the goal."""
        return score_bound(self.rules)

    def reset(self, num_mazes: int, generator: np.random.Generator) -> None:
        """Forget everything: all mazes begin a new episode."""
        self._belief = np.full(num_mazes, _SEARCHING)
        self._action = np.zeros(num_mazes, dtype=np.intp)
        self._view = np.zeros(num_mazes, dtype=np.intp)
        self._time = np.zeros(num_mazes, dtype=np.intp)

    def act(self, turn: Turn) -> NDArray[np.intp]:
        """Take in the observations and return actions, shape ``[N]``; uses nothing else of the turn."""
        horizon = self.rules.horizon
        time = np.rint(turn.observations[:, TIME_COLUMN] * horizon).astype(np.intp)
        view = self._view_of_code[view_codes(turn.observations[:, :TIME_COLUMN])]
        self._belief = np.where(time == 0, _SEARCHING, self._updated(turn.observations, time, view))
        searching = self._belief == _SEARCHING
        self._action = np.where(
            searching,
            self._path.actions[time],
            self._plan.policy[horizon - time, np.where(searching, 0, self._belief)],
        ).astype(np.intp)
        self._view, self._time = view, time
        return self._action

    def joint_belief(self, row: int) -> NDArray[np.float64]:
        """The probability of each goal and own cell in one of the mazes, as of the last :meth:`act`.

        Returns:
            probabilities that sum to 1, shape ``[F, F]``: the first index is the goal, the second the own
            cell.
        """
        num_cells = self.rules.layout.num_cells
        joint = np.zeros((num_cells, num_cells))
        belief, time = self._belief[row], self._time[row]
        if belief == _SEARCHING:
            untested = goal_prior(self.rules)
            untested[self._path.cells[:time]] = 0.0
            joint[:, self._path.cells[time - 1] if time else self.rules.layout.centre] = untested
        else:
            joint[self._plan.goal[belief], list(self._plan.cells[belief])] = 1.0
        return joint / joint.sum()

    def _updated(
        self, observations: NDArray[np.float32], time: NDArray[np.intp], view: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        """The belief after the last action, given its reward and what is seen now."""
        plan, belief = self._plan, self._belief.copy()
        bump = self._bump_reward[self._view, self._action]
        hit = observations[:, REWARD_COLUMN] - bump > self.rules.goal_reward / 2
        known = belief != _SEARCHING
        goal = np.where(known, plan.goal[belief], self._path.cells[time - 1])
        moved = known & ~hit & (time > 0)
        belief[moved] = plan.follow(belief[moved], self._action[moved], view[moved])
        return np.where(hit, plan.roots[goal, view], belief)

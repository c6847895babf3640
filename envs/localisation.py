"""How to play best with the goal known and the own position not: the second half of :class:`BeliefPlayer`.

Dimensions: ``G`` goals (= F free cells), ``F`` cells, ``A`` = 4 actions, ``T`` horizon, ``K`` beliefs of all
goals together, ``E`` outcomes.

After a visit to the goal the agent is somewhere, every cell equally likely. Moves are certain and never bring
two cells together that look the same, so what the agent may then believe is always of one form: "I am in one
of these cells, each equally likely". For each goal there are only some hundreds of such sets of cells that
can come up on 9x9. They are listed here with all their outcomes, and dynamic programming over the steps left
then gives the exactly optimal behaviour, the value of finding out where one is included.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnm_rl.envs.layout import ACTIONS, MazeLayout
from mnm_rl.envs.oracle import relocation_chances
from mnm_rl.envs.rules import MazeRules

MAX_SIZE = 13
"""From size 15 on there are millions of sets of cells that the agent may believe to be in."""


def view_classes(layout: MazeLayout) -> NDArray[np.intp]:
    """The different 3x3 views of a maze, numbered: the number of each cell's view, shape ``[F]``."""
    return np.unique(view_codes(layout.views), return_inverse=True)[1]


def view_codes(views: NDArray) -> NDArray[np.intp]:
    """The nine wall bits of each view as one number, shape ``[...]`` for views of shape ``[..., 9]``."""
    return (np.asarray(views) > 0.5) @ (1 << np.arange(9))


class LocalisationPlan(NamedTuple):
    """What to do in every belief, and what it leads to; build it with :func:`localisation_plan`."""

    policy: NDArray[np.int8]
    """``[T + 1, K]``: best action with so many steps left."""
    relocated_values: NDArray[np.float64]
    """``[T + 1, G]``: expected return from now on, just relocated from the goal, with so many steps left."""
    goal: NDArray[np.intp]
    """``[K]``: the goal that the belief belongs to."""
    cells: list[tuple[int, ...]]
    """K entries: the cells that the agent may be in, each equally likely."""
    roots: NDArray[np.intp]
    """``[G, views]``: the belief after relocation from the goal and one look around, -1 where impossible."""
    outcome_keys: NDArray[np.int64]
    """``[E]``: (belief * A + action) * views + view, sorted."""
    outcome_beliefs: NDArray[np.intp]
    """``[E]``: the belief that follows when the goal was not hit."""

    def follow(
        self, beliefs: NDArray[np.intp], actions: NDArray[np.intp], views: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        """The beliefs after the actions did not hit the goal and these views were seen, shape ``[N]``."""
        keys = (beliefs * len(ACTIONS) + actions) * self.roots.shape[1] + views
        return self.outcome_beliefs[np.searchsorted(self.outcome_keys, keys)]


class _Beliefs:
    """All sets of cells that can come up for one goal, and where the actions lead from each."""

    def __init__(self, layout: MazeLayout, goal: int, start: list[int], views: list[int]) -> None:
        self.goal = goal
        self.next_cell = layout.next_cell.tolist()
        self.views = views
        self.numbers: dict[tuple[int, ...], int] = {}
        self.cells: list[tuple[int, ...]] = []
        self.roots = self._look_around(start)
        self.outcomes: list[tuple[dict[int, int], int]] = []
        done = 0
        while done < len(self.cells):
            self.outcomes += [self._outcomes(self.cells[done], action) for action in range(len(ACTIONS))]
            done += 1

    def _outcomes(self, cells: tuple[int, ...], action: int) -> tuple[dict[int, int], int]:
        """The next belief for each view, and how many of the cells lead to the goal (0 or 1)."""
        reached = [self.next_cell[cell][action] for cell in cells]
        missed = [cell for cell in reached if cell != self.goal]
        return self._look_around(missed), len(reached) - len(missed)

    def _look_around(self, cells: list[int]) -> dict[int, int]:
        """Split a set of cells by what is seen there, in the order of the views."""
        groups: dict[int, list[int]] = {}
        for cell in cells:
            groups.setdefault(self.views[cell], []).append(cell)
        return {view: self._number(tuple(sorted(groups[view]))) for view in sorted(groups)}

    def _number(self, cells: tuple[int, ...]) -> int:
        if cells not in self.numbers:
            self.numbers[cells] = len(self.cells)
            self.cells.append(cells)
        return self.numbers[cells]


class _Tables:
    """The beliefs of all goals one after the other, with what each action brings."""

    def __init__(self, rules: MazeRules) -> None:
        views = view_classes(rules.layout)
        self.rules = rules
        self.num_views = int(views.max()) + 1
        self.goal: list[int] = []
        self.cells: list[tuple[int, ...]] = []
        self.roots = np.full((rules.layout.num_cells, self.num_views), -1)
        self.reward: list[float] = []  # K * A entries: expected reward of the step
        self.outcome_keys: list[int] = []
        self.outcome_beliefs: list[int] = []
        # The branches of each belief and action: its outcomes, and the hit if there can be one.
        self._branch: list[int] = []
        self._chance: list[float] = []
        self._starts: list[int] = []
        for goal, chances in enumerate(relocation_chances(rules)):
            start = np.flatnonzero(chances).tolist()
            self._add(_Beliefs(rules.layout, goal, start, views.tolist()))

    def branches(self) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.intp]]:
        """Where the branches lead, how likely they are, and where those of each action begin.

        A branch leads to a belief, or with a hit to K + goal: just relocated.
        """
        branch = np.array(self._branch)
        after_hit = len(self.cells) - 1 - branch
        return np.where(branch < 0, after_hit, branch), np.array(self._chance), np.array(self._starts)

    def _add(self, found: _Beliefs) -> None:
        first = len(self.cells)
        for view, number in found.roots.items():
            self.roots[found.goal, view] = first + number
        for index, (outcomes, hits) in enumerate(found.outcomes):
            number, action = divmod(index, len(ACTIONS))
            self._starts.append(len(self._branch))
            for view, following in outcomes.items():
                self.outcome_keys.append((first * len(ACTIONS) + index) * self.num_views + view)
                self.outcome_beliefs.append(first + following)
                self._branch.append(first + following)
                self._chance.append(len(found.cells[following]) / len(found.cells[number]))
            if hits:
                self._branch.append(-1 - found.goal)
                self._chance.append(hits / len(found.cells[number]))
            self.reward.append(self._reward(found.cells[number], action, hits))
        self.goal += [found.goal] * len(found.cells)
        self.cells += found.cells

    def _reward(self, cells: tuple[int, ...], action: int, hits: int) -> float:
        # Cells that look the same have the same walls around them: all of them bump, or none.
        bump = self.rules.wall_reward * float(self.rules.layout.bumps[cells[0], action])
        return bump + self.rules.goal_reward * hits / len(cells)


@lru_cache(maxsize=4)
def localisation_plan(rules: MazeRules) -> LocalisationPlan:
    """Solve the maze exactly for a player that knows the goal and was just relocated.

    Takes about a second on 9x9, half a minute on 13x13.

    Raises:
        ValueError: the maze is larger than ``MAX_SIZE``.
    """
    if rules.size > MAX_SIZE:
        raise ValueError(f"the belief player can plan for sizes up to {MAX_SIZE}, got {rules.size}.")
    tables = _Tables(rules)
    branch, chance, starts = tables.branches()
    reward, roots = np.array(tables.reward), tables.roots
    layout, horizon = rules.layout, rules.horizon
    num_goals, num_beliefs = layout.num_cells, len(tables.cells)
    policy = np.zeros((horizon + 1, num_beliefs), dtype=np.int8)
    relocated_values = np.zeros((horizon + 1, num_goals))
    root_chances = _root_chances(rules, roots.shape[1])
    values = np.zeros(num_beliefs + num_goals)
    for left in range(1, horizon + 1):
        future = np.add.reduceat(chance * values[branch], starts)
        action_values = (reward + future).reshape(num_beliefs, len(ACTIONS))
        policy[left] = action_values.argmax(axis=1)
        values[:num_beliefs] = action_values.max(axis=1)
        relocated_values[left] = (root_chances * values[roots]).sum(axis=1)
        values[num_beliefs:] = relocated_values[left]
    return LocalisationPlan(
        policy=policy,
        relocated_values=relocated_values,
        goal=np.array(tables.goal),
        cells=tables.cells,
        roots=roots,
        outcome_keys=np.array(tables.outcome_keys, dtype=np.int64),
        outcome_beliefs=np.array(tables.outcome_beliefs),
    )


def _root_chances(rules: MazeRules, num_views: int) -> NDArray[np.float64]:
    """The probability of each view after relocation from each goal, shape ``[G, views]``."""
    return relocation_chances(rules) @ np.eye(num_views)[view_classes(rules.layout)]

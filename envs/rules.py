"""The rules of the maze, played in N mazes at once: the one piece of code behind all three environments.

Dimensions: ``N`` mazes, ``F`` free cells, ``A`` = 4 actions, ``O`` observation size (11, or
15 with the previous action).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from typing import Any, Literal, get_args

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mnm_rl.envs.layout import ACTIONS, MazeLayout, maze_layout
from mnm_rl.envs.streams import draw_below, stream_from_seed, unseeded_streams
from mnm_rl.sizes import check_fits

Relocation = Literal["2018", "2019"]

TIME_COLUMN = 9
REWARD_COLUMN = 10
ACTION_COLUMN = 11
BYTES_PER_MAZE = 9 * 8
"""Of the arrays that are the state, and their row numbers."""
LONGEST_HORIZON = 2**53
"""A clock up to this one stays exact as a fraction of the horizon."""
LARGEST_REWARD = 1e38
"""Rewards up to this one, and the sum of two, are float32 numbers, as observations are."""


@dataclass(frozen=True)
class MazeRules:
    """The arguments of the maze, checked; see :class:`mnm_rl.envs.MazeEnv` for what each one means.

    Raises:
        ValueError: an argument is not allowed; the message names it and says what is.
    """

    size: int = 9
    horizon: int = 200
    goal_reward: float = 10.0
    wall_reward: float = -0.1
    previous_action: bool = False
    relocation: Relocation = "2018"

    def __post_init__(self) -> None:
        if not _is_integer(self.size) or self.size < 3 or self.size % 2 == 0:
            raise ValueError(f"size must be an odd whole number of at least 3, got {self.size!r}.")
        if not _is_integer(self.horizon) or not 1 <= self.horizon <= LONGEST_HORIZON:
            raise ValueError(
                f"horizon must be a whole number of at least 1 and at most 2^53, got {self.horizon!r}."
            )
        for name in ("goal_reward", "wall_reward"):
            value = getattr(self, name)
            if not (_is_number(value) and -LARGEST_REWARD <= value <= LARGEST_REWARD):
                raise ValueError(
                    f"{name} must be a finite number, at most 1e38 in absolute value, got {value!r}."
                )
        if not isinstance(self.previous_action, bool | np.bool_):
            raise ValueError(f"previous_action must be True or False, got {self.previous_action!r}.")
        if self.relocation not in get_args(Relocation):
            raise ValueError(f"relocation must be '2018' or '2019', got {self.relocation!r}.")

    @cached_property
    def layout(self) -> MazeLayout:
        """The map that these rules are played on."""
        return maze_layout(int(self.size))

    @property
    def observation_size(self) -> int:
        """O."""
        return ACTION_COLUMN + (len(ACTIONS) if self.previous_action else 0)

    @property
    def observation_space(self) -> spaces.Box[np.float32]:
        """The space of one maze's observation, shape ``[O]``."""
        rewards = (0.0, self.wall_reward, self.goal_reward, self.goal_reward + self.wall_reward)
        low = np.zeros(self.observation_size, dtype=np.float32)
        high = np.ones(self.observation_size, dtype=np.float32)
        low[REWARD_COLUMN], high[REWARD_COLUMN] = min(rewards), max(rewards)
        return spaces.Box(low, high, dtype=np.float32)

    @property
    def action_space(self) -> spaces.Discrete:
        """The space of one maze's action."""
        return spaces.Discrete(len(ACTIONS))


class Mazes:
    """N mazes with the same rules, each with its own goal, agent, clock and random stream.

    The arrays below are the complete state. Read them freely; :meth:`get_state` and :meth:`set_state` copy
    them.

    Attributes:
        rules: the rules that are played.
        cell: where the agents are, shape ``[N]``.
        goal: where the goals are, shape ``[N]``.
        time: steps taken in the current episodes, shape ``[N]``.
        last_reward: reward of the last step, 0 at the start of an episode, shape ``[N]``.
        last_action: action of the last step, -1 at the start of an episode, shape ``[N]``.
        episode_return: sum of the rewards of the current episodes, shape ``[N]``.
        goal_visits: visits to the goal in the current episodes, shape ``[N]``.
        stream: random streams (see :mod:`mnm_rl.envs.streams`), shape ``[N]``.
        started: whether each maze has begun an episode, shape ``[N]``.
    """

    STATE = (
        "cell",
        "goal",
        "time",
        "last_reward",
        "last_action",
        "episode_return",
        "goal_visits",
        "stream",
        "started",
    )

    def __init__(self, rules: MazeRules, num_mazes: int) -> None:
        if not _is_integer(num_mazes) or num_mazes < 1:
            raise ValueError(f"the number of mazes must be a whole number of at least 1, got {num_mazes!r}.")
        self.rules = rules
        self.num_mazes = int(num_mazes)
        per_maze = BYTES_PER_MAZE + rules.observation_size * 4
        check_fits(self.num_mazes * per_maze, f"{num_mazes} mazes")
        layout = rules.layout
        self.cell = np.full(self.num_mazes, layout.centre)
        self.goal = np.zeros(self.num_mazes, dtype=np.intp)
        self.time = np.zeros(self.num_mazes, dtype=np.int64)
        self.last_reward = np.zeros(self.num_mazes)
        self.last_action = np.full(self.num_mazes, -1)
        self.episode_return = np.zeros(self.num_mazes)
        self.goal_visits = np.zeros(self.num_mazes, dtype=np.int64)
        self.stream = unseeded_streams(self.num_mazes)
        self.started = np.zeros(self.num_mazes, dtype=bool)

        self._all_rows = np.arange(self.num_mazes)
        self._all_started = False
        self._next_cell = layout.next_cell.reshape(-1)
        self._bump_reward = np.where(layout.bumps, float(rules.wall_reward), 0.0).reshape(-1)
        self._view_rows = np.zeros((layout.num_cells, rules.observation_size), dtype=np.float32)
        self._view_rows[:, :TIME_COLUMN] = layout.views

    def seed(self, seeds: Sequence[int | None]) -> None:
        """Restart the random streams of the mazes whose seed is not None; acts from the next draw on.

        Raises:
            ValueError: there is not one for each maze, or one is not a whole number of at least 0; no stream
                is restarted then.
        """
        if len(seeds) != self.num_mazes:
            raise ValueError(f"{self.num_mazes} mazes need {self.num_mazes} seeds, got {len(seeds)}.")
        streams = {row: stream_from_seed(seed) for row, seed in enumerate(seeds) if seed is not None}
        for row, stream in streams.items():
            self.stream[row] = stream

    def begin_episodes(self, rows: NDArray[np.intp] | None = None) -> None:
        """Start an episode in the given mazes, all by default: draw the goal, put the agent in the centre."""
        rows = self._all_rows if rows is None else rows
        layout = self.rules.layout
        self.goal[rows] = self._draw_cells(rows, excluded=layout.centre)
        self.cell[rows] = layout.centre
        self.time[rows] = 0
        self.last_reward[rows] = 0.0
        self.last_action[rows] = -1
        self.episode_return[rows] = 0.0
        self.goal_visits[rows] = 0
        self.started[rows] = True
        self._all_started = bool(self.started.all())

    def step(self, actions: NDArray[np.integer]) -> NDArray[np.float64]:
        """Move all agents, pay the rewards, and relocate the agents that reached their goal.

        Episodes are not restarted here: see :meth:`ended` and :meth:`begin_episodes`.

        Args:
            actions: whole numbers from 0 to 3, shape ``[N]``.

        Returns:
            the rewards, shape ``[N]``, an array of its own.

        Raises:
            ValueError: the actions have another shape or type, or one is out of range.
            gymnasium.error.ResetNeeded: a maze has not begun an episode.
        """
        actions = self._checked(actions)
        index = self.cell * len(ACTIONS) + actions
        self.cell = self._next_cell.take(index)
        rewards = self._bump_reward.take(index)
        hits = (self.cell == self.goal).nonzero()[0]
        if hits.size:
            rewards[hits] += self.rules.goal_reward
            self.goal_visits[hits] += 1
            self.cell[hits] = self._draw_cells(hits, excluded=self.goal[hits])
        self.time += 1
        self.last_action = actions
        self.last_reward = rewards
        self.episode_return += rewards
        return rewards.copy()

    @property
    def ended(self) -> NDArray[np.bool_]:
        """Which episodes have reached the horizon, shape ``[N]``."""
        return self.time >= self.rules.horizon

    def observations(self) -> NDArray[np.float32]:
        """What the agents see now, shape ``[N, O]``, an array of its own."""
        observations = self._view_rows.take(self.cell, axis=0)
        observations[:, TIME_COLUMN] = self.time / self.rules.horizon
        observations[:, REWARD_COLUMN] = self.last_reward
        if self.rules.previous_action:
            moved = np.flatnonzero(self.last_action >= 0)
            observations[moved, ACTION_COLUMN + self.last_action[moved]] = 1.0
        return observations

    def get_state(self) -> dict[str, NDArray[Any]]:
        """A copy of the complete state, the random streams included, as arrays of shape ``[N]``."""
        return {name: getattr(self, name).copy() for name in self.STATE}

    def set_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Continue from a state that :meth:`get_state` returned.

        Raises:
            ValueError: an array is missing, or does not fit these mazes; nothing is changed then.
            TypeError: the state is no dictionary.
        """
        limits = self._state_limits()
        vars(self).update(
            {
                name: state_array(state, name, self.num_mazes, getattr(self, name).dtype, limits[name])
                for name in self.STATE
            }
        )
        self._all_started = bool(self.started.all())

    def _state_limits(self) -> dict[str, tuple[float, float]]:
        """Name of an array of the state -> its smallest and its largest value."""
        last_cell, horizon = self.rules.layout.num_cells - 1, int(self.rules.horizon)
        largest_sum = float(np.finfo(np.float64).max)
        return {
            "cell": (0, last_cell),
            "goal": (0, last_cell),
            "time": (0, horizon),
            "last_reward": (-2 * LARGEST_REWARD, 2 * LARGEST_REWARD),
            "last_action": (-1, len(ACTIONS) - 1),
            "episode_return": (-largest_sum, largest_sum),
            "goal_visits": (0, horizon),
            "stream": (0, int(np.iinfo(np.uint64).max)),
            "started": (False, True),
        }

    def _checked(self, actions: NDArray[np.integer]) -> NDArray[np.intp]:
        if not self._all_started:
            raise gymnasium.error.ResetNeeded("call reset() before the first step().")
        actions = as_array(actions)
        if actions.shape != (self.num_mazes,) or actions.dtype.kind not in "iu":
            raise ValueError(
                f"actions must be {self.num_mazes} whole numbers from 0 to 3, "
                f"got shape {actions.shape} of type {actions.dtype}."
            )
        # A copy: the caller may reuse its array while the observation still needs the last action.
        actions = actions.astype(np.intp)
        beyond = actions & ~3  # any bit but the lowest two, the sign's included
        if np.count_nonzero(beyond):  # several times faster than any() on small arrays
            wrong = actions[beyond != 0][0]
            raise ValueError(f"an action must be 0 (up), 1 (down), 2 (left) or 3 (right), got {wrong}.")
        return actions

    def _draw_cells(self, rows: NDArray[np.intp], excluded: int | NDArray[np.intp]) -> NDArray[np.intp]:
        """Draw a free cell for each row; under the 2019 rule never the excluded one."""
        num_cells = self.rules.layout.num_cells
        if self.rules.relocation == "2018":
            return draw_below(self.stream, rows, num_cells)
        drawn = draw_below(self.stream, rows, num_cells - 1)
        return drawn + (drawn >= excluded)


STATE_KINDS = {"i": ("iu", "whole numbers"), "u": ("iu", "whole numbers"), "f": ("fiu", "numbers")}
STATE_KINDS["b"] = ("b", "True or False")
"""Kind of an array of the state -> the kinds of arrays that it is taken from, and what is in them."""


def state_array(
    state: object, name: str, count: int, dtype: np.dtype, limits: tuple[float, float]
) -> NDArray[Any]:
    """A copy of one array of a state.

    Args:
        state: anything.
        name: of the array.
        count: N.
        dtype: that the copy is to have.
        limits: its smallest and its largest value.

    Raises:
        ValueError: it is missing, or of another shape, or something in it is not allowed.
        TypeError: the state is no dictionary.
    """
    if not isinstance(state, Mapping):
        raise TypeError(
            f"a state of mazes is a dictionary of arrays, as get_state() returns it, got {state!r}."
        )
    array = _state_values(state[name], dtype) if name in state else None
    if array is None or array.shape != (count,):
        raise ValueError(f"a state of {count} mazes needs {name!r} of shape ({count},).")
    kinds, words = STATE_KINDS[dtype.kind]
    if array.dtype.kind not in kinds:
        raise ValueError(f"the state's {name!r} must be {words}, got an array of {array.dtype}.")
    low, high = limits
    if not ((array >= low) & (array <= high)).all():
        raise ValueError(
            f"the state is not of a maze with these rules: {name!r} must be from {low} to {high}."
        )
    return array.astype(dtype)


def _state_values(values: Any, dtype: np.dtype) -> NDArray[Any]:
    """As an array; whole numbers of a list keep all digits, which numpy rounds where some need 64 bits."""
    if dtype.kind in "iu" and isinstance(values, list) and all(type(value) is int for value in values):
        with contextlib.suppress(OverflowError):
            return np.array(values, dtype=dtype)
    return as_array(values)


def as_array(values: Any) -> NDArray[Any]:
    """The values as an array; lists of unequal lengths become one of objects, which nobody takes."""
    try:
        return np.asarray(values)
    except ValueError:
        return np.asarray(None)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)

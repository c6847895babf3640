"""N mazes at once behind Stable-Baselines3's VecEnv interface.

Dimensions: ``N`` mazes, ``O`` observation size.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from mnm_rl.envs.rules import MazeRules, Mazes, Relocation, as_array, state_array
from mnm_rl.envs.streams import checked_seed
from mnm_rl.envs.vector import RENDER_MODES, check_render_mode, render_mazes

_NO_SEED = -1
_LARGEST_SEED = int(np.iinfo(np.int64).max)
"""What ``pending_seed`` of a state can hold."""


class MazeVecEnv(VecEnv):
    """N mazes with the rules of :class:`MazeEnv` for Stable-Baselines3, stepped together by numpy.

    After ``seed(s)`` and ``reset()``, maze i plays exactly like a :class:`MazeEnv` that was reset with seed s
    + i.

    The info of a step that ends an episode holds ``terminal_observation``, ``TimeLimit.truncated`` (True, as
    episodes end by the clock only), ``episode`` (return ``r``, length ``l``, seconds since creation ``t``),
    ``goal_visits`` and ``goal_position``; all other infos are empty. So ``VecMonitor`` is not needed, and
    ``env_is_wrapped`` answers True for ``Monitor``: ``evaluate_policy`` then takes the true returns also
    under ``VecNormalize``.

    :meth:`get_state` and :meth:`set_state` make a training run resumable bit for bit.

    Args:
        num_envs: N.
        render_mode: None, "rgb_array" or "ansi".
        size, horizon, goal_reward, wall_reward, previous_action, relocation: as in :class:`MazeEnv`.

    Raises:
        ValueError: an argument is not allowed; the message says what is.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        size: int = 9,
        horizon: int = 200,
        goal_reward: float = 10.0,
        wall_reward: float = -0.1,
        previous_action: bool = False,
        relocation: Relocation = "2018",
        render_mode: Literal["rgb_array", "ansi"] | None = None,
    ) -> None:
        rules = MazeRules(size, horizon, goal_reward, wall_reward, previous_action, relocation)
        check_render_mode(render_mode, RENDER_MODES)
        self.mazes = Mazes(rules, num_envs)
        self.render_mode = render_mode
        self._actions: NDArray[np.integer] | None = None
        self._created = time.time()
        super().__init__(self.mazes.num_mazes, rules.observation_space, rules.action_space)

    def reset(self) -> NDArray[np.float32]:
        """Start a new episode in every maze, with the seeds given to ``seed()`` if there are any.

        Returns:
            the observations, shape ``[N, O]``.
        """
        self.mazes.seed(self._seeds)
        self._reset_seeds()
        self._reset_options()
        self.mazes.begin_episodes()
        return self.mazes.observations()

    def seed(self, seed: int | None = None) -> list[int | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Give maze i the seed s + i, which acts with the next ``reset()``; one at random for None.

        Returns:
            the seeds.

        Raises:
            ValueError: the seed is not a whole number of at least 0, or too large for :meth:`get_state`.
        """
        if seed is not None and checked_seed(seed) > _LARGEST_SEED - self.num_envs:
            raise ValueError(f"the seeds of all mazes must be below 2^63, got a first seed of {seed}.")
        return list(super().seed(None if seed is None else int(seed)))

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions, shape ``[N]``, for :meth:`step_wait`."""
        self._actions = as_array(actions)

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict]]:
        """Take the step.

        Returns:
            observations float32 ``[N, O]``, rewards float32 ``[N]``, dones bool ``[N]`` and one info per
            maze.
        """
        if self._actions is None:
            raise RuntimeError("call step_async(actions) before step_wait().")
        rewards = self.mazes.step(self._actions)
        dones = self.mazes.ended
        # New dictionaries every time: callbacks and wrappers write into them.
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if np.count_nonzero(dones):
            self._restart(np.flatnonzero(dones), infos)
        return self.mazes.observations(), rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    def get_state(self) -> dict[str, NDArray[Any]]:
        """Everything that decides the future, random streams and pending seeds included.

        Call it between two steps. The values are plain arrays of shape ``[N]``, good for :func:`numpy.savez`.
        """
        pending = [_NO_SEED if seed is None else seed for seed in self._seeds]
        return {**self.mazes.get_state(), "pending_seed": np.array(pending, dtype=np.int64)}

    def set_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Continue from a state that :meth:`get_state` returned, of as many mazes with the same arguments.

        Raises:
            ValueError: an array is missing, or does not fit these mazes; nothing is changed then.
            TypeError: the state is no dictionary.
        """
        limits = (_NO_SEED, _LARGEST_SEED)
        seeds = state_array(state, "pending_seed", self.num_envs, np.dtype(np.int64), limits)
        self.mazes.set_state(state)
        self._seeds = [None if seed == _NO_SEED else seed for seed in seeds.tolist()]
        self._actions = None

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One picture per maze, uint8 ``[height, width, 3]``."""
        return render_mazes(self.mazes, "rgb_array") or ()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the chosen mazes.

        The state arrays of :class:`Mazes` (``cell``, ``goal``, ``time``, ``goal_visits``, ...) give each
        maze's own entry; attributes of this object or of its rules are the same for all.
        """
        rows = self._get_indices(indices)
        if attr_name in Mazes.STATE:
            return [getattr(self.mazes, attr_name)[row].item() for row in rows]
        owner = self.mazes.rules if hasattr(self.mazes.rules, attr_name) else self
        return [getattr(owner, attr_name) for _ in rows]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refuse: use :meth:`set_state` for the state; the rules of a batch are fixed.

        Raises:
            AttributeError: always.
        """
        raise AttributeError(
            f"cannot set {attr_name!r}: use set_state(), or make a new MazeVecEnv with other rules."
        )

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method for the chosen mazes; only ``render`` exists for a single maze.

        Raises:
            AttributeError: another method is asked for.
        """
        if method_name != "render":
            raise AttributeError(f"a maze of a MazeVecEnv has the method 'render' only, not {method_name!r}.")
        frames = render_mazes(self.mazes, self.render_mode) or (None,) * self.num_envs
        return [frames[row] for row in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        """True for ``Monitor``, whose episode info these mazes give themselves, and False for the rest."""
        return [wrapper_class is Monitor for _ in self._get_indices(indices)]

    def _restart(self, rows: NDArray[np.intp], infos: list[dict[str, Any]]) -> None:
        """Begin the next episodes and write into the infos how the ended ones finished."""
        mazes = self.mazes
        last = mazes.observations()
        seconds = round(time.time() - self._created, 6)
        positions = mazes.rules.layout.positions[mazes.goal]
        for row in rows.tolist():
            length = int(mazes.time[row])
            infos[row] = {
                "terminal_observation": last[row],
                "TimeLimit.truncated": True,
                "episode": {"r": float(mazes.episode_return[row]), "l": length, "t": seconds},
                "goal_visits": int(mazes.goal_visits[row]),
                "goal_position": positions[row],
            }
        mazes.begin_episodes(rows)

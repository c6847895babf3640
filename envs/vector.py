"""N mazes at once behind Gymnasium's vector interface.

Dimensions: ``N`` mazes, ``O`` observation size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from mnm_rl.envs.rules import MazeRules, Mazes, Relocation, as_array
from mnm_rl.envs.streams import checked_seed

RENDER_MODES = ("rgb_array", "ansi")


def check_render_mode(render_mode: str | None, allowed: Sequence[str]) -> None:
    """Raise a ValueError that lists the allowed modes unless ``render_mode`` is one of them or None."""
    if render_mode is not None and render_mode not in allowed:
        raise ValueError(f"render_mode must be one of {', '.join(allowed)} or None, got {render_mode!r}.")


def check_options(options: object) -> None:
    """Raise a TypeError unless the options of a reset are a dictionary or None."""
    if options is not None and not isinstance(options, Mapping):
        raise TypeError(f"options must be a dictionary of options or None, got {options!r}.")


def render_mazes(mazes: Mazes, render_mode: str | None) -> tuple[Any, ...] | None:
    """One picture (uint8 ``[height, width, 3]``) or text per maze, or None without a render mode."""
    if render_mode is None:
        return None
    from mnm_rl.envs.rendering import render_frame, render_text

    draw = render_frame if render_mode == "rgb_array" else render_text
    pairs = zip(mazes.cell.tolist(), mazes.goal.tolist(), strict=True)
    return tuple(draw(mazes.rules.layout, cell, goal) for cell, goal in pairs)


def with_episode_length(spec: EnvSpec | None, steps: int) -> EnvSpec | None:
    """Say in Gymnasium's description how long an episode is; it is given no time limit of its own."""
    return None if spec is None else dataclasses.replace(spec, max_episode_steps=steps)


class MazeVectorEnv(VectorEnv[NDArray[np.float32], NDArray[np.integer], NDArray[Any]]):
    """N mazes with the rules of :class:`MazeEnv`, stepped together by numpy.

    ``gymnasium.make_vec("MNMMaze-9x9-v0", num_envs=N)`` makes one. Maze i of a batch that was reset with seed
    s plays exactly like a :class:`MazeEnv` that was reset with seed s + i.

    What follows the end of an episode is Gymnasium's ``autoreset_mode``:

    | mode       | what happens                                                                              |
    |------------|-------------------------------------------------------------------------------------------|
    | "NextStep" | the next step ignores the maze's action, returns its first observation and a reward of 0  |
    | "SameStep" | the step that ends an episode returns the first observation of the next one; the last one |
    |            | is in ``info["final_obs"]``, the info in ``info["final_info"]``                           |
    | "Disabled" | nothing: call ``reset(options={"reset_mask": ended})`` before the next step               |

    The info holds the ``goal_visits`` and ``goal_position`` of the episodes that have just ended, in
    Gymnasium's form, and is empty on all other steps.

    Args:
        num_envs: N.
        max_episode_steps: truncate episodes after so many steps, if that is before the horizon; the clock
            that the agent sees still runs up to the horizon, as under Gymnasium's ``TimeLimit``.
        autoreset_mode: see the table; the metadata says which one it is.
        render_mode: None, "rgb_array" or "ansi": ``render()`` returns one picture or text per maze.
        size, horizon, goal_reward, wall_reward, previous_action, relocation: as in :class:`MazeEnv`.

    Raises:
        ValueError: an argument is not allowed; the message says what is.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - declared as an instance variable by Gymnasium
        "render_modes": list(RENDER_MODES),
        "render_fps": 10,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }
    _spec: EnvSpec | None = None

    def __init__(
        self,
        num_envs: int = 1,
        *,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
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
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.max_episode_steps = _episode_steps(rules, max_episode_steps)
        self.mazes = Mazes(rules, num_envs)
        self._over = np.zeros(self.mazes.num_mazes, dtype=bool)
        self.num_envs = self.mazes.num_mazes
        self.render_mode = render_mode
        self.single_observation_space = rules.observation_space
        self.single_action_space = rules.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    @property
    def spec(self) -> EnvSpec | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Gymnasium's description, with the length of an episode."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = with_episode_length(spec, self.max_episode_steps)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start a new episode in every maze.

        Args:
            seed: None to go on with the random streams as they are, s for the seeds s, s + 1, ..., or a
                sequence with one seed or None per maze.
            options: with ``{"reset_mask": mask}``, bool ``[N]``, only the mazes where the mask is True.

        Returns:
            the observations, float32 ``[N, O]``, and an empty info.

        Raises:
            ValueError: a seed is not a whole number of at least 0, there is not one per maze, or the mask is
                not one of these mazes.
            TypeError: the options are no dictionary.
        """
        rows, seeds = self._rows_to_reset(options), self._seeds(seed)
        super().reset(seed=checked_seed(seed) if isinstance(seed, Integral) else None)
        if seeds is not None:
            chosen = set(rows.tolist())
            self.mazes.seed([value if row in chosen else None for row, value in enumerate(seeds)])
        self.mazes.begin_episodes(rows)
        self._over[rows] = False
        return self.mazes.observations(), {}

    def step(
        self, actions: NDArray[np.integer]
    ) -> tuple[
        NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """Take one action, 0 to 3, in every maze.

        Args:
            actions: whole numbers, shape ``[N]``.

        Returns:
            observations float32 ``[N, O]``, rewards float64 ``[N]``, terminated bool ``[N]`` (always False),
            truncated bool ``[N]`` (True at the end of an episode), and the info.

        Raises:
            ValueError: the actions have another shape or type, or one is out of range.
            gymnasium.error.ResetNeeded: a maze has not begun an episode.
        """
        restarted = np.flatnonzero(self._over)
        rewards = self._step_and_restart(actions, restarted) if restarted.size else self.mazes.step(actions)
        truncated = self.mazes.time >= self.max_episode_steps
        info = self._finish(truncated) if np.count_nonzero(truncated) else {}
        return self.mazes.observations(), rewards, np.zeros(self.num_envs, dtype=bool), truncated, info

    def render(self) -> tuple[Any, ...] | None:
        """One picture or text per maze, see ``render_mode``."""
        return render_mazes(self.mazes, self.render_mode)

    def _rows_to_reset(self, options: dict[str, Any] | None) -> NDArray[np.intp]:
        check_options(options)
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return np.arange(self.num_envs)
        mask = as_array(mask)
        if mask.dtype != np.bool_ or mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"reset_mask must be a bool array of shape ({self.num_envs},) with a True in it."
            )
        return np.flatnonzero(mask)

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None] | None:
        """One for each maze."""
        if seed is None:
            return None
        if isinstance(seed, Sequence | np.ndarray) and not isinstance(seed, str | bytes):
            return [None if each is None else checked_seed(each) for each in seed]
        first = checked_seed(seed)
        return [first + row for row in range(self.num_envs)]

    def _step_and_restart(self, actions: NDArray[np.integer], rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """A step of the mazes whose episode goes on; in the other rows the next episode begins."""
        if self.autoreset_mode == AutoresetMode.DISABLED:
            raise gymnasium.error.ResetNeeded(
                f"the episodes of the mazes {rows.tolist()} are over: call reset() with a reset_mask."
            )
        # The step of those rows must not draw from their random streams.
        streams = self.mazes.stream[rows]
        rewards = self.mazes.step(actions)
        self.mazes.stream[rows] = streams
        self.mazes.begin_episodes(rows)
        rewards[rows] = 0.0
        self._over[rows] = False
        return rewards

    def _finish(self, ended: NDArray[np.bool_]) -> dict[str, Any]:
        """Say in Gymnasium's form how the ended episodes finished, and begin the next ones in SAME_STEP."""
        positions = self.mazes.rules.layout.positions[self.mazes.goal]
        info: dict[str, Any] = {
            "goal_visits": np.where(ended, self.mazes.goal_visits, 0),
            "_goal_visits": ended.copy(),
            "goal_position": np.where(ended[:, None], positions, 0),
            "_goal_position": ended.copy(),
        }
        if self.autoreset_mode != AutoresetMode.SAME_STEP:
            self._over = ended.copy()
            return info
        last = self.mazes.observations()
        final_obs = np.full(self.num_envs, None, dtype=object)
        rows = np.flatnonzero(ended)
        for row in rows:
            final_obs[row] = last[row]
        self.mazes.begin_episodes(rows)
        return {
            "final_obs": final_obs,
            "_final_obs": ended.copy(),
            "final_info": info,
            "_final_info": ended.copy(),
        }


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        allowed = ", ".join(each.value for each in AutoresetMode)
        raise ValueError(f"autoreset_mode must be one of {allowed}, got {mode!r}.") from error


def _episode_steps(rules: MazeRules, limit: int | None) -> int:
    if limit is None:
        return int(rules.horizon)
    if isinstance(limit, bool) or not isinstance(limit, Integral) or limit < 1:
        raise ValueError(f"max_episode_steps must be a whole number of at least 1, got {limit!r}.")
    return min(int(limit), int(rules.horizon))

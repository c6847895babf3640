"""N mazes at once behind Gymnasium's vector interface.

N mazes, O observation size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from mnm_rl.envs.rules import MazeRules, Mazes, Relocation

RENDER_MODES = ("rgb_array", "ansi")


def check_render_mode(render_mode: str | None, allowed: Sequence[str]) -> None:
    """Raise a ValueError that lists the allowed render modes unless `render_mode` is one of them or None."""
    if render_mode is not None and render_mode not in allowed:
        raise ValueError(f"render_mode must be one of {', '.join(allowed)} or None, got {render_mode!r}.")


def render_mazes(mazes: Mazes, render_mode: str | None) -> tuple[Any, ...] | None:
    """Return one picture (uint8 [height, width, 3]) or text per maze, or None without a render mode."""
    if render_mode is None:
        return None
    from mnm_rl.envs.rendering import render_frame, render_text

    draw = render_frame if render_mode == "rgb_array" else render_text
    pairs = zip(mazes.cell.tolist(), mazes.goal.tolist(), strict=True)
    return tuple(draw(mazes.rules.layout, cell, goal) for cell, goal in pairs)


class MazeVectorEnv(VectorEnv[NDArray[np.float32], NDArray[np.integer], NDArray[Any]]):
    """N mazes with the rules of `MazeEnv`, stepped together by numpy.

    `gymnasium.make_vec("MNMMaze-9x9", num_envs=N)` makes one. Maze i of a batch that was reset with seed s
    plays exactly like a `MazeEnv` that was reset with seed s + i.

    Episodes restart within the step that ends them (`AutoresetMode.SAME_STEP`): the observation returned is
    the first of the next episode, the last one is in `info["final_obs"]`, and `info["final_info"]` holds the
    `goal_visits` and `goal_position` of the finished episodes. On all other steps the info is empty.

    Args:
        num_envs: N.
        render_mode: None, "rgb_array" or "ansi": `render()` returns one picture or text per maze.
        size, horizon, goal_reward, wall_reward, previous_action, relocation: As in `MazeEnv`.

    Raises:
        ValueError: An argument is not allowed; the message says what is.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - declared as an instance variable by Gymnasium
        "render_modes": list(RENDER_MODES),
        "render_fps": 10,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
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
        self.num_envs = self.mazes.num_mazes
        self.render_mode = render_mode
        self.single_observation_space = rules.observation_space
        self.single_action_space = rules.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

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
            options: With `{"reset_mask": mask}`, bool [N], only the mazes where the mask is True.

        Returns:
            The observations, float32 [N, O], and an empty info.
        """
        super().reset(seed=seed if isinstance(seed, int) else None)
        rows = self._rows_to_reset(options)
        if seed is not None:
            seeds = [seed + row for row in range(self.num_envs)] if isinstance(seed, int) else list(seed)
            chosen = set(rows.tolist())
            self.mazes.seed([value if row in chosen else None for row, value in enumerate(seeds)])
        self.mazes.begin_episodes(rows)
        return self.mazes.observations(), {}

    def step(
        self, actions: NDArray[np.integer]
    ) -> tuple[
        NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]
    ]:
        """Take one action, 0 to 3, in every maze.

        Args:
            actions: Whole numbers, shape [N].

        Returns:
            Observations float32 [N, O], rewards float64 [N], terminated bool [N] (always False), truncated
            bool [N] (True at the horizon), and the info.
        """
        rewards = self.mazes.step(actions)
        truncated = self.mazes.ended
        info = self._restart(truncated) if np.count_nonzero(truncated) else {}
        return self.mazes.observations(), rewards, np.zeros(self.num_envs, dtype=bool), truncated, info

    def render(self) -> tuple[Any, ...] | None:
        """Return one picture or text per maze, see `render_mode`."""
        return render_mazes(self.mazes, self.render_mode)

    def _rows_to_reset(self, options: dict[str, Any] | None) -> NDArray[np.intp]:
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return np.arange(self.num_envs)
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"reset_mask must be a bool array of shape ({self.num_envs},) with a True in it."
            )
        return np.flatnonzero(mask)

    def _restart(self, ended: NDArray[np.bool_]) -> dict[str, Any]:
        """Begin the next episode where one ended, and say in Gymnasium's form how the ended ones finished."""
        rows = np.flatnonzero(ended)
        last = self.mazes.observations()
        final_obs = np.full(self.num_envs, None, dtype=object)
        for row in rows:
            final_obs[row] = last[row]
        positions = self.mazes.rules.layout.positions[self.mazes.goal]
        final_info = {
            "goal_visits": np.where(ended, self.mazes.goal_visits, 0),
            "_goal_visits": ended.copy(),
            "goal_position": np.where(ended[:, None], positions, 0),
            "_goal_position": ended.copy(),
        }
        self.mazes.begin_episodes(rows)
        return {
            "final_obs": final_obs,
            "_final_obs": ended.copy(),
            "final_info": final_info,
            "_final_info": ended.copy(),
        }

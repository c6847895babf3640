"""How good an agent is, and what an episode of it looks like."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from mnm_rl.agents.a2c import RecurrentA2C
from mnm_rl.envs import MazeVecEnv, render_frame
from mnm_rl.envs.phases import Phases, episode_phases

TRAIL = 25
"""Steps of the agent's path that a frame of the maze shows."""
TILE_SIZE = 24
"""Pixels per cell of the maze."""
MAX_FRAMES = 1000
PICTURE_TILE_SIZE = 40
PALETTE_FRAMES = 8
"""Frames of an animation that its colours are chosen from."""


class Score(NamedTuple):
    """Mean return of an episode."""

    mean: float
    confidence: float
    """Half the width of the 95% confidence interval."""
    episodes: int
    phases: Phases | None
    """The maze only: its search for the goal, and its returns to it."""


def evaluate_agent(agent: RecurrentA2C, env: VecEnv, episodes: int, deterministic: bool) -> Score:
    """Play whole episodes; each environment plays its share, so that short episodes do not count more.

    Args:
        agent: what plays.
        env: where, newly seeded.
        episodes: how many.
        deterministic: most likely actions instead of drawn ones.
    """
    rewards: list[list[float]] = [[] for _ in range(env.num_envs)]

    def remember(variables: dict[str, Any], _: object) -> None:
        rewards[variables["i"]].append(variables["reward"])

    is_maze = isinstance(env, MazeVecEnv)
    returns, _ = evaluate_policy(
        agent,  # pyright: ignore[reportArgumentType]
        env,
        n_eval_episodes=episodes,
        deterministic=deterministic,
        return_episode_rewards=True,
        callback=remember if is_maze else None,
    )
    numbers = np.asarray(returns, dtype=np.float64)
    spread = numbers.std(ddof=1) if len(numbers) > 1 else np.nan
    phases = None
    if is_maze:
        # All episodes have the same length, and each environment has played whole ones.
        steps = np.concatenate(rewards).reshape(-1, env.mazes.rules.horizon)
        phases = episode_phases(steps.T)
    return Score(float(numbers.mean()), float(1.96 * spread / len(numbers) ** 0.5), len(numbers), phases)


def film_episode(agent: RecurrentA2C, env: VecEnv, deterministic: bool = False) -> list[NDArray[np.uint8]]:
    """Pictures of one episode in an environment with a single copy.

    Raises:
        ValueError: the environment cannot be drawn.
    """
    observation: Any = env.reset()
    state, starts = None, np.ones(1, dtype=bool)
    path, frames = [], []
    while not (frames and starts[0]) and len(frames) < MAX_FRAMES:
        frames.append(_frame(env, path))
        actions, state = agent.predict(observation, state, starts, deterministic)
        observation, _, starts, _ = env.step(actions)
    return frames


def draw_maze_episode(agent: RecurrentA2C, env: MazeVecEnv, steps: int) -> NDArray[np.uint8]:
    """The maze with the whole path of an episode's first steps, in an environment with a single copy."""
    observation: Any = env.reset()
    state, starts, path = None, np.ones(1, dtype=bool), [int(env.mazes.cell[0])]
    goal = int(env.mazes.goal[0])
    while len(path) <= steps and (len(path) == 1 or not starts[0]):
        actions, state = agent.predict(observation, state, starts)
        observation, _, starts, _ = env.step(actions)
        path.append(int(env.mazes.cell[0]))
    return render_frame(env.mazes.rules.layout, path[-1], goal, path, tile_size=PICTURE_TILE_SIZE)


def save_animation(frames: list[NDArray[np.uint8]], path: Path, frames_per_second: float) -> None:
    """Write frames as a GIF that repeats for ever."""
    # One palette for all: only then what stands still is the same from frame to frame, and costs nothing.
    samples = np.concatenate(frames[:: max(1, len(frames) // PALETTE_FRAMES)])
    # The octree keeps colours that only thin lines have.
    palette = Image.fromarray(samples).quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    pictures = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames
    ]
    pictures[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / frames_per_second),
        loop=0,
        optimize=True,
    )


def _frame(env: VecEnv, path: list[int]) -> NDArray[np.uint8]:
    if isinstance(env, MazeVecEnv):
        mazes = env.mazes
        path.append(int(mazes.cell[0]))
        return render_frame(
            mazes.rules.layout, path[-1], int(mazes.goal[0]), path[-TRAIL:], tile_size=TILE_SIZE
        )
    frame = env.render("rgb_array")
    if not isinstance(frame, np.ndarray):
        raise ValueError("The environment gives no pictures (rgb_array).")
    return frame.astype(np.uint8)

"""What an episode looks like: an animation of any environment with pictures, a drawing of the maze's path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from stable_baselines3.common.vec_env import VecEnv

from mnm_rl.agents.masks import MaskedPlayer
from mnm_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from mnm_rl.envs import MazeVecEnv, render_frame
from mnm_rl.files import atomic_write

TRAIL = 25
"""Steps of the agent's path that a frame of the maze shows."""
TILE_SIZE = 24
"""Pixels per cell of the maze."""
MAX_FRAMES = 1000
PICTURE_TILE_SIZE = 40
PALETTE_FRAMES = 8
"""Frames of an animation that its colours are chosen from."""


def check_filmable(env: VecEnv) -> None:
    """Make sure that an environment with a single copy can be drawn.

    Raises:
        ValueError: it cannot.
    """
    env.reset()
    _frame(env, [])


def film_episode(
    agent: RecurrentOnPolicyAlgorithm, env: VecEnv, deterministic: bool = False
) -> list[NDArray[np.uint8]]:
    """Pictures of one episode in an environment with a single copy.

    Raises:
        ValueError: the environment cannot be drawn.
    """
    env = agent.normalize_env(env)
    player = MaskedPlayer(agent, env)
    observation: Any = env.reset()
    state, starts = None, np.ones(1, dtype=bool)
    path, frames = [], []
    while not (frames and starts[0]) and len(frames) < MAX_FRAMES:
        frames.append(_frame(env, path))
        actions, state = player.predict(observation, state, starts, deterministic)
        observation, _, starts, _ = env.step(actions)
    return frames


def draw_maze_episode(agent: RecurrentOnPolicyAlgorithm, env: MazeVecEnv, steps: int) -> NDArray[np.uint8]:
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
    with atomic_write(path) as temporary:
        pictures[0].save(
            temporary,
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

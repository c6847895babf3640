"""Steps per second of the maze, next to MiniGrid's own step on the same grid.

    OMP_NUM_THREADS=1 python benchmarks/environment.py

Every number includes the observation, goal hits and the restart of episodes. Actions are uniformly random.
Each way is measured several times in turn with the others, and the best of its times counts, so that other
work on the machine falls on all of them alike.
"""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import tyro
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Goal, Wall
from minigrid.minigrid_env import MiniGridEnv
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import mnm_rl  # noqa: F401 - registers the mazes
from mnm_rl.envs import MazeRules, MazeVecEnv


@dataclass(frozen=True)
class Args:
    """Settings of the benchmark."""

    batch_sizes: tuple[int, ...] = (16, 64, 256, 1024)
    """Numbers of mazes stepped together."""
    size: int = 9
    """Interior size of the maze."""
    repeats: int = 5
    """How often each way is measured; the best counts."""
    seconds: float = 0.5
    """About how long one measurement takes."""


class MiniGridMaze(MiniGridEnv):
    """The walls of the maze under MiniGrid's own rules, actions and observations."""

    def __init__(self, size: int, horizon: int) -> None:
        self.walls = MazeRules(size=size).layout.walls
        mission = MissionSpace(mission_func=lambda: "find the goal")
        super().__init__(mission, grid_size=size + 2, max_steps=horizon, agent_view_size=3)

    def _gen_grid(self, width: int, height: int) -> None:
        self.grid = Grid(width, height)
        for row, column in np.argwhere(self.walls).tolist():
            self.grid.set(column, row, Wall())
        self.agent_pos, self.agent_dir = (width // 2, height // 2), 0
        self.place_obj(Goal("yellow"))
        self.mission = "find the goal"


def play_single(env: gymnasium.Env, steps: int) -> None:
    """Take random steps in one environment."""
    actions = np.random.default_rng(0).integers(0, 4, steps).tolist()
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()


def play_batch(step: Callable[[NDArray[np.intp]], Any], num_envs: int, steps: int) -> None:
    """Take random steps in a batch whose episodes restart by themselves."""
    for actions in np.random.default_rng(0).integers(0, 4, (max(1, steps // num_envs), num_envs)):
        step(actions)


def ways(args: Args) -> dict[str, Callable[[int], None]]:
    """Return what is measured: a name, and how to take about so many steps."""
    env_id, horizon = f"MNMMaze-{args.size}x{args.size}", MazeRules().horizon
    minigrid, made = MiniGridMaze(args.size, horizon), gymnasium.make(env_id)
    for env in (minigrid, made):
        env.reset(seed=0)
    found: dict[str, Callable[[int], None]] = {
        "MiniGrid's own step": lambda steps: play_single(minigrid, steps),
        "MazeEnv (gymnasium.make, with its checks)": lambda steps: play_single(made, steps),
        "MazeEnv": lambda steps: play_single(made.unwrapped, steps),
    }
    for count in args.batch_sizes:
        vector, sb3 = gymnasium.make_vec(env_id, num_envs=count), MazeVecEnv(count, size=args.size)
        vector.reset(seed=0)
        sb3.reset()
        found[f"MazeVectorEnv (gymnasium.make_vec), {count}"] = _batch(vector.step, count)
        found[f"MazeVecEnv (Stable-Baselines3), {count}"] = _batch(sb3.step, count)
    return found


def _batch(step: Callable[[NDArray[np.intp]], Any], count: int) -> Callable[[int], None]:
    return lambda steps: play_batch(step, count, steps)


def measure(args: Args) -> dict[str, float]:
    """Return the steps per second of every way."""
    todo = ways(args)
    steps = {name: 2000 for name in todo}
    best = dict.fromkeys(todo, 0.0)
    for _ in range(args.repeats + 1):  # the first round warms up and finds out how many steps to take
        for name, play in todo.items():
            started = time.perf_counter()
            play(steps[name])
            rate = steps[name] / (time.perf_counter() - started)
            best[name] = max(best[name], rate)
            steps[name] = int(rate * args.seconds) + 2000
    return best


def main(args: Args) -> None:
    """Measure and print a table."""
    warnings.filterwarnings("ignore", category=UserWarning, module="gymnasium")
    rates = measure(args)
    peer = rates["MiniGrid's own step"]
    table = Table(title=f"MNMMaze-{args.size}x{args.size}, one process, {platform.processor() or 'CPU'}")
    table.add_column("environment")
    table.add_column("steps/s", justify="right")
    table.add_column("times MiniGrid", justify="right")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:,.0f}", f"{rate / peer:,.1f}")
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Args))

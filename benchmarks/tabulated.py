"""Steps per second of MiniGrid-Memory, and of its table.

    OMP_NUM_THREADS=1 python benchmarks/tabulated.py

Every number is for environments of one process stepped together, as an agent is given them: with the
symbolic observation and the restart of episodes, at uniformly random actions. Each way is measured several
times in turn with the other, and the best of its times counts.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass

import numpy as np
import tyro
from gymnasium.spaces import Discrete
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.vec_env import VecEnv

from mnm_rl.training.rl.environments import EnvConfig, make_env


@dataclass(frozen=True)
class Args:
    """Settings of the benchmark."""

    n_envs: int = 16
    """Environments stepped together."""
    repeats: int = 5
    """How often each way is measured; the best counts."""
    seconds: float = 0.5
    """About how long one measurement takes."""
    env: str = "MiniGrid-MemoryS7-v0"
    """An environment of MiniGrid-Memory."""


def play(env: VecEnv, steps: int) -> None:
    """Take random steps in all environments."""
    count, space = env.num_envs, env.action_space
    assert isinstance(space, Discrete)
    for actions in np.random.default_rng(0).integers(0, space.n, (max(1, steps // count), count)):
        env.step(actions)


def measure(args: Args, envs: list[VecEnv]) -> list[float]:
    """Steps per second of each."""
    steps, best = [2000] * len(envs), [0.0] * len(envs)
    for env in envs:
        env.reset()
    for _ in range(args.repeats + 1):  # the first round warms up and finds out how many steps to take
        for number, env in enumerate(envs):
            started = time.perf_counter()
            play(env, steps[number])
            rate = steps[number] / (time.perf_counter() - started)
            best[number] = max(best[number], rate)
            steps[number] = int(rate * args.seconds) + args.n_envs
    return best


def main(args: Args) -> None:
    """Measure and print a table."""
    warnings.filterwarnings("ignore", category=UserWarning, module="gymnasium")
    real, tables = EnvConfig(env=args.env), EnvConfig(env=args.env, tabulated=True)
    rates = measure(args, [make_env(real, args.n_envs), make_env(tables, args.n_envs)])
    table = Table(title=f"{args.env}, {args.n_envs} environments of one process")
    table.add_column("way")
    table.add_column("steps/s", justify="right")
    table.add_column("times MiniGrid", justify="right")
    for way, rate in zip(("MiniGrid's own step", "from tables"), rates, strict=True):
        table.add_row(way, f"{rate:,.0f}", f"{rate / rates[0]:,.1f}")
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Args))

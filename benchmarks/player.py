"""Time of one step of a `Player`: from an agent, and from the same agent's ONNX file without torch.

    OMP_NUM_THREADS=1 python benchmarks/player.py
    OMP_NUM_THREADS=1 python benchmarks/player.py --models maze-highest --environments 1 256

The agents are models of the package. Observations are drawn beforehand; no environment is stepped. Both take
turns, round by round, so that what else runs on the machine hits both; the best round counts, in processor
time of this process.

Dimensions: ``B`` environments.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from mnm_rl.player import Player
from mnm_rl.pretrained import load_agent
from mnm_rl.text_tables import Row, format_table
from mnm_rl.training.command_line import one_sentence_errors


@dataclass(frozen=True)
class Args:
    """What to time."""

    models: tuple[str, ...] = ("maze-highest", "maze-highest-lstm", "cartpole-novel")
    """Names of models, or their folders."""
    environments: tuple[int, ...] = (1, 16)
    """Numbers of environments that are played at once."""
    steps: int = 200
    """Of a round."""
    rounds: int = 5
    """The best of them counts."""


def main(args: Args) -> None:
    """Measure, and print a table."""
    for name, value in (
        ("steps", args.steps),
        ("rounds", args.rounds),
        *(("environments", b) for b in args.environments),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    torch.set_num_threads(1)
    rows: list[Row] = [("model", "B", "agent, us a step", "ONNX, us a step", "agent / ONNX")]
    for model in args.models:
        agent = load_agent(model)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "agent.onnx"
            agent.export(path)
            players = [Player.from_agent(agent), Player.from_onnx(path)]
        for count in args.environments:
            best = [1e6 * seconds for seconds in seconds_a_step(players, count, args)]
            told = (f"{best[0]:,.0f}", f"{best[1]:,.0f}", f"{best[0] / best[1]:.2f}")
            rows.append((model, str(count), *told))
    print(format_table(rows))


def seconds_a_step(players: list[Player], count: int, args: Args) -> list[float]:
    """Of each player, in its best round."""
    space = players[0].observation_space
    space.seed(0)
    observations = [np.stack([space.sample() for _ in range(count)]) for _ in range(args.steps)]
    best = [float("inf")] * len(players)
    for _ in range(args.rounds):
        for index, player in enumerate(players):
            player.reset()
            begun = time.process_time()
            for observation in observations:
                player.step(observation)
            best[index] = min(best[index], (time.process_time() - begun) / args.steps)
    return best


if __name__ == "__main__":
    with one_sentence_errors("player.py"):
        main(tyro.cli(Args, description=__doc__))

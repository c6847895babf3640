"""Compare the normalisations of the memory's write rules on dictionary inference.

    python benchmarks/write_normalization.py --instance 2 --iterations 800

Prints the mean symbol error over the last iterations of every window, one column per normalisation, and how
many updates were skipped because the loss or its gradient was not finite.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import tyro
from torch import nn

from mnm_rl import make_core
from mnm_rl.tasks.dictionary import INSTANCES, DictionaryTask
from mnm_rl.updates import GuardedOptimizer, NonFiniteError


@dataclass(frozen=True)
class Args:
    """Settings of the comparison."""

    cores: tuple[Literal["mnm-p", "mnm-g"], ...] = ("mnm-p", "mnm-g")
    """Write rules to compare."""
    normalizations: tuple[Literal["squared-norm", "width", "none"], ...] = ("squared-norm", "width", "none")
    """Normalisations to compare."""
    instance: Literal[1, 2, 3, 4] = 2
    """The paper's task instance."""
    iterations: int = 800
    """Updates of batch 32."""
    window: int = 100
    """Iterations per printed row."""
    heads: int = 1
    """H."""
    seed: int = 0
    """Seed of the parameters and of the data."""
    learning_rate: float = 1e-3
    """Of Adam."""


class Model(nn.Module):
    """Embedding, core and output layer, with the paper's sizes for the algorithmic tasks."""

    def __init__(self, core: str, symbols: int, heads: int, normalization: str):
        super().__init__()
        self.embedding = nn.Embedding(symbols, 100)
        self.core = make_core(core, 100, hidden_size=100, heads=heads, normalization=normalization)
        self.head = nn.Linear(self.core.output_size, symbols)

    def forward(self, symbols: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits ``[T, B, C]`` and the mean meta loss."""
        output = self.core(self.embedding(symbols))
        return self.head(output.outputs), output.meta_loss.mean()


def train(args: Args, core: str, normalization: str) -> Iterator[tuple[int, float, float, int]]:
    """Yield iteration, mean symbol error, mean meta loss and skipped updates for every window."""
    torch.manual_seed(args.seed)
    task = DictionaryTask(*INSTANCES[args.instance])
    model = Model(core, task.output_size, args.heads, normalization)
    optimizer = GuardedOptimizer(
        torch.optim.Adam(model.parameters(), args.learning_rate), model.parameters(), max_norm=10
    )
    errors, metas = [], []
    for iteration in range(1, args.iterations + 1):
        batch = task.training_batch(iteration - 1, 32, args.seed)
        logits, meta_loss = model(batch.inputs)
        optimizer.step(task.loss(logits, batch) / batch.asked.sum() + meta_loss, f"iteration {iteration}")
        errors.append(task.count_errors(logits, batch).symbol_error)
        metas.append(meta_loss.item())
        if iteration % args.window == 0:
            yield iteration, _mean(errors), _mean(metas), optimizer.skipped
            errors, metas = [], []


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def main(args: Args) -> None:
    """Train every combination and print its curve."""
    torch.set_num_threads(1)
    for core in args.cores:
        for normalization in args.normalizations:
            print(
                f"{core}, {normalization}, instance {args.instance}, H={args.heads}, seed {args.seed}",
                flush=True,
            )
            start = time.perf_counter()
            try:
                for iteration, error, meta, skipped in train(args, core, normalization):
                    seconds = time.perf_counter() - start
                    print(
                        f"  {iteration:5d}  symbol error {error:7.2%}  meta loss {meta:.4f}  "
                        f"skipped {skipped}  {seconds:.0f} s",
                        flush=True,
                    )
            except NonFiniteError as error:
                print(f"  ended: {error}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))

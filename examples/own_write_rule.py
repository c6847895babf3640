"""A write rule of your own: a subclass that overrides `write`, and it is really run.

    python examples/own_write_rule.py

The rule writes by surprise: what the memory knows already is not written again. It takes the local rule of
MNM-p (Munkhdalai et al. 2019, Eq. 4) and multiplies its rate by how far the value recalled at the write key
is from the value to be written. No fast kernel knows this rule, so `kernel="auto"` takes the plain loop.

Dimensions: ``B`` batch, ``H`` heads, ``L`` memory layers of widths ``D_l``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mnm_rl import make_core, register_core
from mnm_rl.cores.mnm import Interaction, MNMCore
from mnm_rl.memory import recall
from mnm_rl.training.supervised.config import SupervisedConfig
from mnm_rl.training.supervised.trainer import SupervisedTrainer, evaluate


class SurpriseCore(MNMCore):
    """MNM-p with rates ``beta * tanh(|f(k^w) - v^w|)``."""

    def write(self, weights: Sequence[Tensor], vectors: Interaction) -> list[Tensor]:
        """The memory's layers ``[B, D_l, D_{l-1}]`` after the write."""
        known = recall(weights, vectors.write_keys, self.config.output_activation)
        surprise = torch.tanh((known - vectors.write_values).norm(dim=2).mean(1, keepdim=True))
        return super().write(weights, vectors._replace(rates=vectors.rates * surprise))


def main() -> None:
    """Train on double copy, and print the errors before and after."""
    torch.set_num_threads(1)
    register_core("mnm-p-surprise", SurpriseCore, write_rule="local")
    small = {"hidden_size": 32, "key_size": 16, "value_size": 16, "memory_widths": (16,)}
    try:
        make_core("mnm-p-surprise", 4, kernel="torch", **small)(torch.zeros(2, 1, 4))
    except ValueError as refused:
        print(f"A kernel asked for by name refuses: {refused}")
    config = SupervisedConfig(task="double-copy", task_options={"length": 2}, core="mnm-p-surprise")
    config = replace(config, core_settings=small, embedding_size=32, learning_rate=0.01)
    trainer = SupervisedTrainer(config, config.make_task(), None)
    print(f"before: {evaluate(trainer.model, trainer.task, 'test').symbol_error:.1%} of the symbols wrong")
    for number in range(1, 301):
        batch = trainer.task.training_batch(number, 32, seed=0)
        trainer.optimizer.step(trainer.loss(batch)[0], f"update {number}")
    print(f"after 300 updates: {evaluate(trainer.model, trainer.task, 'test').symbol_error:.1%}")


if __name__ == "__main__":
    main()

"""A task of your own: options and a source of batches, trained like any other.

    python examples/own_task.py

Letters come one after the other, one of them in capitals; after the last, "?" asks which.
Command lines take it by its options, in the folder of this file, whose fields are options there:

    mnm-rl train-supervised --task own_task:CapitalOptions --length 30 --core mnm-p

``T`` steps, ``B`` batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mnm_rl.tasks import Batch, TaskOptions
from mnm_rl.tasks.base import whole_sequences
from mnm_rl.tasks.generated import GeneratedTask
from mnm_rl.training.supervised.config import SupervisedConfig
from mnm_rl.training.supervised.trainer import SupervisedTrainer, evaluate

LETTERS = "abcdefgh"
NAMES = (*LETTERS, *LETTERS.upper(), "?")


@dataclass(frozen=True)
class CapitalTask(GeneratedTask):
    """Fresh sequences in every batch, and held-out sets that stay the same."""

    input_symbols = len(NAMES)
    output_size = len(LETTERS)
    length: int

    @property
    def symbol_names(self) -> tuple[str, ...]:
        """For pictures; without names there are numbers."""
        return NAMES

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """``T`` = length + 1 steps, the answer at the last."""
        letters = torch.randint(len(LETTERS), (self.length, batch_size), generator=generator)
        place = torch.randint(self.length, (1, batch_size), generator=generator)
        answer = letters.gather(0, place)
        letters.scatter_(0, place, answer + len(LETTERS))
        inputs = torch.cat([letters, torch.full((1, batch_size), NAMES.index("?"))])  # [T, B]
        targets = torch.cat([torch.zeros_like(letters), answer])
        return whole_sequences(inputs, targets, inputs == NAMES.index("?"))


@dataclass(frozen=True)
class CapitalOptions(TaskOptions):
    """What a run can be told of the task."""

    task_class = CapitalTask
    length: int = 10
    """Letters before the question."""

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"length must be at least 1, got {self.length}.")

    def make(self, saved: Mapping[str, Any] | None = None, evaluation: bool = False) -> CapitalTask:
        """Nothing has to be read."""
        return CapitalTask(self.length)


if __name__ == "__main__":
    torch.set_num_threads(1)
    config = SupervisedConfig(task="own_task:CapitalOptions", core="mnm-p", learning_rate=0.003)
    trainer = SupervisedTrainer(config, config.make_task(), None)
    print(f"before: {evaluate(trainer.model, trainer.task, 'test').symbol_error:.1%} of the answers wrong")
    for number in range(1, 151):
        loss, _, _ = trainer.loss(trainer.task.training_batch(number, 32, seed=0))
        trainer.optimizer.step(loss, f"update {number}")
    print(f"after 150 updates: {evaluate(trainer.model, trainer.task, 'test').symbol_error:.1%}")

"""A core of your own: one class, checked against what all cores promise, then trained like any other.

    python examples/own_core.py

The core is a minimal gated unit (Zhou et al. 2016). Command lines take it by its reference, `--core
own_core:MinimalCore` in the folder of this file, and the agents as `policy_kwargs={"core": MinimalCore}`.

``B`` batch, ``D`` hidden size.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mnm_rl import register_core
from mnm_rl.cores import CoreOutput, MemoryCore, reset_state
from mnm_rl.testing import check_core
from mnm_rl.training.supervised.config import SupervisedConfig
from mnm_rl.training.supervised.trainer import SupervisedTrainer, evaluate


@dataclass(frozen=True)
class MinimalConfig:
    """Settings of the core; they are options of the command line, `--core.hidden-size`."""

    hidden_size: int = 100  # D


class MinimalState(NamedTuple):
    """What is carried from step to step."""

    hidden: Tensor  # [B, D]


class MinimalCore(MemoryCore[MinimalState]):
    """``h' = (1 - f) h + f tanh(W [x; f h])`` with ``f = sigmoid(V [x; h])``."""

    config_class = MinimalConfig

    def __init__(self, input_size: int, config: MinimalConfig | None = None):
        super().__init__()
        self.config = config or MinimalConfig()
        self.input_size, self.output_size = input_size, self.config.hidden_size
        self.forget = nn.Linear(input_size + self.output_size, self.output_size)
        self.update = nn.Linear(input_size + self.output_size, self.output_size)

    def initial_state(self, batch_size: int) -> MinimalState:
        """Zeros."""
        return MinimalState(self.update.weight.new_zeros(batch_size, self.output_size))

    def forward(self, inputs, state=None, resets=None, *, record=False):
        """See ``MemoryCore.forward``; shapes are checked before it runs."""
        initial = self.initial_state(inputs.shape[1])
        state, outputs = state or initial, []
        for t, x in enumerate(inputs):
            h = (state if resets is None else reset_state(state, initial, resets[t])).hidden
            f = torch.sigmoid(self.forget(torch.cat([x, h], 1)))
            state = MinimalState(torch.lerp(h, torch.tanh(self.update(torch.cat([x, f * h], 1))), f))
            outputs.append(state.hidden)
        none = inputs.new_zeros(inputs.shape[:2])  # the core has no loss of its own
        return CoreOutput(torch.stack(outputs), state, none, {} if record else None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    check_core(MinimalCore, hidden_size=5)
    register_core("minimal", MinimalCore)
    copy = SupervisedConfig(
        task="double-copy", task_options={"length": 3}, core="minimal", learning_rate=0.01
    )
    trainer = SupervisedTrainer(copy, copy.make_task(), None)
    print(f"before: {evaluate(trainer.model, trainer.task, 'test').symbol_error:.1%} of symbols wrong")
    for number in range(1, 401):
        loss, _, _ = trainer.loss(trainer.task.training_batch(number, 32, seed=0))
        trainer.optimizer.step(loss, f"update {number}")
    print(f"after 400 updates: {evaluate(trainer.model, trainer.task, 'test').symbol_error:.1%}")

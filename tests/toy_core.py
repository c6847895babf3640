"""A core as somebody else would write it, in a module of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mnm_rl.cores import CoreOutput, MemoryCore, reset_state


@dataclass(frozen=True)
class ToyConfig:
    width: int = 5
    decay: float = 0.5

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}.")


class ToyState(NamedTuple):
    hidden: Tensor


class ToyCore(MemoryCore[ToyState]):
    """``h' = tanh(W x + decay * h)``, without any setting that the project's own cores have."""

    config_class = ToyConfig
    trace_names = ("hidden",)

    def __init__(self, input_size: int, config: ToyConfig | None = None):
        super().__init__()
        self.config = config or ToyConfig()
        self.input_size, self.output_size = input_size, self.config.width
        self.layer = nn.Linear(input_size, self.config.width)

    def initial_state(self, batch_size: int) -> ToyState:
        return ToyState(self.layer.weight.new_zeros(batch_size, self.output_size))

    def forward(
        self, inputs: Tensor, state: Any = None, resets: Tensor | None = None, *, record: bool = False
    ) -> CoreOutput[ToyState]:
        state = self.initial_state(inputs.shape[1]) if state is None else state
        outputs = []
        for t, x in enumerate(inputs):
            if resets is not None:
                state = reset_state(state, self.initial_state(len(x)), resets[t])
            state = self.advance(x, state)
            outputs.append(state.hidden)
        stacked = torch.stack(outputs)
        return CoreOutput(
            stacked, state, stacked.new_zeros(stacked.shape[:2]), {"hidden": stacked} if record else None
        )

    def advance(self, x: Tensor, state: ToyState) -> ToyState:
        return ToyState(torch.tanh(self.layer(x) + self.config.decay * state.hidden))


class NotACore:
    config_class = ToyConfig

"""A recurrent network whose weights have a part that changes by Oja's rule: the paper's plastic baselines.

Miconi, Clune and Stanley 2018, "Differentiable plasticity", section 2; Figure 6 of Munkhdalai et al. 2019.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size, ``D`` hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mnm_rl.cores.base import CoreOutput, MemoryCore, reset_state, steps_with_resets
from mnm_rl.cores.checks import checked_config
from mnm_rl.field_types import check_own_fields

Plasticity = Literal["full", "homogenous"]

INITIAL_SCALE = 0.01
"""w and alpha start uniform in [0, this), eta starts at this."""


@dataclass(frozen=True)
class PlasticConfig:
    """Settings of the ``plastic`` and ``plastic-homogenous`` cores."""

    plasticity: Plasticity = "full"
    """``full``: every connection learns how plastic it is; ``homogenous``: one number for all."""
    hidden_size: int = 200
    """D, width of the hidden state."""

    def __post_init__(self) -> None:
        check_own_fields(self, "hidden_size")


class PlasticState(NamedTuple):
    """What the core carries from step to step."""

    hidden: Tensor
    """h, ``[B, D]``."""
    hebb: Tensor
    """Hebbian traces, ``[B, D, D]``, from the unit of the first index to that of the second."""


class PlasticCore(MemoryCore[PlasticState]):
    """``h' = tanh(W_in x + b + h (w + alpha * hebb))``; its output is the hidden state.

    After each step Oja's rule changes the traces, with x the hidden state before and y the one after it:
    ``hebb_ij += eta y_j (x_i - hebb_ij y_j)``. W_in, b, w, alpha and eta are trained.

    Args:
        input_size: ``I``.
        config: all other settings.
    """

    config_class = PlasticConfig
    trace_names = ("write_sizes", "memory_distances")

    def __init__(self, input_size: int, config: PlasticConfig | None = None):
        super().__init__()
        self.config = checked_config(self, input_size, config, PlasticConfig)
        self.input_size = input_size
        self.output_size = size = self.config.hidden_size
        shape = (size, size) if self.config.plasticity == "full" else (1,)
        self.encoder = nn.Linear(input_size, size)
        self.w = nn.Parameter(INITIAL_SCALE * torch.rand(size, size))
        self.alpha = nn.Parameter(INITIAL_SCALE * torch.rand(shape))
        self.eta = nn.Parameter(torch.full((1,), INITIAL_SCALE))

    def initial_state(self, batch_size: int) -> PlasticState:
        """Zeros."""
        size = self.output_size
        return PlasticState(self.w.new_zeros(batch_size, size), self.w.new_zeros(batch_size, size, size))

    def forward(
        self,
        inputs: Tensor,
        state: PlasticState | None = None,
        resets: Tensor | None = None,
        *,
        record: bool = False,
    ) -> CoreOutput[PlasticState]:
        """See :meth:`MemoryCore.forward`.

        The trace has the size of each change of hebb, and of hebb, ``[T, B, 1]`` each.
        """
        initial = self.initial_state(inputs.shape[1])
        state = initial if state is None else state
        any_reset = steps_with_resets(resets, inputs.shape[0])
        outputs, sizes = [], []
        for t, encoded in enumerate(self.encoder(inputs).unbind(0)):
            if resets is not None and any_reset[t]:
                state = reset_state(state, initial, resets[t])
            old_hebb, state = state.hebb, self._advance(encoded, state)
            outputs.append(state.hidden)
            if record:
                sizes.append([torch.linalg.matrix_norm(x) for x in (state.hebb - old_hebb, state.hebb)])
        meta_loss = inputs.new_zeros(inputs.shape[:2])
        return CoreOutput(torch.stack(outputs), state, meta_loss, _stack(sizes) if record else None)

    def _advance(self, encoded: Tensor, state: PlasticState) -> PlasticState:
        """One step, from the encoded input ``[B, D]``."""
        x, hebb = state
        fixed = torch.addmm(encoded, x, self.w)
        # A scalar goes to the vector, which spares a matrix per example.
        scalar = self.config.plasticity == "homogenous"
        source, plastic = (self.alpha * x, hebb) if scalar else (x, self.alpha * hebb)
        y = torch.tanh(torch.baddbmm(fixed.unsqueeze(1), source.unsqueeze(1), plastic).squeeze(1))
        learned = self.eta * y
        kept = hebb * (1 - learned * y).unsqueeze(1)
        return PlasticState(y, torch.baddbmm(kept, x.unsqueeze(2), learned.unsqueeze(1)))


def _stack(sizes: list[list[Tensor]]) -> dict[str, Tensor]:
    columns = zip(PlasticCore.trace_names, zip(*sizes, strict=True), strict=True)
    return {name: torch.stack(column).unsqueeze(2) for name, column in columns}

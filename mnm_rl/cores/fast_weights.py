"""A recurrent network with fast weights that attend to the recent past.

Ba, Hinton, Mnih, Leibo and Ionescu 2016, "Using fast weights to attend to the recent past", section 3.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size; size ``D`` of the hidden state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mnm_rl.cores.base import CoreOutput, MemoryCore, outlasts_reset, reset_state
from mnm_rl.cores.capacity import MOST_REPEATS
from mnm_rl.cores.checks import checked_config
from mnm_rl.field_types import check_own_fields
from mnm_rl.kernels import fast_weights
from mnm_rl.kernels.fast_weights import Parameters, Settings

Kernel = Literal["auto", "reference", "attention"]
"""``attention`` keeps hidden states, ``reference`` is the plain loop and keeps matrices; ``auto`` is
``attention`` for more than one step, but for the plain loop where torch must see into each operation."""
IDENTITY = 0.05
"""W_h starts at the identity times this."""


@dataclass(frozen=True)
class FastWeightsConfig:
    """Settings of the ``fast-weights`` core."""

    hidden_size: int = 100
    """D, width of the hidden state."""
    decay: float = 0.95
    """lambda, what is left of the fast weights after a step; the paper takes 0.9 to 0.95."""
    rate: float = 0.5
    """eta, how strongly a hidden state is stored."""
    inner_steps: int = 1
    """S, how often the fast weights act on the hidden state in a step."""
    kernel: Kernel = "auto"
    """How sequences are computed; see :data:`Kernel`."""

    def __post_init__(self) -> None:
        check_own_fields(self, "hidden_size")
        if not 0 <= self.inner_steps <= MOST_REPEATS:
            raise ValueError(f"inner_steps must be from 0 to {MOST_REPEATS}, got {self.inner_steps}.")
        for name in ("decay", "rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}.")


class FastWeightsState(NamedTuple):
    """What the core carries from step to step."""

    hidden: Tensor
    """h, ``[B, D]``."""
    memory: Tensor
    """A, the fast weights, ``[B, D, D]``."""


class FastWeightsCore(MemoryCore[FastWeightsState]):
    """The hidden state meets the fast weights ``inner_steps`` times in a step; it is the output.

    See :mod:`mnm_rl.kernels.fast_weights` for the equations. The paper's A of the step is used, which has
    the hidden state before the step in it already.

    Args:
        input_size: ``I``.
        config: all other settings.
    """

    config_class = FastWeightsConfig
    quick_resets = True
    trace_names = ("write_sizes", "memory_distances")

    def __init__(self, input_size: int, config: FastWeightsConfig | None = None):
        super().__init__()
        self.config = config = checked_config(self, input_size, config, FastWeightsConfig)
        self.input_size = input_size
        self.output_size = size = config.hidden_size
        self.encoder = nn.Linear(input_size, size)
        self.weight = nn.Parameter(IDENTITY * torch.eye(size))
        self.gain = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))

    def initial_state(self, batch_size: int) -> FastWeightsState:
        """Zeros."""
        size, zeros = self.output_size, self.weight.new_zeros
        return FastWeightsState(zeros(batch_size, size), zeros(batch_size, size, size))

    def forward(
        self,
        inputs: Tensor,
        state: FastWeightsState | None = None,
        resets: Tensor | None = None,
        *,
        record: bool = False,
    ) -> CoreOutput[FastWeightsState]:
        """See :meth:`MemoryCore.forward`.

        The trace has the size of each change of A, and of A, ``[T, B, 1]`` each.
        """
        encoded, meta_loss = self.encoder(inputs), inputs.new_zeros(inputs.shape[:2])
        if record:
            state = self.initial_state(inputs.shape[1]) if state is None else state
            return self._record(encoded, state, resets)._replace(meta_loss=meta_loss)
        result = None
        if self._takes_attention(len(inputs)):
            hidden = (
                self.weight.new_zeros(inputs.shape[1], self.output_size) if state is None else state.hidden
            )
            memory = None if state is None else state.memory
            result = fast_weights.scan(encoded, hidden, memory, self._trained, self._settings, resets)
        if result is None or outlasts_reset(result.outputs, resets):
            state = self.initial_state(inputs.shape[1]) if state is None else state
            result = fast_weights.plain(encoded, *state, self._trained, self._settings, resets)
        after = FastWeightsState(result.outputs[-1], result.memory)
        return CoreOutput(result.outputs, after, meta_loss)

    def step(
        self, inputs: Tensor, state: FastWeightsState | None = None, resets: Tensor | None = None
    ) -> tuple[Tensor, FastWeightsState]:
        """See :meth:`MemoryCore.step`."""
        state = self.initial_state(len(inputs)) if state is None else state
        if resets is not None:
            state = reset_state(state, self.initial_state(len(inputs)), resets)
        after = fast_weights.plain_step(self.encoder(inputs), *state, self._trained, self._settings)
        return after[0], FastWeightsState(*after)

    @property
    def _trained(self) -> Parameters:
        return Parameters(self.weight, self.gain, self.bias)

    @property
    def _settings(self) -> Settings:
        return Settings(self.config.decay, self.config.rate, self.config.inner_steps)

    def _record(
        self, encoded: Tensor, state: FastWeightsState, resets: Tensor | None
    ) -> CoreOutput[FastWeightsState]:
        """The plain loop, and what it did."""
        outputs, sizes = [], []
        for t, entry in enumerate(encoded.unbind(0)):
            if resets is not None:
                state = reset_state(state, self.initial_state(len(entry)), resets[t])
            before = state.memory
            state = FastWeightsState(*fast_weights.plain_step(entry, *state, self._trained, self._settings))
            outputs.append(state.hidden)
            sizes.append([torch.linalg.matrix_norm(x) for x in (state.memory - before, state.memory)])
        columns = zip(self.trace_names, zip(*sizes, strict=True), strict=True)
        trace = {name: torch.stack(column).unsqueeze(2) for name, column in columns}
        return CoreOutput(torch.stack(outputs), state, encoded, trace)

    def _takes_attention(self, steps: int) -> bool:
        if self.config.kernel != "auto":
            return self.config.kernel == "attention"
        is_seen_into = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
        return steps > 1 and not is_seen_into

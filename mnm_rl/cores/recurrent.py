"""Cores without a memory of their own, around torch's recurrent layers: the baselines.

torch's layers know nothing of resets. Whole sequences run through an operation of our own in C++ that does
(:mod:`mnm_rl.kernels.recurrent`). Where it cannot stand for the core, torch's layer runs, on the pieces of
the sequence between those steps at which an episode of any example starts.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size, ``D`` hidden size.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from mnm_rl.cores.base import CoreOutput, MemoryCore, reset_state, steps_with_resets
from mnm_rl.cores.checks import checked_config
from mnm_rl.cores.quick import QuickStep
from mnm_rl.field_types import check_own_fields
from mnm_rl.kernels import departure, recurrent


@dataclass(frozen=True)
class RecurrentConfig:
    """Settings of the ``gru`` core."""

    hidden_size: int = 200
    """Width of the hidden state."""

    def __post_init__(self) -> None:
        check_own_fields(self, "hidden_size")


@dataclass(frozen=True)
class LSTMConfig(RecurrentConfig):
    """Settings of the ``lstm`` core."""

    forget_bias: float | None = None
    """What the forget gate's bias is at the start. The higher, the longer the cell remembers before anything
    is learned (Jozefowicz et al. 2015: 1); drawn around 0, as torch does, if not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_forget_bias(self.forget_bias)


def check_forget_bias(bias: float | None) -> None:
    """Raise a ValueError if a bias is not finite."""
    if bias is not None and not math.isfinite(bias):
        raise ValueError(f"forget_bias must be a finite number, got {bias}.")


def set_forget_bias(layer: nn.LSTM | nn.LSTMCell, bias: float) -> None:
    """Give the forget gate of an LSTM's (first) layer a bias, the sum of torch's two."""
    both = [layer.bias_ih, layer.bias_hh] if isinstance(layer, nn.LSTMCell) else layer.all_weights[0][2:]
    forget = slice(layer.hidden_size, 2 * layer.hidden_size)  # torch's order: input, forget, cell, output
    with torch.no_grad():
        for part, value in zip(both, (bias, 0.0), strict=True):
            part[forget] = value


class LSTMState(NamedTuple):
    """Hidden and cell state, both ``[B, D]``."""

    hidden: Tensor
    cell: Tensor


class GRUState(NamedTuple):
    """Hidden state ``[B, D]``."""

    hidden: Tensor


StateT = TypeVar("StateT", LSTMState, GRUState)


class _RecurrentCore(MemoryCore[StateT]):
    """What the two cores share; the output is the hidden state."""

    config_class: type[RecurrentConfig] = RecurrentConfig
    layer: nn.RNNBase
    _kind: ClassVar[recurrent.Kind]

    def __init__(self, input_size: int, config: RecurrentConfig | None = None):
        super().__init__()
        self.config = checked_config(self, input_size, config, RecurrentConfig)
        self.input_size = input_size
        self.output_size = self.config.hidden_size

    @abstractmethod
    def _run(self, inputs: Tensor, state: StateT) -> tuple[Tensor, StateT]:
        """A sequence ``[T, B, I]`` without resets, by the fused layer."""

    @abstractmethod
    def _run_cell(self, inputs: Tensor, state: StateT) -> StateT:
        """One step ``[B, I]``, half the cost of a sequence of one."""

    def forward(
        self,
        inputs: Tensor,
        state: StateT | None = None,
        resets: Tensor | None = None,
        *,
        record: bool = False,
    ) -> CoreOutput[StateT]:
        """See :meth:`MemoryCore.forward`."""
        initial = self.initial_state(inputs.shape[1])
        state = initial if state is None else state
        weights = (
            recurrent.RecurrentParameters(*self.layer.all_weights[0]) if self._has_plain_layer() else None
        )
        fresh = () if self._starts_at_zeros() else tuple(initial)
        if weights is not None and self._is_faster(resets, inputs, *weights, *state, *fresh):
            result = recurrent.scan(self._kind, inputs, weights, tuple(state), resets, fresh)
            outputs, state = result.outputs, type(initial)(*result.state)
        else:
            outputs, state = self._run_in_pieces(inputs, state, initial, resets)
        meta_loss = inputs.new_zeros(inputs.shape[:2])
        return CoreOutput(outputs, state, meta_loss, {} if record else None)

    def _run_in_pieces(
        self, inputs: Tensor, state: StateT, initial: StateT, resets: Tensor | None
    ) -> tuple[Tensor, StateT]:
        """The sequence ``[T, B, I]`` by torch's layer, cut wherever an episode starts."""
        outputs = []
        for start, stop in _segments(resets, inputs.shape[0]):
            if resets is not None:
                state = reset_state(state, initial, resets[start])
            segment, state = self._run(inputs[start:stop], state)
            outputs.append(segment)
        return torch.cat(outputs), state

    def _has_plain_layer(self) -> bool:
        """Whether the operation computes what the layer would: nobody has changed the core or the layer."""
        core_class, layer_class = _STANDARD[self._kind]
        if departure(self, core_class, ("_run",), {"layer": layer_class}) is not None:
            return False
        layer = self.layer
        options = (layer.num_layers > 1, layer.bidirectional, layer.batch_first, layer.proj_size)
        return layer.bias and not any(options)

    def _is_faster(self, resets: Tensor | None, *tensors: Tensor) -> bool:
        """Whether the operation is there for these, and faster than the layer."""
        is_trained = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        if self._kind == "lstm" and resets is None and not is_trained:
            return False  # torch's LSTM is at least as fast here, unlike its GRU
        return recurrent.fits(*tensors) and recurrent.compiles()

    def _starts_at_zeros(self) -> bool:
        return departure(self, _STANDARD[self._kind][0], ("initial_state",), {}) is None

    def step(
        self, inputs: Tensor, state: StateT | None = None, resets: Tensor | None = None
    ) -> tuple[Tensor, StateT]:
        """See :meth:`MemoryCore.step`."""
        state = self.initial_state(len(inputs)) if state is None else state
        if resets is not None and resets.any():
            state = reset_state(state, self.initial_state(len(inputs)), resets)
        state = self._run_cell(inputs, state)
        return state.hidden, state

    def quick_step(self) -> QuickStep | None:
        """See :meth:`MemoryCore.quick_step`; in C++, which rounds as :meth:`forward` does."""
        standard = _STANDARD[self._kind][0]
        if (
            departure(self, standard, ("step", "_run_cell", "initial_state"), {})
            or not self._has_plain_layer()
        ):
            return None
        weights = recurrent.RecurrentParameters(*self.layer.all_weights[0])
        if not (recurrent.fits(*weights) and recurrent.compiles()):
            return None
        run, state_class = recurrent.QuickStep(self._kind, weights), type(self.initial_state(1))

        def step(inputs: Tensor, state: StateT, resets: Tensor | None) -> tuple[Tensor, StateT]:
            after = state_class(*run(inputs, state, resets))
            return after.hidden, after

        return step

    def _zeros(self, batch_size: int) -> Tensor:
        return self.layer.all_weights[0][0].new_zeros(batch_size, self.output_size)


class LSTMCore(_RecurrentCore[LSTMState]):
    """A single-layer LSTM (Hochreiter & Schmidhuber 1997); its output is the hidden state."""

    config_class = LSTMConfig
    _kind = "lstm"

    def __init__(self, input_size: int, config: RecurrentConfig | None = None):
        super().__init__(input_size, LSTMConfig() if config is None else config)
        self.layer = nn.LSTM(input_size, self.output_size)
        if isinstance(config, LSTMConfig) and config.forget_bias is not None:
            set_forget_bias(self.layer, config.forget_bias)

    def initial_state(self, batch_size: int) -> LSTMState:
        """Zeros."""
        return LSTMState(self._zeros(batch_size), self._zeros(batch_size))

    def _run(self, inputs: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        outputs, (hidden, cell) = self.layer(inputs, (state.hidden.unsqueeze(0), state.cell.unsqueeze(0)))
        return outputs, LSTMState(hidden[0], cell[0])

    def _run_cell(self, inputs: Tensor, state: LSTMState) -> LSTMState:
        return LSTMState(*torch.lstm_cell(inputs, state, *self.layer.all_weights[0]))


class GRUCore(_RecurrentCore[GRUState]):
    """A single-layer gated recurrent unit (Cho et al. 2014); its output is the hidden state."""

    _kind = "gru"

    def __init__(self, input_size: int, config: RecurrentConfig | None = None):
        super().__init__(input_size, config)
        self.layer = nn.GRU(input_size, self.output_size)

    def initial_state(self, batch_size: int) -> GRUState:
        """Zeros."""
        return GRUState(self._zeros(batch_size))

    def _run(self, inputs: Tensor, state: GRUState) -> tuple[Tensor, GRUState]:
        outputs, hidden = self.layer(inputs, state.hidden.unsqueeze(0))
        return outputs, GRUState(hidden[0])

    def _run_cell(self, inputs: Tensor, state: GRUState) -> GRUState:
        return GRUState(torch.gru_cell(inputs, state.hidden, *self.layer.all_weights[0]))


_STANDARD: dict[recurrent.Kind, tuple[type[MemoryCore], type[nn.RNNBase]]] = {
    "lstm": (LSTMCore, nn.LSTM),
    "gru": (GRUCore, nn.GRU),
}
"""The cores, with their layers, that the operation computes."""


def _segments(resets: Tensor | None, length: int) -> list[tuple[int, int]]:
    """Cut ``length`` steps where any example is reset, so that fused layers run in between."""
    any_reset = steps_with_resets(resets, length)
    starts = [0] + [t for t in range(1, length) if any_reset[t]]
    return list(zip(starts, [*starts[1:], length], strict=True))

"""An LSTM with an unbounded look-up table and soft attention: the paper's baseline LSTM+SALU.

Munkhdalai et al. 2019, section 4.1. Controller and interaction vectors are those of MNM; a write appends a
slot to a table instead of changing weights, and a read attends over all slots, so time grows with the square
of the length.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size, ``H`` heads, ``N`` slots; sizes ``d_h`` controller,
``d_k`` key, ``d_v`` value, ``d_o`` output.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mnm_rl.cores.base import CoreOutput, MemoryCore, reset_state, steps_with_resets
from mnm_rl.cores.checks import FreeDimensions, checked_config
from mnm_rl.cores.recurrent import check_forget_bias, set_forget_bias
from mnm_rl.field_types import check_own_fields
from mnm_rl.kernels.lookup_table import LookupTable


@dataclass(frozen=True)
class LookupConfig:
    """Settings of the ``lstm-salu`` core."""

    hidden_size: int = 200
    """d_h, width of the controller."""
    output_size: int | None = None
    """d_o, size of the output; the controller's width if not given."""
    key_size: int = 100
    """d_k."""
    value_size: int = 100
    """d_v."""
    heads: int = 1
    """H, slots written and read values averaged per step."""
    attention_scale: float | None = None
    """What products of keys are multiplied by before the softmax; 1/sqrt(d_k) if not given."""
    layer_norm: bool = False
    """Normalise keys and values, all of a step together, before their tanh (Ba et al. 2016, as in the ADNC of
    Franke et al. 2018)."""
    forget_bias: float | None = None
    """See :class:`~mnm_rl.cores.recurrent.LSTMConfig`."""

    def __post_init__(self) -> None:
        check_own_fields(self, "hidden_size", "key_size", "value_size", "heads", "output_size")
        if self.attention_scale is not None and not 0 < self.attention_scale < math.inf:
            raise ValueError(f"attention_scale must be a positive number, got {self.attention_scale}.")
        check_forget_bias(self.forget_bias)


class LookupState(NamedTuple):
    """What the core carries from step to step; the table grows by H slots per step."""

    hidden: Tensor
    """h, ``[B, d_h]``."""
    cell: Tensor
    """The controller's cell state, ``[B, d_h]``."""
    read_value: Tensor
    """v^r of the last step, ``[B, d_v]``."""
    keys: Tensor
    """``[B, N, d_k]``."""
    values: Tensor
    """``[B, N, d_v]``."""
    written: Tensor
    """Boolean ``[B, N]``; false for slots from before an example's last reset."""


class LookupCore(MemoryCore[LookupState]):
    """LSTM controller, soft attention over every key ever written, ``y_t = W_y [h_t; v_t^r] + b_y``.

    Args:
        input_size: ``I``.
        config: all other settings.
    """

    config_class = LookupConfig
    trace_names = ("read_keys", "write_keys", "write_values", "read_values")
    free_dimensions: ClassVar[FreeDimensions] = {"keys": {1: "N"}, "values": {1: "N"}, "written": {1: "N"}}

    def __init__(self, input_size: int, config: LookupConfig | None = None):
        super().__init__()
        self.config = config = checked_config(self, input_size, config, LookupConfig)
        self.input_size = input_size
        self.output_size = config.output_size or config.hidden_size
        self._interaction_sizes = [
            config.heads * config.key_size,
            config.heads * config.key_size,
            config.heads * config.value_size,
        ]
        self.controller = nn.LSTMCell(input_size + config.value_size, config.hidden_size)
        self.interaction = nn.Linear(config.hidden_size, sum(self._interaction_sizes))
        self.output = nn.Linear(config.hidden_size + config.value_size, self.output_size)
        sizes = sum(self._interaction_sizes)
        self.interaction_norm = nn.LayerNorm(sizes) if config.layer_norm else nn.Identity()
        if config.forget_bias is not None:
            set_forget_bias(self.controller, config.forget_bias)

    def initial_state(self, batch_size: int) -> LookupState:
        """Zeros, and a table without slots."""
        config = self.config
        zeros = self.interaction.weight.new_zeros
        return LookupState(
            hidden=zeros(batch_size, config.hidden_size),
            cell=zeros(batch_size, config.hidden_size),
            read_value=zeros(batch_size, config.value_size),
            keys=zeros(batch_size, 0, config.key_size),
            values=zeros(batch_size, 0, config.value_size),
            written=zeros(batch_size, 0, dtype=torch.bool),
        )

    def forward(
        self,
        inputs: Tensor,
        state: LookupState | None = None,
        resets: Tensor | None = None,
        *,
        record: bool = False,
    ) -> CoreOutput[LookupState]:
        """See :meth:`MemoryCore.forward`."""
        state = self.initial_state(inputs.shape[1]) if state is None else state
        any_reset = steps_with_resets(resets, len(inputs))
        table = self._table(state, any_reset)
        heads = (self.config.heads, -1)
        controls, traces = [], []
        for t, x in enumerate(inputs.unbind(0)):
            if resets is not None and any_reset[t]:
                state = self._reset(_with_table(state, table), resets[t])
                table = self._table(state, any_reset[t:])
            hidden, cell = self.controller(torch.cat([x, state.read_value], 1), (state.hidden, state.cell))
            vectors = torch.tanh(self.interaction_norm(self.interaction(hidden)))
            read_keys, write_keys, write_values = (
                part.unflatten(1, heads) for part in vectors.split(self._interaction_sizes, dim=1)
            )
            read_values = table.write_and_read(write_keys, write_values, self._scaled(read_keys))
            state = state._replace(hidden=hidden, cell=cell, read_value=read_values.mean(1))
            controls.append(torch.cat([hidden, state.read_value], 1))
            if record:
                traces.append((read_keys, write_keys, write_values, read_values))
        outputs = self.output(torch.stack(controls))
        meta_loss = outputs.new_zeros(outputs.shape[:2])
        return CoreOutput(outputs, _with_table(state, table), meta_loss, _stack(traces) if record else None)

    def _scaled(self, read_keys: Tensor) -> Tensor:
        """Read keys whose products with keys, divided by sqrt(d_k) in the table, have the wanted scale."""
        scale = self.config.attention_scale
        return read_keys if scale is None else read_keys * (scale * math.sqrt(self.config.key_size))

    def _table(self, state: LookupState, any_reset: list[bool]) -> LookupTable:
        """A table for the steps up to the next reset."""
        steps = any_reset.index(True, 1) if True in any_reset[1:] else len(any_reset)
        return LookupTable(state.keys, state.values, state.written, steps * self.config.heads)

    def _reset(self, state: LookupState, mask: Tensor) -> LookupState:
        """Empty the tables of the examples in ``mask``, and forget slots that no example uses any more."""
        empty = {name: torch.zeros_like(getattr(state, name)) for name in ("keys", "values", "written")}
        state = reset_state(state, self.initial_state(len(mask))._replace(**empty), mask)
        first = int(state.written.any(0).int().argmax()) if state.written.any() else state.written.shape[1]
        return state._replace(
            keys=state.keys[:, first:], values=state.values[:, first:], written=state.written[:, first:]
        )


def _with_table(state: LookupState, table: LookupTable) -> LookupState:
    keys, values, written = table.contents()
    return state._replace(keys=keys, values=values, written=written)


def _stack(traces: list[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    columns = zip(*traces, strict=True)
    pairs = zip(LookupCore.trace_names, columns, strict=True)
    return {name: torch.stack(column) for name, column in pairs}

"""DeltaNet and its gated relatives: layers around a matrix memory that is written by a delta rule.

* DeltaNet: Schlag, Irie and Schmidhuber 2021; with the layer as it is here, Yang et al. 2024.
* Gated DeltaNet: Yang, Kautz and Hatamizadeh 2025: ``forgetting="head"`` and ``output_gate=True``.
* Kimi Delta Attention (KDA): Kimi Team 2025: ``forgetting="channel"`` and ``output_gate=True``.
* Gated DeltaNet-2 (2026): KDA with ``separate_rates=True``.

A read goes to the output alone, so that a whole sequence is computed at once, episodes in it too
(:mod:`mnm_rl.kernels.delta_rule`).

Dimensions: ``T`` time, ``B`` batch, ``I`` input size, ``L`` layers, ``H`` heads, ``W`` steps of the short
convolution; sizes ``D`` width, ``K`` key, ``V`` value, ``C`` = H (2 K + V) channels of the convolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnm_rl.cores.base import CoreOutput, MemoryCore, outlasts_reset
from mnm_rl.cores.capacity import MOST_REPEATS
from mnm_rl.cores.checks import checked_config
from mnm_rl.cores.short_convolution import short_convolution
from mnm_rl.field_types import check_own_fields
from mnm_rl.kernels import delta_rule
from mnm_rl.kernels.delta_rule import Commands

Forgetting = Literal["none", "head", "channel"]
Kernel = Literal["auto", "reference", "chunked"]
"""``chunked`` solves for many steps at once, ``reference`` is the plain loop; ``auto`` is ``chunked`` for
more than one step."""
STEPS_OF_DECAY = (0.001, 0.1)
"""Between these a new core draws the softplus in its decays, as the papers do (from Gu and Dao 2023)."""
FASTEST_DECAY = 16.0
"""Up to this a new core draws the factor of its decays."""


@dataclass(frozen=True)
class DeltaNetConfig:
    """Settings of the ``delta-net`` core; the defaults are those of DeltaNet."""

    hidden_size: int = 256
    """D, width of the layers and of the output."""
    layers: int = 1
    """L, each with a memory of its own, and with the sum of all before as its input."""
    heads: int = 4
    """H."""
    key_size: int = 64
    """K, of one head."""
    value_size: int = 64
    """V, of one head."""
    convolution: int = 4
    """W, steps that queries, keys and values are made of, this one and those before it; 1 for this one."""
    forgetting: Forgetting = "none"
    """What has a decay of its own: nothing, each head, or each channel of each head's keys."""
    separate_rates: bool = False
    """Rates for each channel, one for what is erased and one for what is written, not one for each head."""
    doubled_rates: bool = False
    """Rates up to 2, not 1: a write may turn over what is stored along its key (Grazzi et al. 2024)."""
    output_gate: bool = False
    """Whether what was read is gated by the layer's input."""
    kernel: Kernel = "auto"
    """How sequences are computed; see :data:`Kernel`."""

    def __post_init__(self) -> None:
        check_own_fields(self, "hidden_size", "layers", "heads", "key_size", "value_size", "convolution")
        if self.layers > MOST_REPEATS:
            raise ValueError(f"layers must be at most {MOST_REPEATS}, got {self.layers}.")


class DeltaNetState(NamedTuple):
    """What the core carries from step to step."""

    recent: Tensor
    """The convolution's last inputs in each layer, ``[B, L, W - 1, C]``."""
    memory: Tensor
    """S in each layer and head, ``[B, L, H, K, V]``."""


class DeltaNetCore(MemoryCore[DeltaNetState]):
    """``y = x_L`` with ``x_0 = W_i i + b`` and ``x_l = x_{l-1} + layer_l(norm(x_{l-1}))``.

    Args:
        input_size: ``I``.
        config: all other settings.
    """

    config_class = DeltaNetConfig
    quick_resets = True
    trace_names = (
        *("rates", "read_keys", "write_keys", "write_values", "read_values"),
        *("write_sizes", "memory_distances"),
    )

    def __init__(self, input_size: int, config: DeltaNetConfig | None = None):
        super().__init__()
        self.config = config = checked_config(self, input_size, config, DeltaNetConfig)
        self.input_size = input_size
        self.output_size = config.hidden_size
        self.encoder = nn.Linear(input_size, config.hidden_size)
        self.layers = nn.ModuleList(DeltaNetLayer(config) for _ in range(config.layers))

    def initial_state(self, batch_size: int) -> DeltaNetState:
        """Zeros."""
        config, zeros = self.config, self.encoder.weight.new_zeros
        channels = config.heads * (2 * config.key_size + config.value_size)
        return DeltaNetState(
            zeros(batch_size, config.layers, config.convolution - 1, channels),
            zeros(batch_size, config.layers, config.heads, config.key_size, config.value_size),
        )

    def forward(
        self,
        inputs: Tensor,
        state: DeltaNetState | None = None,
        resets: Tensor | None = None,
        *,
        record: bool = False,
    ) -> CoreOutput[DeltaNetState]:
        """See :meth:`MemoryCore.forward`.

        The trace has the heads of all layers one after the other; sizes are those of each head's matrix.
        """
        state = self.initial_state(inputs.shape[1]) if state is None else state
        batch_resets = None if resets is None else resets.T
        x = self.encoder(inputs.transpose(0, 1))
        after, traces = [], []
        for i, layer in enumerate(self.layers):
            change, *fields, trace = layer(x, state.recent[:, i], state.memory[:, i], batch_resets, record)
            x = x + change
            after.append(fields)
            traces.append(trace)
        new_state = DeltaNetState(*(torch.stack(fields, 1) for fields in zip(*after, strict=True)))
        meta_loss = inputs.new_zeros(inputs.shape[:2])
        trace = (
            {name: torch.cat([one[name] for one in traces], 2) for name in self.trace_names}
            if record
            else None
        )
        return CoreOutput(x.transpose(0, 1), new_state, meta_loss, trace)


class DeltaNetLayer(nn.Module):
    """Norm, projections, short convolution, memory, norm of what each head read, gate, output projection.

    Args:
        config: of the core.
    """

    log_factor: nn.Parameter
    decay_bias: nn.Parameter

    def __init__(self, config: DeltaNetConfig):
        super().__init__()
        self.config = config
        heads, keys, values = config.heads, config.heads * config.key_size, config.heads * config.value_size
        rates = keys + values if config.separate_rates else heads
        self._decays = {"none": 0, "head": heads, "channel": keys}[config.forgetting]
        self._sizes = [2 * keys + values, rates, self._decays, values if config.output_gate else 0]
        self.norm = nn.RMSNorm(config.hidden_size, eps=1e-5)
        self.projection = nn.Linear(config.hidden_size, sum(self._sizes), bias=False)
        if config.convolution > 1:
            bound = config.convolution**-0.5
            self.convolution = nn.Parameter(
                torch.empty(2 * keys + values, config.convolution).uniform_(-bound, bound)
            )
        if self._decays:
            self.log_factor = nn.Parameter(torch.empty(heads).uniform_(1, FASTEST_DECAY).log())
            least, most = map(math.log, STEPS_OF_DECAY)
            steps = torch.empty(self._decays).uniform_(least, most).exp()
            self.decay_bias = nn.Parameter(steps + torch.log(-torch.expm1(-steps)))  # softplus, undone
        self.read_norm = nn.RMSNorm(config.value_size, eps=1e-5)
        self.output = nn.Linear(values, config.hidden_size, bias=False)

    def forward(
        self, x: Tensor, recent: Tensor, memory: Tensor, resets: Tensor | None, record: bool
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """A sequence.

        Args:
            x: ``[B, T, D]``.
            recent: ``[B, W - 1, C]``.
            memory: ``[B, H, K, V]``.
            resets: boolean ``[B, T]``.
            record: whether to keep a trace.

        Returns:
            the change of x, the recent inputs and the memory after the sequence, and a trace, which is empty
            unless asked for.
        """
        channels, rates, decays, gates = self.projection(self.norm(x)).split(self._sizes, 2)
        if self.config.convolution > 1:
            channels, recent = short_convolution(channels, recent, self.convolution, resets)
        commands, trace = self._commands(functional.silu(channels), torch.sigmoid(rates), decays), {}
        if record:
            (read, memory), trace = _recorded(commands, memory, resets)
            trace["rates"] = (
                torch.sigmoid(rates).unflatten(2, (self.config.heads, -1)).mean(3).transpose(0, 1)
            )
        else:
            read, memory = self._run(commands, memory, resets)
        read = self.read_norm(read).transpose(1, 2).flatten(2)
        if self.config.output_gate:
            read = read * functional.silu(gates)
        return self.output(read), recent, memory, trace

    def _run(self, commands: Commands, memory: Tensor, resets: Tensor | None) -> delta_rule.DeltaResult:
        is_plain = self.config.kernel == "reference" or (
            self.config.kernel == "auto" and commands.keys.shape[2] == 1
        )
        if not is_plain:
            result = delta_rule.scan(commands, memory, resets)
            if not outlasts_reset(result.outputs, resets):
                return result
        return delta_rule.plain(commands, memory, resets)

    def _commands(self, channels: Tensor, rates: Tensor, decays: Tensor) -> Commands:
        """From ``[B, T, ...]`` each."""
        config, heads = self.config, self.config.heads
        sizes = [heads * config.key_size, heads * config.key_size, heads * config.value_size]
        queries, keys, values = (_by_head(part, heads) for part in channels.split(sizes, 2))
        queries = functional.normalize(queries, dim=3, eps=1e-6) * config.key_size**-0.5
        keys = functional.normalize(keys, dim=3, eps=1e-6)
        rates = 2 * rates if config.doubled_rates else rates
        split = sizes[1:] if config.separate_rates else [heads]
        by_rate = [_by_head(part, heads) for part in rates.split(split, 2)]
        erased, values = by_rate[0] * keys, by_rate[-1] * values
        return Commands(queries, keys, erased, values, self._log_decays(decays) if self._decays else None)

    def _log_decays(self, decays: Tensor) -> Tensor:
        """g, ``[B, H, T, 1 or K]``."""
        steps = _by_head(functional.softplus(decays + self.decay_bias), self.config.heads)
        return -self.log_factor.exp().view(-1, 1, 1) * steps


def _by_head(tensor: Tensor, heads: int) -> Tensor:
    """``[B, T, H d]`` as ``[B, H, T, d]``."""
    return tensor.unflatten(2, (heads, -1)).transpose(1, 2)


def _recorded(
    commands: Commands, memory: Tensor, resets: Tensor | None
) -> tuple[delta_rule.DeltaResult, dict[str, Tensor]]:
    """The plain loop, and what it did: ``[T, B, H, ...]``."""
    outputs, sizes = [], []
    for t in range(commands.keys.shape[2]):
        if resets is not None:
            memory = memory.masked_fill(resets[:, t].view(-1, 1, 1, 1), 0)
        before, (output, memory) = memory, delta_rule.plain_step(memory, delta_rule.at_step(commands, t))
        outputs.append(output)
        sizes.append([torch.linalg.matrix_norm(matrix) for matrix in (memory - before, memory)])
    write_sizes, distances = (torch.stack(column) for column in zip(*sizes, strict=True))
    trace = {
        "read_keys": commands.queries.permute(2, 0, 1, 3),
        "write_keys": commands.keys.permute(2, 0, 1, 3),
        "write_values": commands.values.permute(2, 0, 1, 3),
        "read_values": torch.stack(outputs),
        "write_sizes": write_sizes,
        "memory_distances": distances,
    }
    return delta_rule.DeltaResult(torch.stack(outputs, 2), memory), trace

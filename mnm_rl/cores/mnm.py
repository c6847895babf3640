"""The metalearned neural memory: an LSTM that reads and rewrites a small network at every step.

Munkhdalai et al. 2019, Figure 1 and section 3. This is the plain form, by the equations.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size, ``H`` heads, ``L`` memory layers of widths ``D_l``,
``N`` recall delays; sizes ``d_h`` controller, ``d_k`` key, ``d_v`` value, ``d_o`` output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnm_rl.cores.base import CoreOutput, MemoryCore, reset_state, steps_with_resets
from mnm_rl.cores.checks import checked_config
from mnm_rl.cores.quick import QuickStep
from mnm_rl.field_types import check_own_fields
from mnm_rl.kernels import (
    Backend,
    MNMState,
    ScanParameters,
    ScanResult,
    ScanSettings,
    a_hook,
    choose,
    cpu,
    departure,
    scan,
)
from mnm_rl.kernels.recurrent import fits
from mnm_rl.kernels.snapshots import SnapshotEvery, scan_in_segments, segment_lengths, snapshot_ratio
from mnm_rl.memory import (
    STANDARD_RULES,
    WRITE_RULES,
    Normalization,
    OutputActivation,
    WriteInputs,
    WriteRule,
    join_weights,
    meta_objective,
    random_weights,
    recall,
    split_weights,
)


@dataclass(frozen=True)
class MNMConfig:
    """Settings of the MNM cores."""

    write_rule: str = "local"
    """A key of :data:`mnm_rl.memory.WRITE_RULES`: ``local`` (Eq. 4) is MNM-p, ``gradient`` (Eq. 3) is
    MNM-g; ``gated-local`` and ``gated-gradient`` forget as well."""
    hidden_size: int = 200
    """d_h, width of the controller."""
    output_size: int | None = None
    """d_o, size of the output y_t; the controller's width if not given."""
    key_size: int = 100
    """d_k."""
    value_size: int = 100
    """d_v."""
    memory_widths: tuple[int, ...] = (100, 100)
    """D_1 ... D_{L-1}, the memory's layers before the last, which has width d_v."""
    heads: int = 1
    """H, reads and writes per step."""
    rate_per_layer: bool = False
    """One rate beta for each memory layer (Eq. 4) instead of one for all."""
    normalization: Normalization = "squared-norm"
    """How writes are scaled; ``none`` gives the paper's formulas as printed."""
    output_activation: OutputActivation = "identity"
    """Nonlinearity of the memory's last layer; the others use tanh."""
    recall_weights: tuple[float, ...] = (1.0,)
    """lambda_tau of Eq. 5 for the recall delays tau = 0, 1, ...; the paper uses tau = 0 only."""
    kernel: Backend = "auto"
    """What runs the time loop: ``reference`` is the plain form below, the others are faster, with the same
    results."""
    snapshot_every: SnapshotEvery = None
    """In training, keep the state every so many steps and repeat the forward pass in between: a fraction of
    the memory, for 1.3 to 1.5 times the time; "auto" for the distances that need the least. Not for the
    reference kernel."""

    def __post_init__(self) -> None:
        check_own_fields(self, "hidden_size", "key_size", "value_size", "heads", "output_size")
        object.__setattr__(self, "memory_widths", tuple(self.memory_widths))
        object.__setattr__(self, "recall_weights", tuple(self.recall_weights))
        _require(
            min(self.memory_widths, default=1) >= 1, "memory_widths", self.memory_widths, "all at least 1"
        )
        _require(len(self.recall_weights) >= 1, "recall_weights", self.recall_weights, "at least one number")
        weights_of_losses = all(0 <= weight < math.inf for weight in self.recall_weights)
        _require(
            weights_of_losses,
            "recall_weights",
            self.recall_weights,
            "finite numbers that are not negative",
        )
        every = self.snapshot_every
        whole = every is None or every == "auto" or (isinstance(every, int) and every >= 1)
        _require(whole, "snapshot_every", every, 'a number of at least 1, or "auto"')
        _require(
            every is None or self.kernel != "reference",
            "snapshot_every",
            every,
            "left out with the reference kernel",
        )
        rules = f"one of {', '.join(WRITE_RULES)}"
        _require(self.write_rule in WRITE_RULES, "write_rule", repr(self.write_rule), rules)

    @property
    def widths(self) -> tuple[int, ...]:
        """D_0 ... D_L, from the key to the value."""
        return (self.key_size, *self.memory_widths, self.value_size)


class Interaction(NamedTuple):
    """The interaction vectors of one step (Eq. 1)."""

    read_keys: Tensor
    """k^r, ``[B, H, d_k]``."""
    write_keys: Tensor
    """k^w, ``[B, H, d_k]``."""
    write_values: Tensor
    """v^w, ``[B, H, d_v]``."""
    rates: Tensor
    """beta in [0, 1], ``[B, 1]`` or one per layer ``[B, L]``."""
    gates: Tensor
    """The write rule's further numbers in [0, 1] (:class:`mnm_rl.memory.WriteRule`), ``[B, G]``; G = 0 for
    Eq. 3 and 4."""


class LoopState(NamedTuple):
    """:class:`MNMState` inside the plain loop, where the memory is a list of layers."""

    hidden: Tensor
    cell: Tensor
    read_value: Tensor
    weights: list[Tensor]
    """M^1 ... M^L, each ``[B, D_l, D_{l-1}]``."""
    recent_keys: Tensor
    recent_values: Tensor


class Reads(NamedTuple):
    """What one step reads from the memory after its write."""

    values: Tensor
    """v^r, ``[B, H, d_v]``."""
    meta_loss: Tensor
    """Eq. 5, ``[B]``."""
    recent_keys: Tensor
    """For the next step, ``[B, N - 1, H, d_k]``."""
    recent_values: Tensor
    """``[B, N - 1, H, d_v]``."""


class MNMCore(MemoryCore[MNMState]):
    """Metalearned neural memory (Munkhdalai et al. 2019).

    A step takes the input and the last read value into the controller, emits interaction vectors, writes to
    the memory, reads from the memory as it is after the write, and puts out
    ``y_t = W_y [h_t; v_t^r] + b_y``.

    A subclass may override :meth:`write`, :meth:`interaction_vectors` or :meth:`predicted_activations`, and
    modules may be hooked, reparametrised or replaced: such a core runs the plain loop, because the kernels
    know nothing of it (:func:`mnm_rl.kernels.departure`).

    Args:
        input_size: ``I``.
        config: all other settings.
    """

    config_class = MNMConfig
    quick_resets = True
    trace_names = (*Interaction._fields, "read_values", "write_sizes", "memory_distances")
    initial_memory: Tensor

    def __init__(self, input_size: int, config: MNMConfig | None = None):
        super().__init__()
        self.config = config = checked_config(self, input_size, config, MNMConfig)
        self.input_size = input_size
        self.output_size = config.output_size or config.hidden_size
        layers = len(config.widths) - 1
        self._interaction_sizes = [
            config.heads * config.key_size,
            config.heads * config.key_size,
            config.heads * config.value_size,
            config.key_size,
        ]
        self.controller = nn.LSTMCell(input_size + config.value_size, config.hidden_size)
        self.interaction = nn.Linear(config.hidden_size, sum(self._interaction_sizes))
        self.rate = nn.Linear(config.key_size, layers if config.rate_per_layer else 1)
        self.output = nn.Linear(config.hidden_size + config.value_size, self.output_size)
        if self._rule.predicts_activations:
            self.feedback = nn.Linear(config.value_size, sum(config.widths[1:]))
        if self._rule.gates:
            self.gates = nn.Linear(config.hidden_size, len(self._rule.gates))
            with torch.no_grad():
                self.gates.bias.copy_(torch.tensor([*self._rule.gates.values()]).logit())
        # The same for all examples and not trained: the paper found that training it overfits (section 3.5).
        self.register_buffer("initial_memory", random_weights(config.widths))
        self._scan_settings = ScanSettings(
            config.widths,
            config.heads,
            config.write_rule,
            config.rate_per_layer,
            config.normalization,
            config.output_activation,
            config.recall_weights,
        )

    @property
    def _rule(self) -> WriteRule:
        return WRITE_RULES[self.config.write_rule]

    def initial_state(self, batch_size: int) -> MNMState:
        """Zeros, and the fixed random memory."""
        config = self.config
        zeros = self.initial_memory.new_zeros
        past = len(config.recall_weights) - 1
        return MNMState(
            hidden=zeros(batch_size, config.hidden_size),
            cell=zeros(batch_size, config.hidden_size),
            read_value=zeros(batch_size, config.value_size),
            memory=self.initial_memory.expand(batch_size, -1),
            # The memory maps a zero key to a zero value, so that these add nothing to the meta loss.
            recent_keys=zeros(batch_size, past, config.heads, config.key_size),
            recent_values=zeros(batch_size, past, config.heads, config.value_size),
        )

    def forward(
        self,
        inputs: Tensor,
        state: MNMState | None = None,
        resets: Tensor | None = None,
        *,
        record: bool = False,
    ) -> CoreOutput[MNMState]:
        """See :meth:`MemoryCore.forward`; a trace is made by the plain loop, whatever the kernel.

        Raises:
            ValueError: if the shapes do not fit, or the kernel or ``snapshot_every`` that the settings name
                cannot be had for this core (:func:`mnm_rl.kernels.choose`).
        """
        state = self.initial_state(inputs.shape[1]) if state is None else state
        backend = self._backend(inputs)
        if record or backend == "reference":
            return self._loop(inputs, state, resets, record)
        return self._scan(inputs, state, resets, backend)

    def _backend(self, inputs: Tensor) -> str:
        modules = _MODULES if self._rule.predicts_activations else _MODULES_WITHOUT_FEEDBACK
        config, obstacle = self.config, departure(self, MNMCore, _METHODS, modules)
        if obstacle is None and self._rule is not STANDARD_RULES.get(config.write_rule, self._rule):
            obstacle = f"its write rule {config.write_rule!r} has been replaced"
        backend = choose(config.kernel, inputs.device, inputs.dtype, config.write_rule, obstacle)
        if backend == "reference" and config.snapshot_every is not None:
            reason = obstacle or f"no kernel has the write rule {config.write_rule!r} here"
            raise ValueError(f"snapshot_every must be left out with this core, because {reason}.")
        return backend

    def _loop(
        self, inputs: Tensor, state: MNMState, resets: Tensor | None, record: bool
    ) -> CoreOutput[MNMState]:
        """The plain form: autograd over :meth:`_step`."""
        initial = self.initial_state(inputs.shape[1])
        start, after = self._in_layers(initial), self._in_layers(state)
        # Not a buffer: a core in float64 would hold numbers rounded to float32.
        delay_weights = self.initial_memory.new_tensor(self.config.recall_weights)
        any_reset = steps_with_resets(resets, inputs.shape[0])
        controls, meta_losses, traces = [], [], []
        for t, x in enumerate(inputs.unbind(0)):
            before = after
            if resets is not None and any_reset[t]:
                before = self._in_layers(reset_state(_in_one(before), initial, resets[t]))
            after, vectors, reads = self._step(x, before, delay_weights)
            controls.append(torch.cat([after.hidden, after.read_value], 1))
            meta_losses.append(reads.meta_loss)
            if record:
                changes = _sizes(before.weights, after.weights), _sizes(start.weights, after.weights)
                traces.append(_trace(vectors, reads.values, *changes))
        outputs = self.output(torch.stack(controls))
        trace = _stack(traces) if record else None
        return CoreOutput(outputs, _in_one(after), torch.stack(meta_losses), trace)

    def _step(
        self, x: Tensor, before: LoopState, delay_weights: Tensor
    ) -> tuple[LoopState, Interaction, Reads]:
        """Figure 1: the controller, its interaction vectors, the write, then the reads."""
        hidden, cell = self.controller(torch.cat([x, before.read_value], 1), (before.hidden, before.cell))
        vectors = self.interaction_vectors(hidden)
        weights = self.write(before.weights, vectors)
        reads = self._read(weights, vectors, before, delay_weights)
        read_value = reads.values.mean(1)
        after = LoopState(hidden, cell, read_value, weights, reads.recent_keys, reads.recent_values)
        return after, vectors, reads

    def _in_layers(self, state: MNMState) -> LoopState:
        hidden, cell, read_value, memory, *recent = state
        return LoopState(hidden, cell, read_value, split_weights(memory, self.config.widths), *recent)

    def _scan(
        self, inputs: Tensor, state: MNMState, resets: Tensor | None, backend: str
    ) -> CoreOutput[MNMState]:
        """The same as :meth:`_loop`, by a kernel."""
        parameters = self._scan_parameters()

        def run(inputs: Tensor, state: tuple[Tensor, ...], resets: Tensor | None) -> ScanResult:
            return scan(parameters, self._scan_settings, inputs, state, resets, self.initial_memory, backend)

        ratio = snapshot_ratio(self._scan_settings, self.config.hidden_size)
        lengths = segment_lengths(self.config.snapshot_every, inputs.shape[0], ratio)
        result = scan_in_segments(run, lengths, inputs, MNMState(*state), resets)
        return CoreOutput(self.output(result.controls), result.state, result.meta_loss)

    def acting(self) -> AbstractContextManager[None]:
        """See :meth:`MemoryCore.acting`."""
        return cpu.acting(self._scan_parameters())

    def quick_step(self) -> QuickStep | None:
        """See :meth:`MemoryCore.quick_step`; by the C++ kernel."""
        if departure(self, MNMCore, _METHODS_OF_A_STEP, {"output": nn.Linear}) or a_hook(self):
            return None
        weights = self._scan_parameters()
        if self._backend(self.initial_memory) != "cpu" or not fits(*self.parameters(), self.initial_memory):
            return None
        inputs = self.initial_memory.new_zeros(1, self.input_size)
        run = cpu.QuickStep(weights, self._scan_settings, self.initial_memory, inputs, self.initial_state(1))
        weight, bias = self.output.weight, self.output.bias

        def step(inputs: Tensor, state: MNMState, resets: Tensor | None) -> tuple[Tensor, MNMState]:
            controls, state = run(inputs, state, resets)
            return functional.linear(controls, weight, bias)[0], state

        return step

    def _scan_parameters(self) -> ScanParameters:
        cell, predicts = self.controller, self._rule.predicts_activations
        return ScanParameters(
            *(cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh),
            *(self.interaction.weight, self.interaction.bias, self.rate.weight, self.rate.bias),
            *((self.feedback.weight, self.feedback.bias) if predicts else (None, None)),
        )

    def interaction_vectors(self, hidden: Tensor) -> Interaction:
        """Eq. 1, with the rate vector's projection to a number, and the gates; ``hidden`` is ``[B, d_h]``."""
        vectors = torch.tanh(self.interaction(hidden))
        read_keys, write_keys, write_values, rate = vectors.split(self._interaction_sizes, dim=1)
        heads = (self.config.heads, -1)
        return Interaction(
            read_keys.unflatten(1, heads),
            write_keys.unflatten(1, heads),
            write_values.unflatten(1, heads),
            torch.sigmoid(self.rate(rate)),
            torch.sigmoid(self.gates(hidden)) if self._rule.gates else hidden.new_empty(hidden.shape[0], 0),
        )

    def write(self, weights: Sequence[Tensor], vectors: Interaction) -> list[Tensor]:
        """The memory after the write, by the core's rule; a subclass may write by another."""
        config, values = self.config, vectors.write_values
        targets = self.predicted_activations(values) if self._rule.predicts_activations else []
        start = split_weights(self.initial_memory[None], config.widths)
        given = WriteInputs(
            vectors.write_keys,
            values,
            targets,
            vectors.rates,
            vectors.gates,
            start,
            config.normalization,
            config.output_activation,
        )
        return self._rule.write(weights, given)

    def predicted_activations(self, values: Tensor) -> list[Tensor]:
        """The feedback prediction q_psi^l of section 3.4: from ``[B, H, d_v]`` to z'^1 ... z'^L."""
        return list(self.feedback(values).split(self.config.widths[1:], dim=2))

    def _read(
        self, weights: Sequence[Tensor], vectors: Interaction, before: LoopState, delay_weights: Tensor
    ) -> Reads:
        """Values at the read keys, and the meta loss, from one pass through the memory."""
        keys = torch.cat([vectors.write_keys.unsqueeze(1), before.recent_keys], 1)
        values = torch.cat([vectors.write_values.unsqueeze(1), before.recent_values], 1)
        all_keys = torch.cat([vectors.read_keys, keys.flatten(1, 2)], 1)
        recalled = recall(weights, all_keys, self.config.output_activation)
        read_values, written = recalled.tensor_split([self.config.heads], dim=1)
        meta_loss = meta_objective(written.unflatten(1, keys.shape[1:3]), values, delay_weights)
        return Reads(read_values, meta_loss, keys[:, :-1], values[:, :-1])


_METHODS = (
    *("initial_state", "interaction_vectors", "predicted_activations", "write"),
    *("_read", "_step", "_in_layers", "_loop"),
)
"""Methods that the kernels stand for."""
_METHODS_OF_A_STEP = (*_METHODS, "step", "forward", "_backend", "_scan", "_scan_parameters")
"""Methods that a quick step stands for."""
_MODULES_WITHOUT_FEEDBACK: dict[str, type[nn.Module]] = {
    "controller": nn.LSTMCell,
    "interaction": nn.Linear,
    "rate": nn.Linear,
}
_MODULES: dict[str, type[nn.Module]] = {**_MODULES_WITHOUT_FEEDBACK, "feedback": nn.Linear}
"""Modules whose parameters the kernels take."""


def _in_one(now: LoopState) -> MNMState:
    hidden, cell, read_value, weights, *recent = now
    return MNMState(hidden, cell, read_value, join_weights(weights), *recent)


def _trace(vectors: Interaction, read_values: Tensor, *sizes: Tensor) -> dict[str, Tensor]:
    """One step's record.

    Interaction vectors, read values ``[B, H, d_v]``, and the sizes ``[B, L]`` of the write and of all writes
    since the initial memory.
    """
    recorded = (*vectors, read_values, *sizes)
    return dict(zip(MNMCore.trace_names, recorded, strict=True))


def _sizes(before: Sequence[Tensor], after: Sequence[Tensor]) -> Tensor:
    """Frobenius norms of the layers' changes, ``[B, L]``."""
    changes = [new - old for old, new in zip(before, after, strict=True)]
    return torch.stack([torch.linalg.matrix_norm(change) for change in changes], 1)


def _stack(traces: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([trace[name] for trace in traces]) for name in traces[0]}


def _require(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise ValueError(f"{name} must be {allowed}, got {value}.")

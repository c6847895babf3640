"""The ``torch`` backend: the time loop with a hand-written backward pass, in plain torch operations.

It saves vectors for every step, never memories: the backward pass rebuilds the memory before each write by
undoing the write, and across a reset by repeating the writes since the episode's start.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size, ``H`` heads, ``N`` recall delays; sizes ``d_h``,
``d_k``, ``d_v``; all others as in :mod:`mnm_rl.kernels.problem`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mnm_rl.kernels import memory_step
from mnm_rl.kernels.memory_step import MemoryRecord
from mnm_rl.kernels.problem import MNMState, ScanParameters, ScanResult, ScanSettings
from mnm_rl.kernels.scan_tensors import Call, Step, Tensors, take
from mnm_rl.memory import join_weights, meta_objective, split_weights

WRITE_RULES = frozenset({"local", "gradient"})


def scan(
    parameters: ScanParameters,
    settings: ScanSettings,
    inputs: Tensor,
    state: MNMState,
    resets: Tensor | None,
    initial_memory: Tensor,
) -> ScanResult:
    """Run the time loop; arguments as in :func:`mnm_rl.kernels.scan`."""
    delay_weights = inputs.new_tensor(settings.recall_weights)
    call = Call(settings, resets, initial_memory, delay_weights)
    controls, meta_loss, *final = _Scan.apply(call, inputs, *parameters, *state)
    return ScanResult(controls, meta_loss, MNMState(*final))


class _Scan(torch.autograd.Function):
    """The differentiable operation; tensors are the inputs, the parameters and the state."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore
        results, kept = run_forward(call, tensors, keep=any(ctx.needs_input_grad))
        memory = results[2 + MNMState._fields.index("memory")]
        ctx.call, ctx.steps = call, tensors[0].shape[0]
        ctx.save_for_backward(*tensors, memory, *kept)
        return results

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *run_backward(ctx.call, ctx.steps, ctx.saved_tensors, gradients)


def run_forward(
    call: Call, tensors: Sequence[Tensor | None], keep: bool
) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """The forward pass on tensors alone, without autograd.

    Args:
        call: arguments without gradient.
        tensors: the inputs, the parameters and the state, one after the other.
        keep: whether there will be a backward pass.

    Returns:
        the controls, the meta loss and the fields of the last state; and what :func:`run_backward` needs,
        nothing without ``keep``.
    """
    loop = _Forward(call, Tensors.from_tensors(iter(tensors)), keep)
    loop.run()
    kept = [tensor for step in loop.steps for tensor in step.tensors()]
    final = loop.state._replace(memory=join_weights(loop.weights))
    # The last state's fields are views of others; a result must not be.
    results = torch.stack(loop.controls), torch.stack(loop.meta_losses), *[field.clone() for field in final]
    return results, kept


def run_backward(
    call: Call, count: int, saved: Sequence[Tensor | None], gradients: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """The backward pass of :func:`run_forward`, likewise.

    Args:
        call: as there.
        count: steps.
        saved: its ``tensors``, then the memory after the last step, then what it kept.
        gradients: of its results.

    Returns:
        the gradients of ``tensors``.
    """
    row, layers = iter(saved), len(call.settings.widths) - 1
    tensors, (memory,) = Tensors.from_tensors(row), take(row, 1)
    steps = [Step.from_tensors(row, layers) for _ in range(count)]
    d_controls, d_meta_loss, *d_final = gradients
    d_results = ScanResult(d_controls, d_meta_loss, MNMState(*d_final))
    loop = _Backward(call, tensors, steps, memory, d_results)
    loop.run()
    return loop.input_gradients(), *loop.parameter_gradients(), *loop.state_gradients()


class _Forward:
    def __init__(self, call: Call, tensors: Tensors, keep: bool):
        self.settings, self.resets, self.initial_memory, self.delay_weights = call
        inputs, parameters, state = tensors
        self.parameters, self.state, self.keep = parameters, state, keep
        self.weights = [weight.clone() for weight in split_weights(state.memory, self.settings.widths)]
        self.projected = inputs @ parameters.weight_ih[:, : inputs.shape[2]].mT + parameters.bias_ih
        self.recurrent = torch.cat([parameters.weight_hh, parameters.weight_ih[:, inputs.shape[2] :]], 1)
        self.controls: list[Tensor] = []
        self.meta_losses: list[Tensor] = []
        self.steps: list[Step] = []

    def run(self) -> None:
        resets = None if self.resets is None else self.resets.any(1).tolist()
        for t, projected in enumerate(self.projected.unbind(0)):
            if self.resets is not None and resets is not None and resets[t]:
                self._reset(self.resets[t])
            self._step(projected)

    def _reset(self, mask: Tensor) -> None:
        fresh = split_weights(self.initial_memory[None], self.settings.widths)
        for weight, new in zip(self.weights, fresh, strict=True):
            weight.copy_(torch.where(mask[:, None, None], new, weight))
        self.state = MNMState(*[_masked(field, mask) for field in self.state])

    def _step(self, projected: Tensor) -> None:
        settings, parameters, state = self.settings, self.parameters, self.state
        control = torch.cat([state.hidden, state.read_value], 1)
        sums = torch.addmm(parameters.bias_hh, control, self.recurrent.mT) + projected
        i, f, g, o = sums.chunk(4, 1)
        gates = (i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid())
        cell = gates[1] * state.cell + gates[0] * gates[2]
        hidden = gates[3] * cell.tanh()
        weight, bias = parameters.interaction_weight, parameters.interaction_bias
        vectors = torch.addmm(bias, hidden, weight.mT).tanh()
        read_keys, write_keys, write_values, rate = _split_vectors(vectors, settings)
        rates = torch.addmm(parameters.rate_bias, rate, parameters.rate_weight.mT).sigmoid()
        targets = [write_values] if settings.gradient_rule else self._predict(write_values)
        keys = torch.cat([write_keys.unsqueeze(1), state.recent_keys], 1)
        values = torch.cat([write_values.unsqueeze(1), state.recent_values], 1)
        all_keys = torch.cat([read_keys, keys.flatten(1, 2)], 1)
        record = memory_step.write_and_read(self.weights, write_keys, targets, rates, all_keys, settings)
        read_values, written = record.read[-1].tensor_split([settings.heads], 1)
        read_value = read_values.mean(1)
        self.controls.append(torch.cat([hidden, read_value], 1))
        self.meta_losses.append(
            meta_objective(written.unflatten(1, keys.shape[1:3]), values, self.delay_weights)
        )
        if self.keep:
            self.steps.append(Step(control, state.cell, gates, cell, hidden, vectors, values, record))
        self.state = MNMState(hidden, cell, read_value, state.memory, keys[:, :-1], values[:, :-1])

    def _predict(self, values: Tensor) -> list[Tensor]:
        """q_psi of section 3.4."""
        weight, bias = self.parameters.feedback_weight, self.parameters.feedback_bias
        assert weight is not None
        assert bias is not None
        targets = values @ weight.mT + bias
        return list(targets.split(self.settings.widths[1:], 2))


class _Backward:
    """The loop from the last step to the first; ``d_`` before a name means the loss's gradient of it."""

    def __init__(
        self,
        call: Call,
        tensors: Tensors,
        steps: list[Step],
        memory: Tensor,
        d_results: ScanResult,
    ):
        self.settings, self.resets, self.initial_memory, self.delay_weights = call
        self.inputs, self.parameters, self.state = inputs, parameters, _ = tensors
        self.steps = steps
        self.d_controls, self.d_meta_loss, final = d_results
        self.d_control, self.d_cell = torch.cat([final.hidden, final.read_value], 1), final.cell
        self.d_recent_keys, self.d_recent_values = final.recent_keys, final.recent_values
        self.weights = [weight.clone() for weight in split_weights(memory, self.settings.widths)]
        self.d_weights = [weight.clone() for weight in split_weights(final.memory, self.settings.widths)]
        self.recurrent = torch.cat([parameters.weight_hh, parameters.weight_ih[:, inputs.shape[2] :]], 1)
        self.d_sums: list[Tensor] = []
        self.d_vectors: list[Tensor] = []
        self.d_rates: list[Tensor] = []
        self.d_targets: list[Tensor] = []

    def run(self) -> None:
        resets = None if self.resets is None else self.resets.any(1).tolist()
        for t in reversed(range(len(self.steps))):
            d_vectors = self._memory_backward(t, self.steps[t])
            self._controller_backward(t, self.steps[t], d_vectors)
            if self.resets is not None and resets is not None and resets[t]:
                self._reset_backward(t, self.resets[t])
        for found in (self.d_sums, self.d_vectors, self.d_rates, self.d_targets):
            found.reverse()

    def _memory_backward(self, t: int, step: Step) -> Tensor:
        """From the read value and the meta loss to the interaction vectors."""
        settings, heads = self.settings, self.settings.heads
        hidden_size = step.hidden.shape[1]
        d_read_value = self.d_control[:, hidden_size:] + self.d_controls[t][:, hidden_size:]
        recalled = step.memory.read[-1][:, heads:].unflatten(1, step.values.shape[1:3])
        factor = self.delay_weights * 2 / (heads * recalled.shape[3])
        d_recalled = (self.d_meta_loss[t][:, None] * factor)[:, :, None, None] * (recalled - step.values)
        d_output = torch.cat(
            [(d_read_value / heads)[:, None].expand(-1, heads, -1), d_recalled.flatten(1, 2)], 1
        )
        found = memory_step.backward(self.weights, self.d_weights, step.memory, d_output, settings)
        d_keys, d_values = found.reads[:, heads:].unflatten(1, step.values.shape[1:3]).clone(), -d_recalled
        d_keys[:, :-1] += self.d_recent_keys
        d_values[:, :-1] += self.d_recent_values
        self.d_recent_keys, self.d_recent_values = d_keys[:, 1:], d_values[:, 1:]
        d_value = d_values[:, 0] + self._targets_backward(found.targets)
        d_rate_sum = found.rates * step.memory.rates * (1 - step.memory.rates)
        self.d_rates.append(d_rate_sum)
        parts = (found.reads[:, :heads], d_keys[:, 0] + found.write_keys, d_value)
        return torch.cat([*[part.flatten(1) for part in parts], d_rate_sum @ self.parameters.rate_weight], 1)

    def _targets_backward(self, d_targets: list[Tensor]) -> Tensor:
        if self.settings.gradient_rule:
            return d_targets[0]
        assert self.parameters.feedback_weight is not None
        joined = torch.cat(d_targets, 2)
        self.d_targets.append(joined)
        return joined @ self.parameters.feedback_weight

    def _controller_backward(self, t: int, step: Step, d_vectors: Tensor) -> None:
        hidden_size = step.hidden.shape[1]
        d_vectors = d_vectors * (1 - step.vectors.square())
        self.d_vectors.append(d_vectors)
        d_hidden = self.d_control[:, :hidden_size] + self.d_controls[t][:, :hidden_size]
        d_hidden = torch.addmm(d_hidden, d_vectors, self.parameters.interaction_weight)
        i, f, g, o = step.gates
        squashed = step.cell.tanh()
        d_cell = self.d_cell + d_hidden * o * (1 - squashed.square())
        d_sums = torch.cat(
            [
                d_cell * g * i * (1 - i),
                d_cell * step.cell_before * f * (1 - f),
                d_cell * i * (1 - g.square()),
                d_hidden * squashed * o * (1 - o),
            ],
            1,
        )
        self.d_sums.append(d_sums)
        self.d_control, self.d_cell = d_sums @ self.recurrent, d_cell * f

    def _reset_backward(self, t: int, mask: Tensor) -> None:
        """No gradient across the start of an episode; the memory of the episode before it comes back."""
        self.d_control, self.d_cell = _masked(self.d_control, mask), _masked(self.d_cell, mask)
        self.d_recent_keys = _masked(self.d_recent_keys, mask)
        self.d_recent_values = _masked(self.d_recent_values, mask)
        self.d_weights = [_masked(d_weight, mask) for d_weight in self.d_weights]
        if t > 0:
            rows = mask.nonzero()[:, 0]
            for weight, rebuilt in zip(self.weights, self._rebuild(t, rows), strict=True):
                weight[rows] = rebuilt

    def _rebuild(self, t: int, rows: Tensor) -> list[Tensor]:
        """Memories before step t of some examples, by repeating the writes since their episode's start."""
        assert self.resets is not None
        starts = torch.arange(t, device=rows.device)[:, None] * self.resets[:t, rows]
        start = starts.amax(0)
        begun = self.resets[:t, rows].any(0)
        memory = torch.where(begun[:, None], self.initial_memory, self.state.memory[rows])
        weights = [weight.clone() for weight in split_weights(memory, self.settings.widths)]
        for s in range(int(start.min()), t):
            record = self.steps[s].memory
            chosen = MemoryRecord(
                record.rates[rows], [z[rows] for z in record.written], [e[rows] for e in record.errors], []
            )
            memory_step.replay(weights, chosen, start <= s, self.settings)
        return weights

    def input_gradients(self) -> Tensor:
        """``[T, B, I]``."""
        return torch.stack(self.d_sums) @ self.parameters.weight_ih[:, : self.inputs.shape[2]]

    def parameter_gradients(self) -> tuple[Tensor | None, ...]:
        """In the order of :class:`ScanParameters`, one matrix product over all steps each."""
        d_sums, d_vectors, d_rates = (
            torch.stack(found).flatten(0, 1) for found in (self.d_sums, self.d_vectors, self.d_rates)
        )
        before = torch.cat([step.control_before for step in self.steps])
        d_recurrent = d_sums.mT @ before
        hidden_size = self.d_cell.shape[1]
        d_weight_ih = torch.cat([d_sums.mT @ self.inputs.flatten(0, 1), d_recurrent[:, hidden_size:]], 1)
        vectors = torch.cat([step.vectors for step in self.steps])
        _, _, values, rate = _split_vectors(vectors, self.settings)
        d_feedback = (None, None)
        if not self.settings.gradient_rule:
            d_targets = torch.cat(self.d_targets).flatten(0, 1)
            d_feedback = (d_targets.mT @ values.flatten(0, 1), d_targets.sum(0))
        return (
            *(d_weight_ih, d_recurrent[:, :hidden_size], d_sums.sum(0), d_sums.sum(0)),
            *(d_vectors.mT @ torch.cat([step.hidden for step in self.steps]), d_vectors.sum(0)),
            *(d_rates.mT @ rate, d_rates.sum(0), *d_feedback),
        )

    def state_gradients(self) -> MNMState:
        """Of the state before the first step."""
        hidden_size = self.d_cell.shape[1]
        d_hidden, d_read_value = self.d_control.tensor_split([hidden_size], 1)
        d_memory = join_weights(self.d_weights)
        return MNMState(
            d_hidden, self.d_cell, d_read_value, d_memory, self.d_recent_keys, self.d_recent_values
        )


def _masked(field: Tensor, mask: Tensor) -> Tensor:
    """Zero where ``mask`` ``[B]`` is true."""
    return field.masked_fill(mask.view(-1, *[1] * (field.dim() - 1)), 0)


def _split_vectors(vectors: Tensor, settings: ScanSettings) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read keys, write keys ``[B, H, d_k]``, write values ``[B, H, d_v]``, rate vector ``[B, d_k]``."""
    read_keys, write_keys, write_values, rate = vectors.tensor_split(settings.vector_splits, 1)
    heads = (settings.heads, -1)
    return (
        read_keys.unflatten(1, heads),
        write_keys.unflatten(1, heads),
        write_values.unflatten(1, heads),
        rate,
    )

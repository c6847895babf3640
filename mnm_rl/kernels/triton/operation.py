"""The differentiable operation around the two Triton kernels.

Like the ``torch`` backend it keeps vectors for every step, never memories. Outside of the kernels remain the
products that need no loop: the projection of the inputs and the gradients of the parameters.

Dimensions: ``I`` input size; all others as in :mod:`mnm_rl.kernels.triton.layout`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from mnm_rl.kernels.problem import MNMState, ScanParameters, ScanResult, ScanSettings
from mnm_rl.kernels.triton.backward import backward_kernel
from mnm_rl.kernels.triton.forward import forward_kernel
from mnm_rl.kernels.triton.layout import TILES, Gradients, Layout, Memories, Record, Weights, make_layout

INTERPRETED = not isinstance(forward_kernel, triton.JITFunction)

# One stage: a program must not load ahead what it writes in the same loop. Fused multiply-adds are named
# because Triton's default is about to change.
_OPTIONS: dict[str, Any] = {"num_warps": 8, "num_stages": 1, "enable_fp_fusion": True}


class _Call(NamedTuple):
    """The arguments of a scan that have no gradient."""

    settings: ScanSettings
    resets: Tensor | None
    initial_memory: Tensor


def scan(
    parameters: ScanParameters,
    settings: ScanSettings,
    inputs: Tensor,
    state: MNMState,
    resets: Tensor | None,
    initial_memory: Tensor,
) -> ScanResult:
    """Run the time loop; arguments as in :func:`mnm_rl.kernels.scan`."""
    call = _Call(settings, resets, initial_memory.contiguous())
    tensors = [None if tensor is None else tensor.contiguous() for tensor in (inputs, *parameters, *state)]
    results = _Scan.apply(call, *tensors)
    return ScanResult(results[0], results[1], MNMState(*results[2:]))


class _Scan(torch.autograd.Function):
    """The differentiable operation; tensors are the inputs, the parameters and the state."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore
        keep = any(ctx.needs_input_grad)
        S = _layout(call, *tensors)
        record, memory, meta_loss = _run_forward(call, S, *_unpack(tensors), keep)
        if keep:
            ctx.call, ctx.S = call, S
            ctx.save_for_backward(*tensors, *record, memory)
        control, cell = record.control, record.cell[-1].clone()
        hidden, read_value = (part.clone() for part in control[-1].tensor_split([S.hidden], 1))
        keys, values = _recent(record.vectors, record.age, S)
        return control[1:].clone(), meta_loss, hidden, cell, read_value, memory, keys, values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        count = 1 + len(ScanParameters._fields) + len(MNMState._fields)
        # Once: under torch's checkpointing each access would repeat the forward pass.
        saved = ctx.saved_tensors
        tensors, (*kept, memory) = saved[:count], saved[count:]
        inputs, parameters, state = _unpack(tensors)
        record = Record(*kept)
        d = _run_backward(ctx.call, ctx.S, inputs, parameters, state, record, memory, gradients)
        d_inputs = d.sums @ parameters.weight_ih[:, : inputs.shape[2]]
        d_parameters = _parameter_gradients(ctx.S, inputs, ctx.call.resets, record, d)
        return None, d_inputs, *d_parameters, *_state_gradients(ctx.S, d)


def _unpack(tensors: Any) -> tuple[Tensor, ScanParameters, MNMState]:
    count = len(ScanParameters._fields)
    return tensors[0], ScanParameters(*tensors[1 : 1 + count]), MNMState(*tensors[1 + count :])


def _layout(call: _Call, *tensors: Tensor) -> Layout:
    inputs, parameters, _ = _unpack(tensors)
    return make_layout(call.settings, parameters.weight_hh.shape[1], TILES[inputs.dtype])


def _weights(S: Layout, parameters: ScanParameters, settings: ScanSettings, input_size: int) -> Weights:
    recurrent = torch.cat([parameters.weight_hh, parameters.weight_ih[:, input_size:]], 1)
    delay_weights = recurrent.new_tensor(settings.recall_weights)
    return Weights(recurrent, *parameters[4:], delay_weights)


def _run_forward(
    call: _Call, S: Layout, inputs: Tensor, parameters: ScanParameters, state: MNMState, keep: bool
) -> tuple[Record, Tensor, Tensor]:
    """The record, the last memory and the meta loss."""
    steps, batch, input_size = inputs.shape
    weights = _weights(S, parameters, call.settings, input_size)
    projected = inputs @ parameters.weight_ih[:, :input_size].mT + (parameters.bias_ih + parameters.bias_hh)
    record = _new_record(call, S, inputs, state, keep)
    memories = Memories(state.memory.clone(), state.memory, call.initial_memory)
    meta_loss = inputs.new_empty(steps, batch)
    constants = {"KEEP": keep, "S": S, **_OPTIONS}
    with torch.cuda.device_of(inputs):
        forward_kernel[(batch,)](weights, projected, memories, record, meta_loss, steps, **constants)
    return record, memories.now, meta_loss


def _new_record(call: _Call, S: Layout, inputs: Tensor, state: MNMState, keep: bool) -> Record:
    """With the state before the first step, otherwise to be filled."""
    steps, batch, _ = inputs.shape
    kept = (steps if keep else 1, batch)
    control = inputs.new_empty(1 + steps, batch, S.control)
    cell = inputs.new_empty(1 + steps, batch, S.hidden)
    control[0], cell[0] = torch.cat([state.hidden, state.read_value], 1), state.cell
    vectors = inputs.new_empty(S.delays - 1 + steps, batch, S.vectors)
    past_keys, past_values = _write_parts(vectors[: S.delays - 1].transpose(0, 1), S)
    past_keys.copy_(state.recent_keys.flip(1))
    past_values.copy_(state.recent_values.flip(1))
    return Record(
        age=_ages(call.resets, inputs, S),
        control=control,
        cell=cell,
        vectors=vectors,
        gates=inputs.new_empty(*kept, 4 * S.hidden),
        rates=inputs.new_empty(*kept, S.rates),
        written=inputs.new_empty(*kept, S.heads, S.activations),
        errors=inputs.new_empty(*kept, S.heads, S.activations),
        read=inputs.new_empty(*kept, S.reads, S.activations),
    )


def _ages(resets: Tensor | None, inputs: Tensor, S: Layout) -> Tensor:
    """Steps since the last reset, ``[T, B]``; more than any delay and any t where there was none."""
    steps, batch, _ = inputs.shape
    t = torch.arange(steps, device=inputs.device, dtype=torch.int32)[:, None]
    if resets is None:
        return (t + S.delays).repeat(1, batch)
    last = torch.where(resets, t, -S.delays).cummax(0).values
    return (t - last).to(torch.int32).contiguous()


def _write_parts(vectors: Tensor, S: Layout) -> tuple[Tensor, Tensor]:
    """Views of the write keys ``[..., H, d_k]`` and write values ``[..., H, d_v]``."""
    keys = vectors[..., S.heads * S.key_size : S.write_values_at]
    values = vectors[..., S.write_values_at : S.rate_vector_at]
    return keys.unflatten(-1, (S.heads, S.key_size)), values.unflatten(-1, (S.heads, S.value_size))


def _recent(vectors: Tensor, age: Tensor, S: Layout) -> tuple[Tensor, Tensor]:
    """The last state's recent keys and values: zeros where they are from before the last reset."""
    keys, values = _write_parts(_latest(vectors, S), S)
    forgotten = _forgotten(age, S)
    return keys.flip(1).masked_fill(forgotten, 0), values.flip(1).masked_fill(forgotten, 0)


def _latest(vectors: Tensor, S: Layout) -> Tensor:
    """A view of the last N - 1 steps' interaction vectors, the latest last, ``[B, N - 1, U]``."""
    return vectors[vectors.shape[0] - (S.delays - 1) :].transpose(0, 1)


def _forgotten(age: Tensor, S: Layout) -> Tensor:
    """Which recent keys are from before the last reset, ``[B, N - 1, 1, 1]``."""
    return torch.arange(S.delays - 1, device=age.device)[:, None, None] > age[-1, :, None, None, None]


def _run_backward(
    call: _Call,
    S: Layout,
    inputs: Tensor,
    parameters: ScanParameters,
    state: MNMState,
    record: Record,
    memory: Tensor,
    gradients: tuple[Tensor, ...],
) -> Gradients:
    weights = _weights(S, parameters, call.settings, inputs.shape[2])
    memories = Memories(memory.clone(), state.memory, call.initial_memory)
    d = _new_gradients(S, record, gradients)
    steps, batch, _ = inputs.shape
    constants = {"S": S, **_OPTIONS}
    with torch.cuda.device_of(inputs):
        backward_kernel[(batch,)](weights, memories, record, d, steps, **constants)
    return d


def _new_gradients(S: Layout, record: Record, gradients: tuple[Tensor, ...]) -> Gradients:
    """With the gradients of the outputs, otherwise to be filled."""
    d_controls, d_meta_loss, *d_final = gradients
    final = MNMState(*d_final)
    d_vectors = torch.zeros_like(record.vectors)
    d_keys, d_values = _write_parts(_latest(d_vectors, S), S)
    forgotten = _forgotten(record.age, S)
    d_keys.copy_(final.recent_keys.masked_fill(forgotten, 0).flip(1))
    d_values.copy_(final.recent_values.masked_fill(forgotten, 0).flip(1))
    new = record.cell.new_empty
    batch = record.age.shape[1]
    return Gradients(
        controls=d_controls.contiguous(),
        meta_loss=d_meta_loss.contiguous(),
        control=torch.cat([final.hidden, final.read_value], 1),
        cell=final.cell.clone(memory_format=torch.contiguous_format),
        memory=final.memory.clone(memory_format=torch.contiguous_format),
        sums=torch.empty_like(record.gates),
        vectors=d_vectors,
        rates=torch.empty_like(record.rates),
        errors=new(batch, S.heads, S.activations) if S.gradient_rule else torch.empty_like(record.errors),
        written=new(batch, S.heads, S.activations),
        read=new(batch, S.reads, S.activations),
    )


def _parameter_gradients(
    S: Layout, inputs: Tensor, resets: Tensor | None, record: Record, d: Gradients
) -> tuple[Tensor | None, ...]:
    """In the order of ``ScanParameters``, one matrix product over all steps each."""
    before = record.control[:-1]
    if resets is not None:
        before = before.masked_fill(resets[:, :, None], 0)
    d_sums, d_vectors = d.sums.flatten(0, 1), d.vectors[S.delays - 1 :].flatten(0, 1)
    d_rates, hidden = d.rates.flatten(0, 1), record.control[1:, :, : S.hidden].flatten(0, 1)
    d_recurrent = d_sums.mT @ before.flatten(0, 1)
    d_weight_ih = torch.cat([d_sums.mT @ inputs.flatten(0, 1), d_recurrent[:, S.hidden :]], 1)
    vectors = record.vectors[S.delays - 1 :].flatten(0, 1)
    d_feedback = (None, None)
    if not S.gradient_rule:
        _, values = _write_parts(vectors, S)
        d_targets = -d.errors.flatten(0, 2)
        d_feedback = (d_targets.mT @ values.flatten(0, 1), d_targets.sum(0))
    return (
        *(d_weight_ih, d_recurrent[:, : S.hidden], d_sums.sum(0), d_sums.sum(0)),
        *(d_vectors.mT @ hidden, d_vectors.sum(0)),
        *(d_rates.mT @ vectors[:, S.rate_vector_at :], d_rates.sum(0), *d_feedback),
    )


def _state_gradients(S: Layout, d: Gradients) -> MNMState:
    """Of the state before the first step."""
    d_hidden, d_read_value = d.control.tensor_split([S.hidden], 1)
    d_keys, d_values = _write_parts(d.vectors[: S.delays - 1].transpose(0, 1), S)
    return MNMState(d_hidden, d.cell, d_read_value, d.memory, d_keys.flip(1), d_values.flip(1))

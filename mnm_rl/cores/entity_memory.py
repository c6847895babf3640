"""The memory of EntNet over a whole sequence, with its gradients written by hand.

Henaff et al. 2017, Eq. 2 to 5, of which only what feeds back is here: what depends on a sentence or on a key
alone is computed for all steps before. Backward keeps two tensors of the memory's size for each step, the
states and the candidates before phi, where torch keeps twice as much; the gradient of U is one product.

Dimensions: ``T`` time, ``B`` batch, ``M`` slots, ``D`` width of a slot.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class EntityInputs(NamedTuple):
    """What goes into the memory.

    Attributes:
        start: ``[B, M, D]``, the state before the first step.
        initial: ``[M, D]``, what a reset puts there.
        sentences: s, ``[T, B, D]``.
        gate_parts: ``s . w_j + c_j``, ``[T, B, M]``.
        candidate_parts: ``V s + b``, ``[T, B, D]``.
        key_parts: ``W w_j``, ``[M, D]``.
        of_slot: U, ``[D, D]``.
        slopes: of the PReLU, ``[D]``.
    """

    start: Tensor
    initial: Tensor
    sentences: Tensor
    gate_parts: Tensor
    candidate_parts: Tensor
    key_parts: Tensor
    of_slot: Tensor
    slopes: Tensor


def run_memory(inputs: EntityInputs, writes: Tensor | None, resets: Tensor | None) -> Tensor:
    """The states after every step, ``[T, B, M, D]``.

    Args:
        inputs: all parts.
        writes: boolean ``[T, B]``; where false, the state stays as it was. All write if not given.
        resets: boolean ``[T, B]``, before the step.
    """
    return _Memory.apply(writes, resets, *inputs)  # pyright: ignore[reportReturnType]


def advance(
    memory: Tensor, sentences: Tensor, gate_parts: Tensor, fixed: Tensor, of_slot: Tensor, slopes: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One step: gates ``[B, M]``, candidates before phi ``[B, M, D]``, inverse norms and the next state.

    Args:
        memory: ``[B, M, D]``.
        sentences: ``[B, D]``.
        gate_parts: ``[B, M]``.
        fixed: ``V s + W w_j + b``, ``[B, M, D]``.
        of_slot: U.
        slopes: ``[D]``.
    """
    gates = torch.sigmoid((memory @ sentences.unsqueeze(2)).squeeze(2) + gate_parts)
    before_phi = memory @ of_slot.T + fixed
    candidates = torch.where(before_phi > 0, before_phi, slopes * before_phi)
    changed = memory + gates.unsqueeze(2) * candidates
    norms = torch.linalg.vector_norm(changed, dim=2, keepdim=True)
    inverse = 1 / torch.where(norms == 0, 1, norms)
    return gates, before_phi, inverse, changed * inverse


class _Memory(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, writes: Tensor | None, resets: Tensor | None, *parts: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        x = EntityInputs(*parts)
        length, memory = len(x.sentences), x.start
        states, before_phis = (memory.new_empty(length, *memory.shape) for _ in range(2))
        gates, norms = torch.empty_like(x.gate_parts), torch.empty_like(x.gate_parts)
        for t in range(length):
            memory = _reset(memory, x.initial, resets, t)
            fixed = x.candidate_parts[t].unsqueeze(1) + x.key_parts
            step = advance(memory, x.sentences[t], x.gate_parts[t], fixed, x.of_slot, x.slopes)
            gates[t], before_phis[t], norms[t] = step[0], step[1], step[2].squeeze(2)
            new = step[3]
            memory = new if writes is None else torch.where(writes[t].view(-1, 1, 1), new, memory)
            states[t] = memory
        ctx.masks = writes, resets
        ctx.save_for_backward(
            x.start, x.initial, x.sentences, x.of_slot, x.slopes, states, gates, before_phis, norms
        )
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_states: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        start, initial, sentences, of_slot, slopes, states, gates, before_phis, norms = ctx.saved_tensors
        writes, resets = ctx.masks
        befores = torch.cat([start.unsqueeze(0), states[:-1]])
        if resets is not None:
            befores = torch.where(resets.view(*resets.shape, 1, 1), initial, befores)
        kept = None
        if writes is not None:
            norms, kept = norms * writes.unsqueeze(2), (~writes).view(*writes.shape, 1, 1).to(norms.dtype)
        # What phi multiplies with, the candidates, and the two derivatives of a sigmoid.
        factors = torch.where(before_phis > 0, 1, slopes)
        candidates = factors * before_phis
        of_gates = gates * (1 - gates)
        d_candidates, d_gate_parts = torch.empty_like(states), torch.empty_like(gates)
        d_memory, d_initial = torch.zeros_like(start), torch.zeros_like(initial)
        for t in reversed(range(len(d_states))):
            d_memory = d_memory + d_states[t]
            along = torch.linalg.vecdot(states[t], d_memory).unsqueeze(2)
            d_changed = torch.addcmul(d_memory, states[t], along, value=-1).mul_(norms[t].unsqueeze(2))
            torch.mul(torch.linalg.vecdot(d_changed, candidates[t]), of_gates[t], out=d_gate_parts[t])
            torch.mul(d_changed, gates[t].unsqueeze(2), out=d_candidates[t])
            if kept is not None:
                d_changed.addcmul_(d_memory, kept[t])
            d_memory = d_changed.addcmul_(d_gate_parts[t].unsqueeze(2), sentences[t].unsqueeze(1))
            d_memory.flatten(0, 1).addmm_((d_candidates[t] * factors[t]).flatten(0, 1), of_slot)
            if resets is not None:
                d_initial += (d_memory * resets[t].view(-1, 1, 1)).sum(0)
                d_memory = d_memory * ~resets[t].view(-1, 1, 1)
        d_before_phis = d_candidates * factors
        d_of_slot = d_before_phis.flatten(0, 2).T @ befores.flatten(0, 2)
        d_sentences = torch.einsum("tbm,tbmd->tbd", d_gate_parts, befores)
        d_slopes = d_candidates.mul_(before_phis.clamp(max=0)).sum((0, 1, 2))
        d_parts = (d_sentences, d_gate_parts, d_before_phis.sum(2), d_before_phis.sum((0, 1)))
        return None, None, d_memory, d_initial, *d_parts, d_of_slot, d_slopes


def _reset(memory: Tensor, initial: Tensor, resets: Tensor | None, t: int) -> Tensor:
    return memory if resets is None else torch.where(resets[t].view(-1, 1, 1), initial, memory)

"""The time loop of a neural Turing machine with a hand-written backward pass, in plain torch operations.

The plain form is :meth:`mnm_rl.cores.ntm.NTMCore._advance`. Here nothing is made at every step that can be
made for all steps together: products with the inputs before the loop, derivatives of the nonlinearities
before the loop back, gradients of the weights after it. Every step's memory is kept, once.

Dimensions: ``T`` time, ``B`` batch, ``H`` read heads and as many write heads, ``N`` slots, ``W`` slot size,
``S`` shift values, ``P`` numbers that the controller tells the heads; sizes ``d_h`` controller,
``d_c = d_h + H W`` controller and reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mnm_rl.kernels.ntm_problem import (
    CLIP,
    SMALLEST_NORM,
    SMALLEST_WEIGHT,
    NTMParameters,
    NTMSizes,
    NTMState,
)


def scan(
    sizes: NTMSizes,
    projected: Tensor,
    parameters: NTMParameters,
    state: NTMState,
    initial: NTMState,
    resets: Tensor | None,
) -> tuple[Tensor, NTMState]:
    """Run the time loop; as :func:`mnm_rl.kernels.ntm.scan`."""
    controls, *final = _Scan.apply(sizes, resets, projected, *parameters, *state, *initial)
    return controls, NTMState(*final)


class _Step(NamedTuple):
    """What a step leaves for the backward pass."""

    before: NTMState
    cell: Tensor
    """After the step, ``[B, d_h]``."""
    way: _Way
    weights: Tensor
    """After the step, ``[B, 2 H, N]``."""
    memory: Tensor
    """After the step, ``[B, N, W]``."""

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them in a row."""
        return *self.before, self.cell, *self.way, self.weights, self.memory

    @classmethod
    def from_tensors(cls, row: Sequence[Tensor]) -> _Step:
        """The inverse of :meth:`tensors`."""
        fields = len(NTMState._fields)
        return cls(NTMState(*row[:fields]), row[fields], _Way(*row[fields + 1 : -2]), *row[-2:])


class _Way(NamedTuple):
    """How the weights of a step came about."""

    content: Tensor
    """Weights by content alone (Graves et al. 2014, Eq. 5), ``[B, 2 H, N]``."""
    cosines: Tensor
    """``[B, 2 H, N]``."""
    products: Tensor
    """Of norms, with what is added to them, ``[B, 2 H, N]``."""
    key_norms: Tensor
    """``[B, 2 H, 1]``."""
    slot_norms: Tensor
    """``[B, 1, N]``."""
    padded: Tensor
    """Gated weights (Eq. 7) with those of the other end at both ends, ``[B, 2 H, N + S - 1]``."""
    shifted: Tensor
    """Weights after the shift (Eq. 8), ``[B, 2 H, N]``."""
    logarithms: Tensor
    """Of these, ``[B, 2 H, N]``."""


class _Scan(torch.autograd.Function):
    """The differentiable operation; tensors are the inputs, the parameters and both states."""

    @staticmethod
    def forward(ctx: Any, sizes: NTMSizes, resets: Tensor | None, *row: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore
        keep = any(ctx.needs_input_grad)
        loop = _Forward(sizes, resets, row, keep)
        loop.run()
        if keep:
            ctx.sizes, ctx.resets, ctx.has_reset = sizes, resets, loop.has_reset
            kept = [tensor for step in loop.steps for tensor in step.tensors()]
            ctx.save_for_backward(*row[1:3], loop.controls, loop.gates, loop.raw, loop.told, *kept)
        # The last state's fields are views of others; an output must not be.
        return loop.controls, *[field.clone() for field in loop.state]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        loop = _Backward(ctx, gradients)
        loop.run()
        return None, None, *loop.gradients()


class _Forward:
    """The loop, with results of all steps in tensors made beforehand."""

    def __init__(self, sizes: NTMSizes, resets: Tensor | None, row: tuple[Tensor, ...], keep: bool):
        projected, (recurrent, interaction, self.bias) = row[0], row[1:4]
        self.sizes, self.resets, self.keep = sizes, resets, keep
        self.state, self.initial = NTMState(*row[4:9]), NTMState(*row[9:14])
        length, batch, _ = projected.shape
        self.size = self.state.hidden.shape[1]
        self.recurrent, self.interaction = _sigmoids_first(recurrent).mT.contiguous(), interaction.mT
        self.has_reset = [False] * length if resets is None else resets.any(1).tolist()
        self.gates = _sigmoids_first(projected, -1)
        self.raw = projected.new_empty(length, batch, sum(sizes.told))
        self.told = torch.empty_like(self.raw)
        self.controls = projected.new_empty(length, batch, recurrent.shape[1])
        self.steps: list[_Step] = []

    def run(self) -> None:
        """All steps."""
        for t in range(len(self.gates)):
            if self.resets is not None and self.has_reset[t]:
                masks = [self.resets[t].view(-1, *[1] * (field.dim() - 1)) for field in self.state]
                pairs = zip(masks, self.initial, self.state, strict=True)
                self.state = NTMState(*(torch.where(*fields) for fields in pairs))
            step, self.state = self._step(t, self.state)
            if self.keep:
                self.steps.append(step)

    def _step(self, t: int, before: NTMState) -> tuple[_Step, NTMState]:
        hidden, cell = self._control(t, before)
        told = _Told(self.sizes, self._tell(t, hidden))
        way, weights = _address(before, told)
        write_weights, read_weights = weights.chunk(2, 1)
        memory = before.memory
        for head in range(self.sizes.heads):
            memory = _erase(memory, memory, write_weights, told.erases, head)
        memory = torch.baddbmm(memory, write_weights.mT, told.adds)
        reads = torch.bmm(read_weights, memory)
        self.controls[t] = torch.cat([hidden, reads.flatten(1)], 1)
        step = _Step(before, cell, way, weights, memory)
        return step, NTMState(hidden, cell, reads, weights, memory)

    def _control(self, t: int, before: NTMState) -> tuple[Tensor, Tensor]:
        """The LSTM's hidden state and cell."""
        size, gates = self.size, self.gates[t]
        gates.addmm_(torch.cat([before.hidden, before.reads.flatten(1)], 1), self.recurrent)
        gates[:, : 3 * size].sigmoid_()
        gates[:, 3 * size :].tanh_()
        enter, keep, out, new = gates.split(size, 1)
        cell = torch.addcmul(enter * new, keep, before.cell)
        return out * cell.tanh(), cell

    def _tell(self, t: int, hidden: Tensor) -> Tensor:
        """What the heads are told, after its nonlinearities, ``[B, P]``."""
        torch.addmm(self.bias, hidden, self.interaction, out=self.raw[t])
        told = torch.clamp(self.raw[t], -CLIP, CLIP, out=self.told[t])
        bounded, fractions, positive, shifts = told.split(_kinds(self.sizes), 1)
        bounded.tanh_()
        fractions.sigmoid_()
        positive.copy_(F.softplus(positive))
        positive[:, 2 * self.sizes.heads :].add_(1)  # sharpenings
        shifts.unflatten(1, (-1, self.sizes.shifts)).copy_(
            shifts.unflatten(1, (-1, self.sizes.shifts)).softmax(2)
        )
        return told


class _Told:
    """Views of what the heads are told, or of its gradients, ``[B, P]``."""

    def __init__(self, sizes: NTMSizes, row: Tensor):
        keys, adds, erases, gates, strengths, sharpenings, shifts = row.split(sizes.told, 1)
        self.keys = keys.unflatten(1, (-1, sizes.slot_size))
        self.adds = adds.unflatten(1, (-1, sizes.slot_size))
        self.erases = erases.unflatten(1, (-1, sizes.slot_size))
        self.gates, self.strengths = gates.unsqueeze(2), strengths.unsqueeze(2)
        self.sharpenings = sharpenings.unsqueeze(2)
        self.shifts = shifts.unflatten(1, (-1, sizes.shifts))


def _address(before: NTMState, told: _Told) -> tuple[_Way, Tensor]:
    """The weights of all heads (Graves et al. 2014, Eq. 5 to 9), after the way to them."""
    memory = before.memory
    key_norms = torch.linalg.vector_norm(told.keys, dim=2, keepdim=True)
    slot_norms = torch.linalg.vector_norm(memory, dim=2).unsqueeze(1)
    products = (key_norms * slot_norms).add_(SMALLEST_NORM)
    cosines = torch.bmm(told.keys, memory.mT).div_(products)
    content = (cosines * told.strengths).softmax(2)
    padded = _pad(torch.lerp(before.weights, content, told.gates), told.shifts.shape[2])
    shifted = _convolve(padded, told.shifts).add_(SMALLEST_WEIGHT)
    logarithms = shifted.log()
    weights = (logarithms * told.sharpenings).softmax(2)
    way = _Way(content, cosines, products, key_norms, slot_norms, padded, shifted, logarithms)
    return way, weights


def _erase(values: Tensor, memory: Tensor, weights: Tensor, erases: Tensor, head: int) -> Tensor:
    """``values`` less what a head erases of ``memory``, all ``[B, N, W]`` (Graves et al. 2014, Eq. 3)."""
    return torch.addcmul(values, memory, weights[:, head, :, None] * erases[:, head, None], value=-1)


def _pad(weights: Tensor, shifts: int) -> Tensor:
    """``[B, 2 H, N]`` as part of a circle, with as many more at each end as a head can move."""
    far = shifts // 2
    return torch.cat([weights[..., weights.shape[2] - far :], weights, weights[..., :far]], 2)


def _convolve(padded: Tensor, shifts: Tensor) -> Tensor:
    """Each slot's sum over those around it, ``[B, 2 H, N]``; the last of ``shifts`` is of the lowest."""
    count = shifts.shape[2]
    slots = padded.shape[2] - count + 1
    total = padded[..., :slots] * shifts[..., count - 1 :]
    for place in range(1, count):
        last = count - 1 - place
        total.addcmul_(padded[..., place : place + slots], shifts[..., last : last + 1])
    return total


class _Backward:
    """The loop from the last step to the first."""

    def __init__(self, ctx: Any, gradients: tuple[Tensor, ...]):
        recurrent, self.interaction, self.controls, self.gates, raw, self.told, *kept = ctx.saved_tensors
        self.sizes, self.resets, self.has_reset = ctx.sizes, ctx.resets, ctx.has_reset
        self.recurrent = _sigmoids_first(recurrent)
        self.size = self.gates.shape[2] // 4
        length = len(self.gates)
        each = len(kept) // length
        self.steps = [_Step.from_tensors(kept[each * t : each * (t + 1)]) for t in range(length)]
        self.d_controls, *d_state = gradients
        self.d_state = NTMState(*d_state)
        self.d_initial = NTMState(*(torch.zeros_like(field) for field in d_state))
        self.gate_slopes, self.told_slopes = self._gate_slopes(), self._told_slopes(raw)
        self.d_gates, self.d_told = torch.empty_like(self.gates), torch.empty_like(self.told)

    def _gate_slopes(self) -> Tensor:
        """Derivatives of the LSTM's nonlinearities, ``[T, B, 4 d_h]``."""
        sigmoids, new = self.gates.split([3 * self.size, self.size], 2)
        return torch.cat([sigmoids * (1 - sigmoids), 1 - new.square()], 2)

    def _told_slopes(self, raw: Tensor) -> Tensor:
        """Derivatives of what the heads are told by what was said, but for the softmax, ``[T, B, P]``."""
        bounded, fractions, positive, shifts = self.told.split(_kinds(self.sizes), 2)
        strengths, sharpenings = positive.chunk(2, 2)
        slopes = [
            1 - bounded.square(),
            fractions * (1 - fractions),
            1 - torch.exp(-strengths),
            1 - torch.exp(1 - sharpenings),
            torch.ones_like(shifts),
        ]
        return torch.cat(slopes, 2).mul_(raw.abs() <= CLIP)

    def run(self) -> None:
        """All steps."""
        for t in reversed(range(len(self.steps))):
            d_state = self._step(t)
            if self.resets is not None and self.has_reset[t]:
                d_state = self._cross_reset(self.resets[t], d_state)
            self.d_state = d_state

    def _cross_reset(self, reset: Tensor, d_state: NTMState) -> NTMState:
        """Gradients of the state before a step go to the initial state where an episode starts."""
        masks = [reset.view(-1, *[1] * (field.dim() - 1)) for field in d_state]
        for mask, d_initial, d in zip(masks, self.d_initial, d_state, strict=True):
            d_initial += d * mask
        return NTMState(*(d * ~mask for mask, d in zip(masks, d_state, strict=True)))

    def _step(self, t: int) -> NTMState:
        """Gradients of the state before a step, from those of the state after it."""
        step, d_after = self.steps[t], self.d_state
        told, d_told = _Told(self.sizes, self.told[t]), _Told(self.sizes, self.d_told[t])
        d_hidden, d_reads = self.d_controls[t].tensor_split([self.size], 1)
        d_reads = d_after.reads + d_reads.unflatten(1, (self.sizes.heads, -1))
        d_weights, d_memory = _memory_backward(step, told, d_told, d_reads, d_after)
        d_weights, d_memory = _address_backward(step, told, d_told, d_weights, d_memory)
        d_hidden = self._tell_backward(t, told, d_told, d_after.hidden + d_hidden)
        d_seen, d_cell = self._control_backward(t, step, d_hidden, d_after.cell)
        d_hidden, d_reads = d_seen.tensor_split([self.size], 1)
        return NTMState(d_hidden, d_cell, d_reads.unflatten(1, (self.sizes.heads, -1)), d_weights, d_memory)

    def _tell_backward(self, t: int, told: _Told, d_told: _Told, d_hidden: Tensor) -> Tensor:
        """Back through the nonlinearities and the layer before them; the gradient of the hidden state."""
        d_told.shifts.copy_(_softmax_backward(d_told.shifts, told.shifts))
        self.d_told[t].mul_(self.told_slopes[t])
        return torch.addmm(d_hidden, self.d_told[t], self.interaction)

    def _control_backward(
        self, t: int, step: _Step, d_hidden: Tensor, d_cell: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Back through the LSTM; gradients of hidden state and reads in one, and of the cell, before it."""
        enter, keep, out, new = self.gates[t].split(self.size, 1)
        squashed = step.cell.tanh()
        d_cell = torch.addcmul(d_cell, d_hidden * out, 1 - squashed.square())
        d_enter, d_keep, d_out, d_new = self.d_gates[t].split(self.size, 1)
        torch.mul(d_cell, new, out=d_enter)
        torch.mul(d_cell, step.before.cell, out=d_keep)
        torch.mul(d_hidden, squashed, out=d_out)
        torch.mul(d_cell, enter, out=d_new)
        self.d_gates[t].mul_(self.gate_slopes[t])
        return self.d_gates[t] @ self.recurrent, d_cell * keep

    def gradients(self) -> tuple[Tensor, ...]:
        """Of all tensors that the operation was given."""
        befores = [step.before for step in self.steps]
        seen = torch.cat([torch.stack([each.hidden for each in befores]), self._reads(befores)], 2)
        hidden = self.controls[..., : self.size]
        d_gates = _sigmoids_first(self.d_gates, 2)  # exchanges the last two again
        d_recurrent = d_gates.flatten(0, 1).mT @ seen.flatten(0, 1)
        d_interaction = self.d_told.flatten(0, 1).mT @ hidden.flatten(0, 1)
        d_parameters = NTMParameters(d_recurrent, d_interaction, self.d_told.sum((0, 1)))
        return d_gates, *d_parameters, *self.d_state, *self.d_initial

    def _reads(self, states: list[NTMState]) -> Tensor:
        return torch.stack([each.reads for each in states]).flatten(2)


def _memory_backward(
    step: _Step, told: _Told, d_told: _Told, d_reads: Tensor, d_after: NTMState
) -> tuple[Tensor, Tensor]:
    """Back through reading and writing: gradients of this step's weights, and of the memory before it."""
    write_weights, read_weights = step.weights.chunk(2, 1)
    d_memory = torch.baddbmm(d_after.memory, read_weights.mT, d_reads)
    d_read_weights = torch.bmm(d_reads, step.memory.mT)
    d_write_weights = torch.bmm(told.adds, d_memory.mT)
    d_told.adds.copy_(torch.bmm(write_weights, d_memory))
    found = [step.before.memory]
    for head in range(len(told.erases[0]) - 1):
        found.append(_erase(found[-1], found[-1], write_weights, told.erases, head))
    for head, memory in reversed([*enumerate(found)]):
        d_kept = d_memory * memory
        d_write_weights[:, head] -= torch.bmm(d_kept, told.erases[:, head, :, None]).squeeze(2)
        d_told.erases[:, head] = -torch.bmm(write_weights[:, head, None], d_kept).squeeze(1)
        d_memory = _erase(d_memory, d_memory, write_weights, told.erases, head)
    return torch.cat([d_write_weights, d_read_weights], 1).add_(d_after.weights), d_memory


def _address_backward(
    step: _Step, told: _Told, d_told: _Told, d_weights: Tensor, d_memory: Tensor
) -> tuple[Tensor, Tensor]:
    """Back through addressing: gradients of the weights and, added to what came by writing, of the memory."""
    way, before = step.way, step.before
    d_powered = _softmax_backward(d_weights, step.weights)
    d_told.sharpenings.copy_((d_powered * way.logarithms).sum(2, keepdim=True))
    d_shifted = d_powered.mul_(told.sharpenings).div_(way.shifted)
    d_gated = _shift_backward(step, told, d_told, d_shifted)
    d_told.gates.copy_((d_gated * (way.content - before.weights)).sum(2, keepdim=True))
    d_content = d_gated * told.gates
    d_scores = _softmax_backward(d_content, way.content)
    d_told.strengths.copy_((d_scores * way.cosines).sum(2, keepdim=True))
    d_dots = d_scores.mul_(told.strengths).div_(way.products)
    d_products = d_dots * way.cosines  # times -1
    key_scales = _divided((d_products * way.slot_norms).sum(2, keepdim=True), way.key_norms)
    slot_scales = _divided((d_products * way.key_norms).sum(1, keepdim=True), way.slot_norms)
    memory = before.memory
    d_keys = torch.addcmul(torch.bmm(d_dots, memory), told.keys, key_scales, value=-1)
    d_told.keys.copy_(d_keys)
    d_memory = torch.baddbmm(d_memory, d_dots.mT, told.keys).addcmul_(memory, slot_scales.mT, value=-1)
    return d_gated.sub_(d_content), d_memory


def _shift_backward(step: _Step, told: _Told, d_told: _Told, d_shifted: Tensor) -> Tensor:
    """Back through the circular convolution: the gradient of the gated weights, ``[B, 2 H, N]``."""
    count, slots = told.shifts.shape[2], d_shifted.shape[2]
    for place in range(count):
        products = step.way.padded[..., place : place + slots] * d_shifted
        d_told.shifts[..., count - 1 - place] = products.sum(2)
    return _convolve(_pad(d_shifted, count), told.shifts.flip(2))


def _softmax_backward(gradients: Tensor, weights: Tensor) -> Tensor:
    """Gradients of what a softmax over the last dimension was taken of."""
    products = gradients * weights
    return products.addcmul(weights, products.sum(-1, keepdim=True), value=-1)


def _divided(gradients: Tensor, norms: Tensor) -> Tensor:
    """By norms; zero where the norm is, as torch has it."""
    return torch.where(norms > 0, gradients / norms, 0)


def _kinds(sizes: NTMSizes) -> list[int]:
    """Of what the heads are told, how many go through tanh, sigmoid, softplus and softmax."""
    keys, adds, erases, gates, strengths, sharpenings, shifts = sizes.told
    return [keys + adds, erases + gates, strengths + sharpenings, shifts]


def _sigmoids_first(gates: Tensor, dim: int = 0) -> Tensor:
    """A copy with the third and fourth gate of an LSTM exchanged: those with a sigmoid first; or back."""
    enter, keep, new, out = gates.chunk(4, dim)
    return torch.cat([enter, keep, out, new], dim)

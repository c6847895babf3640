"""A look-up table that grows with every step, read by soft attention (Munkhdalai et al. 2019, section 4.1).

    read_t = sum_s softmax_s(k^r_t . k^w_s / sqrt(d_k)) v^w_s    over all slots s written so far

In plain autograd every read gives every slot a gradient of its own, and each of them is as large as the
table. Here a read's backward only notes its weights, and slots gather their gradients from a block of reads
with one matrix product.

That takes sums which live from the first step of a backward pass (the last of the sequence) to its last
step, and which belong to this pass alone: with ``retain_graph`` the same graph is gone through several
times, and each pass has to begin with sums of zero. Autograd tells a step neither which pass it is in nor
which steps are done. So the steps form a chain of *links*. A link is a tensor ``[1]`` that a step returns
and the next one takes; its value means nothing. Its gradient comes from the step after it, hence when all
later steps are done, and that gradient's value is the pass's number, by which ``_Slots`` finds the sums of
the pass:

    forward:   begin ---link--> step 1 ---link--> step 2 ---link--> ... ---link--> step T
    backward:  begin <----3---- step 1 <----3---- step 2 <----3---- ... <----3---- step T    in the third pass

The last step that counts gets no gradient of its link (None), and so begins a new pass.

Dimensions: ``B`` batch, ``H`` heads, ``N`` slots; sizes ``d_k`` key, ``d_v`` value.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 32
"""Reads whose gradients are gathered at once."""


class LookupTable:
    """Slots of one sequence.

    Args:
        keys: slots to begin with, ``[B, N, d_k]``.
        values: ``[B, N, d_v]``.
        written: boolean ``[B, N]``; slots that are false are not read.
        new_slots: how many slots will be written.
    """

    def __init__(self, keys: Tensor, values: Tensor, written: Tensor, new_slots: int):
        self._first, self._new = (keys, values), []
        self._written = torch.nn.functional.pad(written, (0, new_slots), value=True)
        # Before the first reset in the middle of a sequence every slot counts, and no mask is needed.
        self._masked = not bool(written.all())
        self._count = keys.shape[1]
        self._slots = _Slots(keys, values, new_slots)
        self._link = _Begin.apply(self._slots, keys, values)

    def write_and_read(self, write_keys: Tensor, write_values: Tensor, read_keys: Tensor) -> Tensor:
        """Append H slots, then read.

        Args:
            write_keys: ``[B, H, d_k]``.
            write_values: ``[B, H, d_v]``.
            read_keys: ``[B, H, d_k]``.

        Returns:
            the read values ``[B, H, d_v]``.
        """
        start, self._count = self._count, self._count + write_keys.shape[1]
        unread = ~self._written[:, None, : self._count] if self._masked else None
        self._new.append((write_keys, write_values))
        read_values, self._link = _WriteAndRead.apply(
            self._slots, start, unread, self._link, write_keys, write_values, read_keys
        )
        return read_values

    def contents(self) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and ``written`` of all slots so far, connected to the graph."""
        keys, values = zip(self._first, *self._new, strict=True)
        return torch.cat(keys, 1), torch.cat(values, 1), self._written[:, : self._count]


class _Slots:
    """Keys ``[B, N, d_k]`` and values ``[B, N, d_v]``, written in place, and backward passes over them."""

    def __init__(self, keys: Tensor, values: Tensor, new_slots: int):
        count = keys.shape[1]
        self.keys, self.values = (
            torch.cat([first.detach(), first.new_empty(len(first), new_slots, first.shape[2])], 1)
            for first in (keys, values)
        )
        self.first_count = count
        self._passes: list[_BackwardPass] = []

    def backward_pass(self, link: Tensor | None) -> tuple[_BackwardPass, Tensor]:
        """The pass that the gradient of a link ``[1]`` names, and that gradient; None begins a new pass."""
        if link is None:
            self._passes.append(_BackwardPass(self.keys, self.values))
            link = _new_link(len(self._passes))  # passes are numbered from 1
        return self._passes[int(link) - 1], link


class _BackwardPass:
    """Gradients of the slots, gathered while autograd goes back from the last step to the first."""

    def __init__(self, keys: Tensor, values: Tensor):
        self._sums = torch.zeros_like(keys), torch.zeros_like(values)
        self._filled = self._width = 0

    def add_read(
        self, score_gradients: Tensor, read_keys: Tensor, weights: Tensor, gradients: Tensor
    ) -> None:
        """Note a read over the first N slots; those noted later are over fewer slots.

        Args:
            score_gradients: ``[B, H, N]``, of the dot products of read and write keys.
            read_keys: ``[B, H, d_k]``.
            weights: ``[B, H, N]``, the attention.
            gradients: ``[B, H, d_v]``, of the read values.
        """
        batch, heads, slots = weights.shape
        if self._filled == BLOCK * heads:
            self._gather()
        if self._filled == 0:
            self._width = slots
            self._factors = tuple(weights.new_zeros(batch, BLOCK * heads, slots) for _ in range(2))
            self._vectors = tuple(
                weights.new_zeros(batch, BLOCK * heads, part.shape[2]) for part in (read_keys, gradients)
            )
        rows = slice(self._filled, self._filled + heads)
        for block, part in zip(self._factors, (score_gradients, weights), strict=True):
            block[:, rows, :slots] = part
        for block, part in zip(self._vectors, (read_keys, gradients), strict=True):
            block[:, rows] = part
        self._filled += heads

    def slot_gradients(self, start: int, stop: int) -> list[Tensor]:
        """Of the keys and values in slots start ... stop - 1, from all reads noted so far."""
        if self._filled == 0:
            return [total[:, start:stop].clone() for total in self._sums]
        return [
            torch.baddbmm(
                total[:, start:stop], factors[:, : self._filled, start:stop].mT, vectors[:, : self._filled]
            )
            for total, factors, vectors in zip(self._sums, self._factors, self._vectors, strict=True)
        ]

    def _gather(self) -> None:
        for total, factors, vectors in zip(self._sums, self._factors, self._vectors, strict=True):
            total[:, : self._width].baddbmm_(factors.mT, vectors)
        self._filled = 0


def _new_link(number: int = 0) -> Tensor:
    # In the processor's memory on any device, so that reading it never waits for a GPU.
    return torch.full((1,), float(number), dtype=torch.float64)


class _Begin(torch.autograd.Function):
    """The chain's begin, where the gradients of the slots that were there before come out."""

    @staticmethod
    def forward(ctx: Any, slots: _Slots, keys: Tensor, values: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.slots = slots
        return _new_link()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, link: Tensor | None) -> tuple[Tensor | None, ...]:
        if link is None:
            return None, None, None
        return None, *ctx.slots.backward_pass(link)[0].slot_gradients(0, ctx.slots.first_count)


class _WriteAndRead(torch.autograd.Function):
    """One step of the chain: write H slots, read, and hand on a link."""

    @staticmethod
    def forward(
        ctx: Any,
        slots: _Slots,
        start: int,
        unread: Tensor | None,
        link: Tensor,
        write_keys: Tensor,
        write_values: Tensor,
        read_keys: Tensor,
    ) -> tuple[Tensor, Tensor]:
        stop = start + write_keys.shape[1]
        slots.keys[:, start:stop], slots.values[:, start:stop] = write_keys, write_values
        scores = read_keys @ slots.keys[:, :stop].mT / math.sqrt(read_keys.shape[2])
        if unread is not None:
            scores = scores.masked_fill_(unread, -torch.inf)
        weights = scores.softmax(2)
        ctx.set_materialize_grads(False)
        ctx.slots, ctx.start, ctx.stop = slots, start, stop
        ctx.save_for_backward(weights, read_keys)
        return weights @ slots.values[:, :stop], _new_link()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, read_gradients: Tensor | None, link: Tensor | None) -> tuple[Tensor | None, ...]:
        weights, read_keys = ctx.saved_tensors
        backward_pass, link = ctx.slots.backward_pass(link)
        read_key_gradients = None
        if read_gradients is not None:
            keys, values = ctx.slots.keys[:, : ctx.stop], ctx.slots.values[:, : ctx.stop]
            scaled = read_gradients @ values.mT
            scaled -= (scaled * weights).sum(2, keepdim=True)
            scaled *= weights / math.sqrt(read_keys.shape[2])
            backward_pass.add_read(scaled, read_keys, weights, read_gradients)
            read_key_gradients = scaled @ keys
        slot_gradients = backward_pass.slot_gradients(ctx.start, ctx.stop)
        return None, None, None, link, *slot_gradients, read_key_gradients

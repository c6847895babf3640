"""The backward pass of :mod:`mnm_rl.kernels.dnc`, from the last step to the first, a segment at a time.

``d_`` before a name means the loss's gradient of it.

Dimensions: ``B`` batch, ``N`` slots, ``W`` size of a slot, ``R`` read heads, ``U`` size of the interface
vector; ``d_h`` controller.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mnm_rl.kernels import cpu
from mnm_rl.kernels.dnc_problem import Call, Parameters, Record, State, forget, options, segment_length
from mnm_rl.kernels.packed import StepProduct, outer_sum


class Segment:
    """Steps whose memories are written anew, and what is the same in all of them.

    Links are not written anew: a row of them depends on itself alone, so that each step of the backward pass
    repeats it from the start of the segment, in the cache.

    Args:
        call: of the scan, with the resets of the segment, if it has any.
        cell: before each step, ``[steps, B, d_h]``.
        before: usage, write weights, read weights and precedence before each step.
        after: of the steps.
        memories: room for M before each step and after the last, ``[steps + 1, B, N, W]``; the first is
            there, as it was before the reset.
        link: L before the first step, as it was before the reset.
    """

    def __init__(
        self,
        call: Call,
        cell: Tensor,
        before: list[Tensor],
        after: Record,
        memories: Tensor,
        link: Tensor | None,
    ):
        self.call, self.before, self.after = call, before, after
        i, f, g, o = after.sums.chunk(4, 2)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        bent = after.cell.tanh()
        self.to_cell, self.forgotten = o * (1 - bent.square()), f
        """From the gradient of the hidden state to that of the cell; from the cell to the one before."""
        self.from_cell = torch.stack([g * i * (1 - i), cell * f * (1 - f), i * (1 - g.square())], 2)
        """From the gradient of the cell to those of the sums of i, f and g, ``[steps, B, 3, d_h]``."""
        self.from_hidden = bent * o * (1 - o)
        """From the gradient of the hidden state to that of the sum of o."""
        self.memories, self.link = memories, link
        cpu.operators().dnc_rewrite(
            *(after.vector, before, after.write_weights, call.resets),
            *(memories, link is not None, *options(call.switches)),
        )

    def memory_backward(
        self, i: int, d_reads: Tensor, d_vectors: list[Tensor], d_memory: Tensor, d_link: Tensor | None
    ) -> tuple[list[Tensor], Tensor]:
        """Through the memory of step ``i``.

        Args:
            i: number of the step in the segment.
            d_reads: ``[B, R, W]``.
            d_vectors: of usage, write weights, read weights and precedence after the step.
            d_memory: of M after the step; overwritten by that of M before.
            d_link: of L after the step; overwritten by that of L before.

        Returns:
            the gradients of usage, write weights, read weights and precedence before the step, and of the
            interface vector.
        """
        after = [field[i] for field in self.after.vectors()[:3]]
        *d_before, d_vector = cpu.operators().dnc_backward(
            *(self.after.vector[i], self._vectors(i), after, self._memory(i), self.memories[i + 1]),
            *(self.link, self.before[-1], self.after.write_weights, self.call.resets, i),
            *(d_reads, d_vectors, d_memory, d_link, *options(self.call.switches)),
        )
        return d_before, d_vector

    def controller_backward(self, i: int, d_hidden: Tensor, d_cell: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of the sums ``[B, 4 d_h]`` of step ``i`` and of the cell before it."""
        d_cell = torch.addcmul(d_cell, d_hidden, self.to_cell[i])
        through_cell = (d_cell.unsqueeze(1) * self.from_cell[i]).flatten(1)
        return torch.cat([through_cell, d_hidden * self.from_hidden[i]], 1), d_cell * self.forgotten[i]

    def _vectors(self, i: int) -> list[Tensor]:
        return [field[i] for field in self.before]

    def _memory(self, i: int) -> Tensor:
        """M before step ``i``, after a reset."""
        memory, resets = self.memories[i], self.call.resets
        return memory if resets is None or not resets[i].any() else forget(memory, resets[i])


class Backward:
    """The loop; after :meth:`run`, :meth:`gradients` has what autograd wants."""

    def __init__(
        self,
        call: Call,
        parameters: Parameters,
        start: State,
        record: Record,
        copies: Sequence[Tensor],
        gradients: Sequence[Tensor],
    ):
        self.switches, self.resets = call
        self.start, self.record, self.copies = start, record, copies
        recurrent, steps = torch.cat([parameters.weight_hh, parameters.weight_rh], 1), len(record.cell)
        self.to_control = StepProduct(recurrent, steps)
        self.to_hidden = StepProduct(parameters.interface_weight, steps)
        self.d_controls, final = gradients[0], State(*gradients[1:])
        self.d_control = torch.cat([final.hidden, final.reads.flatten(1)], 1)
        self.d_cell, self.d_vectors = final.cell, [field.contiguous() for field in final.vectors()]
        self.d_memory = torch.empty_like(start.memory, memory_format=torch.contiguous_format).copy_(
            final.memory
        )
        self.d_link = None
        if final.link is not None and start.link is not None:
            self.d_link = torch.empty_like(start.link, memory_format=torch.contiguous_format).copy_(
                final.link
            )
        self.d_sums, self.d_interface = torch.empty_like(record.sums), torch.empty_like(record.vector)
        self.any_reset = None if self.resets is None else self.resets.any(1).tolist()

    def run(self) -> None:
        """Go through all steps."""
        steps = len(self.record.cell)
        every, each = segment_length(steps), 2 if self.switches.links else 1
        # The same for all segments: to touch memory for the first time costs more than to write a step anew.
        memories = self.copies[0].new_empty(every + 1, *self.copies[0].shape)
        for start in reversed(range(0, steps, every)):
            stop, place = min(start + every, steps), start // every * each
            memories[0] = self.copies[place]
            link = self.copies[place + 1].contiguous() if self.switches.links else None
            segment = self._segment(start, stop, memories[: stop - start + 1], link)
            for t in reversed(range(start, stop)):
                self._step(t, segment, t - start)
                if self.resets is not None and self.any_reset is not None and self.any_reset[t]:
                    self._cross_reset(self.resets[t])

    def _segment(self, start: int, stop: int, memories: Tensor, link: Tensor | None) -> Segment:
        resets = None
        if self.resets is not None and self.any_reset is not None and any(self.any_reset[start:stop]):
            resets = self.resets[start:stop].contiguous()

        def before(initial: Tensor, kept: Tensor) -> Tensor:
            """A field before each step, from the same field after each step of the sequence."""
            head = initial.unsqueeze(0) if start == 0 else kept[start - 1 : start]
            shifted = torch.cat([head, kept[start : stop - 1]])
            return shifted if resets is None else forget(shifted, resets)

        pairs = zip(self.start.vectors(), self.record.vectors(), strict=True)
        after = Record(*[field[start:stop] for field in self.record.tensors()])
        call, cell = Call(self.switches, resets), before(self.start.cell, self.record.cell)
        return Segment(call, cell, [before(*pair) for pair in pairs], after, memories, link)

    def _step(self, t: int, segment: Segment, i: int) -> None:
        d_hidden, d_reads = (self.d_control + self.d_controls[t]).tensor_split([self.d_cell.shape[1]], 1)
        d_reads = d_reads.reshape(len(d_reads), self.switches.read_heads, -1).contiguous()
        self.d_vectors, d_interface = segment.memory_backward(
            i, d_reads, self.d_vectors, self.d_memory, self.d_link
        )
        self.d_interface[t] = d_interface
        d_hidden = self.to_hidden(d_interface, d_hidden)
        d_sums, self.d_cell = segment.controller_backward(i, d_hidden, self.d_cell)
        self.d_sums[t] = d_sums
        self.d_control = self.to_control(d_sums)

    def _cross_reset(self, mask: Tensor) -> None:
        """No gradient flows into the episode before."""
        self.d_memory = forget(self.d_memory, mask)
        self.d_link = None if self.d_link is None else forget(self.d_link, mask)
        self.d_control, self.d_cell = forget(self.d_control, mask), forget(self.d_cell, mask)
        self.d_vectors = [forget(field, mask) for field in self.d_vectors]

    def gradients(self) -> list[Tensor | None]:
        """Of the projected inputs, the parameters and the state."""
        size, record, start = self.d_cell.shape[1], self.record, self.start
        first = torch.cat([start.hidden, start.reads.flatten(1)], 1).unsqueeze(0)
        before = torch.cat([first, record.control[:-1]])
        before = before if self.resets is None else forget(before, self.resets)
        d_recurrent = outer_sum(self.d_sums, before)
        d_weight = outer_sum(self.d_interface, record.control[..., :size])
        d_vector = self.d_interface.flatten(0, 1)
        d_parameters = (d_recurrent[:, :size], d_recurrent[:, size:], d_weight, d_vector.sum(0))
        d_hidden, d_reads = self.d_control[:, :size], self.d_control[:, size:].reshape(start.reads.shape)
        usage, written, read, *precedence = self.d_vectors
        d_links = [] if self.d_link is None else [*precedence, self.d_link]
        d_state = [d_hidden, self.d_cell, d_reads, self.d_memory, usage, written, read, *d_links]
        return [self.d_sums, *d_parameters, *d_state]

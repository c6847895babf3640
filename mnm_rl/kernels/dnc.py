"""A DNC's time loop in C++ with a hand-written backward pass (``cpp/dnc_step.h``).

A step of the memory is one call that takes one example after the other, so that its slots and links stay in
the cache; the controller's products (:mod:`mnm_rl.kernels.packed`) are over the batch. The forward pass
writes memory and links in place and keeps vectors of every step, none of which is larger than ``[B, R, N]``.
Of memory and links it keeps one copy every sqrt(2 T) steps, because a write cannot be undone: an erased
entry, or a link whose factor was zero, is gone. The backward pass (:mod:`mnm_rl.kernels.dnc_backward`)
repeats the writes, and only these, from one copy to the next: those to the slots once for each segment,
those to the links row by row for each step.

Dimensions: ``T`` time, ``B`` batch, ``N`` slots, ``W`` size of a slot, ``R`` read heads, ``U`` size of the
interface vector; ``d_h`` controller.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mnm_rl.kernels import cpu, recurrent
from mnm_rl.kernels.dnc_backward import Backward
from mnm_rl.kernels.dnc_problem import Call, Parameters, Record, State, forget, options, segment_length
from mnm_rl.kernels.packed import StepProduct
from mnm_rl.memory.dnc import Switches

CACHE_BYTES = 5 * 2**20
"""Of a block's memories and links. More of them fall out of the cache between two steps."""
LEAST_BLOCK = 8
"""Fewer sequences take longer, because the controller's weights are read for each block."""
_thread = threading.local()


def fits(switches: Switches, *tensors: Tensor) -> bool:
    """Whether the operation has what the switches ask for, takes these tensors, and compiles."""
    has = not switches.sharpened and switches.link_gradient
    return has and recurrent.fits(*tensors) and recurrent.compiles()


def scan(
    projected: Tensor, parameters: Parameters, switches: Switches, state: State, resets: Tensor | None
) -> tuple[Tensor, State]:
    """Run the time loop, a block of sequences at a time.

    Args:
        projected: the inputs' part of the controller's gates, biases included, ``[T, B, 4 d_h]``.
        parameters: the weights.
        switches: of the memory.
        state: the state before the first step.
        resets: boolean ``[T, B]``; where true, all of the state is zero before the step.

    Returns:
        ``[h_t; r_t]`` of all steps, ``[T, B, d_h + R W]``, and the state after the last step.

    Raises:
        BuildError: the operation cannot be compiled.
    """
    blocks = -(-projected.shape[1] // _largest_block(state))
    tensors = (projected, *(() if resets is None else (resets,)))
    parts = zip(
        *(tensor.tensor_split(blocks, 1) for tensor in tensors),
        *(field.tensor_split(blocks) for field in state.tensors()),
        strict=True,
    )
    ran = []
    for entries, *others in parts:
        call = Call(switches, None if resets is None else others.pop(0))
        ran.append(_Scan.apply(call, entries, *parameters, *others))
    controls, *final = zip(*ran, strict=True)
    return torch.cat(controls, 1), State(*[torch.cat(field) for field in final])


def _largest_block(state: State) -> int:
    """So many sequences go through time together: their memories and links stay near the processor."""
    sizes = [field[:1].nbytes for field in (state.memory, state.link) if field is not None]
    return max(LEAST_BLOCK, CACHE_BYTES // max(1, sum(sizes)))


def step(projected: Tensor, parameters: Parameters, switches: Switches, state: State) -> tuple[Tensor, State]:
    """One step without gradients.

    Args:
        projected: the inputs' part of the controller's gates, biases included, ``[B, 4 d_h]``.
        parameters: the weights.
        switches: of the memory.
        state: the state before the step; inside :func:`acting` of these parameters its memory and links are
            overwritten if they come from the step before.

    Returns:
        ``[h_t; r_t]``, ``[B, d_h + R W]``, and the state after the step.
    """
    acting, key = _acting(), id(parameters.interface_bias)
    if acting.get(key) is not state.memory:
        state = _with_copies(state)
    record, state = advance(projected, Products.of(parameters, 1), switches, state)
    if key in acting:
        acting[key] = state.memory
    return record.control, state


@contextmanager
def acting(parameters: Parameters) -> Iterator[None]:
    """Inside, a state that :func:`step` has returned with these is given to one more step at most."""
    before = _acting()
    _thread.acting = {**before, id(parameters.interface_bias): None}
    try:
        yield
    finally:
        _thread.acting = before


def _acting() -> dict[int, Tensor | None]:
    """What acts in this thread, by the id of a parameter -> the memory after its last step."""
    return getattr(_thread, "acting", {})


class Products(NamedTuple):
    """Of the controller, with its weights as they are in all steps."""

    hidden: StepProduct
    """To the gates, of h of the step before, ``[d_h, 4 d_h]``."""
    reads: StepProduct
    """To the gates, of r of the step before, ``[R W, 4 d_h]``."""
    interface: StepProduct
    """Of h, ``[d_h, U]``."""
    interface_bias: Tensor

    @classmethod
    def of(cls, parameters: Parameters, steps: int) -> Products:
        """For so many steps."""
        weights = (parameters.weight_hh, parameters.weight_rh, parameters.interface_weight)
        hidden, reads, interface = (StepProduct(weight.mT, steps) for weight in weights)
        return cls(hidden, reads, interface, parameters.interface_bias)


def advance(projected: Tensor, products: Products, switches: Switches, state: State) -> tuple[Record, State]:
    """One step, as ``DNCCore._advance``; memory and links of the state, all contiguous, are overwritten."""
    sums = products.reads(state.reads.flatten(1), products.hidden(state.hidden, projected))
    i, f, g, o = sums.chunk(4, 1)
    cell = f.sigmoid() * state.cell + i.sigmoid() * g.tanh()
    hidden = o.sigmoid() * cell.tanh()
    vector = products.interface(hidden, products.interface_bias)
    *vectors, reads = cpu.operators().dnc_forward(
        vector, state.vectors(), state.memory, state.link, *options(switches)
    )
    control = torch.cat([hidden, reads.flatten(1)], 1)
    record = Record(control, cell, sums, vector, *vectors)
    usage, written, read, *_ = vectors
    return record, State(
        hidden, cell, reads, state.memory, usage, written, read, record.precedence, state.link
    )


def _with_copies(state: State) -> State:
    fields = [field.contiguous() for field in state.tensors()]
    for place, original in enumerate(state.tensors()):
        if fields[place] is original and original is not state.hidden:
            fields[place] = original.clone()
    return State(*fields)


class _Scan(torch.autograd.Function):
    """The differentiable operation; tensors are the projected inputs, the parameters and the state."""

    @staticmethod
    def forward(ctx: Any, call: Call, projected: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore
        given = len(Parameters._fields)
        parameters, state = Parameters(*tensors[:given]), _with_copies(State(*tensors[given:]))
        keep, every = any(ctx.needs_input_grad), segment_length(len(projected))
        any_reset = None if call.resets is None else call.resets.any(1).tolist()
        products = Products.of(parameters, len(projected))
        records, copies = [], []
        for t, entry in enumerate(projected.unbind(0)):
            if keep and t and t % every == 0:  # at the start they are those that were given
                copies += [field.clone() for field in (state.memory, state.link) if field is not None]
            if call.resets is not None and any_reset is not None and any_reset[t]:
                state = State(*[forget(field, call.resets[t]) for field in state.tensors()])
            record, state = advance(entry, products, call.switches, state)
            records.append(record.tensors() if keep else [record.control])
        stacked = [torch.stack(column) for column in zip(*records, strict=True)]
        if keep:
            ctx.call, ctx.counts = call, (len(tensors), len(stacked))
            ctx.save_for_backward(*tensors, *stacked, *copies)
            stacked[0] = stacked[0].clone()  # what is returned may be written to
        # Of the last state, all but memory and links is in the records, too; an output must not be.
        return stacked[0], *[field.clone() for field in state.tensors()]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved, (given, kept) = ctx.saved_tensors, ctx.counts
        weights = len(Parameters._fields)
        parameters, state = Parameters(*saved[:weights]), State(*saved[weights:given])
        record = Record(*saved[given : given + kept])
        copies = [
            *(field for field in (state.memory, state.link) if field is not None),
            *saved[given + kept :],
        ]
        loop = Backward(ctx.call, parameters, state, record, copies, gradients)
        loop.run()
        return None, *loop.gradients()

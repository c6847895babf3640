"""The time loop of a neural Turing machine as one operation with a hand-written backward pass.

Its plain form is in :mod:`mnm_rl.cores.ntm`. The operation comes in C++ (``cpp/ntm.h``), for float32 and
float64 on the CPU, and in torch (:mod:`mnm_rl.kernels.ntm_torch`), for everything else. Nothing is made at
every step that can be made for all steps together, and every step's memory is kept, once.

Dimensions: ``T`` time, ``B`` batch; all others as in :mod:`mnm_rl.kernels.ntm_problem`.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mnm_rl.kernels import cpu, ntm_torch, recurrent
from mnm_rl.kernels.ntm_problem import NTMParameters, NTMSizes, NTMState

Kernel = Literal["auto", "torch"]


def scan(
    sizes: NTMSizes,
    projected: Tensor,
    parameters: NTMParameters,
    state: NTMState,
    initial: NTMState,
    resets: Tensor | None,
    kernel: Kernel = "auto",
) -> tuple[Tensor, NTMState]:
    """Run the time loop; differentiable, once, in all that has floating-point numbers.

    Args:
        sizes: of heads and slots.
        projected: the inputs times their weights, with the biases, ``[T, B, 4 d_h]``.
        parameters: all other weights of the loop.
        state: before the first step.
        initial: at the start of an episode.
        resets: boolean ``[T, B]``; where true, the state before the step is ``initial``, and no gradient
            flows to the step before.
        kernel: ``auto`` for C++ where it can be had, else ``torch``; or ``torch``.

    Returns:
        controller and reads after each step, ``[T, B, d_c]``, and the state after the last.
    """
    tensors = (projected, *parameters, *state, *initial)
    if kernel == "torch" or not (recurrent.fits(*tensors) and recurrent.compiles()):
        return ntm_torch.scan(sizes, projected, parameters, state, initial, resets)
    padding = -sizes.slot_size % (cpu.vector_bytes() // projected.element_size())
    starts = [_padded(state, padding), *([] if resets is None else [_padded(initial, padding)])]
    row = [tensor.contiguous() for part in ((projected, *parameters), *starts) for tensor in part]
    resets = None if resets is None else resets.contiguous()
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in row):
        controls, *final = _Scan.apply(resets, *row)
    else:
        controls, final, _ = cpu.operators().ntm_forward(*_arguments(resets, row), False)
    hidden, cell, reads, weights, padded = final
    return controls, NTMState(hidden, cell, reads, weights, padded[..., : sizes.slot_size])


def _padded(state: NTMState, padding: int) -> NTMState:
    return state._replace(memory=F.pad(state.memory, (0, padding))) if padding else state


def _arguments(resets: Tensor | None, row: list[Tensor]) -> tuple[Any, ...]:
    """What both operators take first: inputs, resets, parameters, state and initial state."""
    return row[0], resets, row[1:4], row[4:9], row[9:]


class _Scan(torch.autograd.Function):
    """The differentiable operation in C++; tensors are the inputs, the parameters and both states."""

    @staticmethod
    def forward(ctx: Any, resets: Tensor | None, *row: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore
        controls, final, saved = cpu.operators().ntm_forward(*_arguments(resets, list(row)), True)
        ctx.resets, ctx.given = resets, len(row)
        ctx.save_for_backward(*row, controls, *saved)
        return controls, *final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        row, (controls, *saved) = ctx.saved_tensors[: ctx.given], ctx.saved_tensors[ctx.given :]
        d_controls, *d_state = [gradient.contiguous() for gradient in gradients]
        d_gates, d_told, d_before, d_initial = cpu.operators().ntm_backward(
            *(*_arguments(ctx.resets, list(row)), saved, controls, d_controls, d_state)
        )
        size = d_gates.shape[2] // 4
        seen = _seen_before(controls, ctx.resets, row)
        d_recurrent = d_gates.flatten(0, 1).mT @ seen.flatten(0, 1)
        d_interaction = d_told.flatten(0, 1).mT @ controls[..., :size].flatten(0, 1)
        d_parameters = NTMParameters(d_recurrent, d_interaction, d_told.sum((0, 1)))
        return None, d_gates, *d_parameters, *d_before, *d_initial


def _seen_before(controls: Tensor, resets: Tensor | None, row: tuple[Tensor, ...]) -> Tensor:
    """Controller and reads before each step, ``[T, B, d_c]``."""
    state, initial = NTMState(*row[4:9]), row[9:]
    first = torch.cat([state.hidden, state.reads.flatten(1)], 1)
    seen = torch.cat([first.unsqueeze(0), controls[:-1]])
    if resets is None:
        return seen
    start = NTMState(*initial)
    return torch.where(resets.unsqueeze(2), torch.cat([start.hidden, start.reads.flatten(1)], 1), seen)

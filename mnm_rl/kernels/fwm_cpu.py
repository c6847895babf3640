"""A fast weight memory's sequence in C++ with a hand-written backward pass (``cpp/fwm.h``).

One example after the other, with a sweep over its memory for each write, in which the next one looks up, and
one for each read. Kept are copies of the memory every 32 steps. The backward pass repeats the writes from
there; steps whose reads have no gradient cost it no read. The equations are those of
:mod:`mnm_rl.kernels.fwm`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mnm_rl.kernels import cpu, recurrent
from mnm_rl.kernels.fwm import Commands

MOST_VECTORS = 4
"""A row of the memory must fit so many of the processor's vectors, ``kFwmMostVectors`` in C++: 64 numbers in
float32 with AVX-512."""


def fits(commands: Commands, memory: Tensor) -> bool:
    """Whether the operation takes these, and compiles."""
    if not (recurrent.fits(memory, *commands) and commands.read_relations.shape[2] > 0):
        return False
    subjects, targets = memory.shape[1], memory.shape[3]
    if subjects != targets or not recurrent.compiles():
        return False
    return targets * memory.itemsize <= MOST_VECTORS * cpu.operators().vector_bytes()


def scan(commands: Commands, memory: Tensor, resets: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """As :func:`mnm_rl.kernels.fwm.scan`, for what :func:`fits`."""
    given = (tensor.contiguous() for tensor in commands)
    resets = None if resets is None else resets.contiguous()
    return _Scan.apply(memory.contiguous(), resets, *given)  # pyright: ignore[reportReturnType]


class _Scan(torch.autograd.Function):
    """The sequence as one operation."""

    @staticmethod
    def forward(ctx: Any, memory: Tensor, resets: Tensor | None, *commands: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore
        save = any(ctx.needs_input_grad)
        reads, last, copies, norms = cpu.operators().fwm_forward(list(commands), resets, memory, save)
        if save:
            ctx.resets = resets
            ctx.save_for_backward(memory, copies, norms, *commands)
        return reads, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_reads: Tensor, d_last: Tensor) -> tuple[Tensor | None, ...]:
        memory, copies, norms, *commands = ctx.saved_tensors
        *d_commands, d_memory = cpu.operators().fwm_backward(
            commands, ctx.resets, memory, copies, norms, d_reads.contiguous(), d_last.contiguous()
        )
        return d_memory, None, *d_commands

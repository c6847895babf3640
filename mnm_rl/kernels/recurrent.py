"""An LSTM and a GRU over whole sequences with resets inside, one operation in C++ each (``cpp/recurrent.h``).

torch's own layers know nothing of resets: whoever uses them has to cut the sequence wherever an episode of
any example starts. Here only the product with the hidden state is made step by step; the products with the
inputs come before the loop, and the gradients of the weights after it, many steps at a time.

:func:`plain` is the same in plain torch, step by step: what the operation is tested against, and its second
derivative.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size, ``D`` hidden size, ``K`` gates (LSTM 4, GRU 3).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from mnm_rl.kernels import cpu
from mnm_rl.kernels.build import BuildError

Kind = Literal["lstm", "gru"]
State = tuple[Tensor, ...]
"""Hidden state and, of an LSTM, cell, ``[B, D]`` each."""
_STATES = {"lstm": 2, "gru": 1}


class RecurrentParameters(NamedTuple):
    """The weights of a ``torch.nn.LSTM`` or ``torch.nn.GRU`` with one layer, gates in their order."""

    weight_ih: Tensor
    """``[K D, I]``."""
    weight_hh: Tensor
    """``[K D, D]``."""
    bias_ih: Tensor
    """``[K D]``."""
    bias_hh: Tensor
    """``[K D]``."""


class RecurrentResult(NamedTuple):
    """What a scan returns."""

    outputs: Tensor
    """Hidden states, ``[T, B, D]``."""
    state: State
    """The state after the last step."""


class _Trained(NamedTuple):
    """What has a gradient; autograd wants it in one row."""

    inputs: Tensor
    parameters: list[Tensor]
    state: list[Tensor]
    initial: list[Tensor]

    def row(self) -> tuple[Tensor, ...]:
        return self.inputs, *self.parameters, *self.state, *self.initial

    @classmethod
    def from_row(cls, kind: Kind, row: Sequence[Tensor]) -> _Trained:
        after = 1 + len(RecurrentParameters._fields) + _STATES[kind]
        return cls(row[0], list(row[1:5]), list(row[5:after]), list(row[after:]))


@functools.cache
def compiles() -> bool:
    """Whether the operation is there; it is compiled when this is first asked."""
    try:
        cpu.operators()
    except (BuildError, OSError):
        return False
    return True


def fits(*tensors: Tensor) -> bool:
    """Whether the operation takes these, and nothing is going on that would not see what it does.

    They must be ordinary tensors on the CPU, all float32 or all float64. Transforms of ``torch.func``,
    forward-mode differentiation, tracing, export and dispatch modes do not see into it.
    """
    dtype = tensors[0].dtype
    return (
        dtype in cpu.DTYPES
        and all(_is_ordinary(tensor) and tensor.dtype == dtype for tensor in tensors)
        and is_ordinary_call()
    )


def is_ordinary_call() -> bool:
    """Whether nothing is going on that would not see into an operation."""
    return (
        not torch.compiler.is_compiling()
        and not torch._C._is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and torch._C._len_torch_dispatch_stack() == 0
        and forward_ad._current_level < 0
    )


def _is_ordinary(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu" and not tensor.is_neg()


def scan(
    kind: Kind,
    inputs: Tensor,
    parameters: RecurrentParameters,
    state: State,
    resets: Tensor | None = None,
    initial: State = (),
) -> RecurrentResult:
    """Run the time loop; differentiable, also twice, in all that has floating-point numbers.

    Args:
        kind: which of the two.
        inputs: ``[T, B, I]``, float32 or float64, on the CPU.
        parameters: the weights.
        state: the state before the first step.
        resets: boolean ``[T, B]``; where true, the state before the step is ``initial``, and no gradient
            flows to the step before.
        initial: the state at the start of an episode; zeros if it is empty.

    Raises:
        ValueError: shapes, dtypes or devices do not fit.
        BuildError: the operation cannot be compiled.
    """
    resets = None if resets is None else resets.contiguous()
    trained = _Trained(inputs.contiguous(), _contiguous(parameters), _contiguous(state), _contiguous(initial))
    row = trained.row()
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in row):
        outputs, *final = _Scan.apply(kind, resets, *row)
    else:
        outputs, final, _ = _operator(kind, "forward")(*_arguments(resets, trained), False)
    return RecurrentResult(outputs, tuple(final))


class QuickStep:
    """Single steps without gradient of parameters that stay as they are.

    Args:
        kind: which of the two.
        parameters: the weights, ordinary tensors on the CPU (:func:`fits`).
    """

    def __init__(self, kind: Kind, parameters: RecurrentParameters):
        self._parameters = _contiguous(parameters)
        self._packed = _operator(kind, "pack")(self._parameters)
        self._run = _operator(kind, "step").default

    def __call__(self, inputs: Tensor, state: State, resets: Tensor | None) -> list[Tensor]:
        """The state after a step, from inputs ``[B, I]`` and resets ``[B]`` to zeros."""
        resets = None if resets is None else resets.contiguous()
        given = self._parameters, self._packed, _contiguous(state)
        return self._run(inputs.contiguous(), resets, *given)


def plain(
    kind: Kind,
    inputs: Tensor,
    parameters: RecurrentParameters,
    state: State,
    resets: Tensor | None = None,
    initial: State = (),
) -> RecurrentResult:
    """What :func:`scan` does, step by step in plain torch."""
    initial = initial or tuple(torch.zeros_like(field) for field in state)
    outputs = []
    for t, x in enumerate(inputs.unbind(0)):
        if resets is not None:
            mask = resets[t][:, None]
            state = tuple(torch.where(mask, new, old) for new, old in zip(initial, state, strict=True))
        if kind == "lstm":
            state = torch.lstm_cell(x, state, *parameters)
        else:
            state = (torch.gru_cell(x, state[0], *parameters),)
        outputs.append(state[0])
    return RecurrentResult(torch.stack(outputs), state)


def _contiguous(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.contiguous() for tensor in tensors]


def _operator(kind: Kind, direction: str) -> Any:
    return getattr(cpu.operators(), f"{kind}_{direction}")


def _arguments(resets: Tensor | None, trained: _Trained) -> tuple[Any, ...]:
    """What both operators take first."""
    return trained.inputs, resets, trained.parameters, trained.state, trained.initial


class _Scan(torch.autograd.Function):
    """The differentiable operation; tensors are those of :meth:`_Trained.row`."""

    @staticmethod
    def forward(ctx: Any, kind: Kind, resets: Tensor | None, *row: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore
        trained = _Trained.from_row(kind, row)
        outputs, final, saved = _operator(kind, "forward")(*_arguments(resets, trained), True)
        ctx.kind, ctx.resets, ctx.given = kind, resets, len(row)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*row, outputs, *saved)
        return outputs, *final

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        # Once: under checkpointing each access to the saved tensors would repeat the forward pass.
        saved = ctx.saved_tensors
        row, outputs, saved = saved[: ctx.given], saved[ctx.given], saved[ctx.given + 1 :]
        if torch.is_grad_enabled():  # the gradient's gradient is asked for
            return None, None, *_differentiable_gradients(ctx, row, gradients)
        trained = _Trained.from_row(ctx.kind, row)
        d_outputs, *d_state = (
            torch.zeros_like(like) if d is None else d.contiguous()
            for d, like in zip(gradients, (outputs, *trained.state), strict=True)
        )
        needed = _Trained.from_row(ctx.kind, ctx.needs_input_grad[2:])
        d_inputs, d_parameters, d_start, d_initial = _operator(ctx.kind, "backward")(
            *_arguments(ctx.resets, trained),
            *(list(saved), outputs, d_outputs, d_state, needed.inputs, any(needed.parameters)),
        )
        d_parameters = d_parameters or [None] * len(RecurrentParameters._fields)
        return None, None, d_inputs, *d_parameters, *d_start, *d_initial


def _differentiable_gradients(
    ctx: Any, row: Sequence[Tensor], gradients: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The gradients as autograd finds them in the plain loop, for those who go on differentiating."""
    # Views, so that the way from one to another, outside of the loop, is not taken here.
    row = [tensor.view_as(tensor) for tensor in row]
    inputs, parameters, state, initial = _Trained.from_row(ctx.kind, row)
    result = plain(
        ctx.kind, inputs, RecurrentParameters(*parameters), tuple(state), ctx.resets, tuple(initial)
    )
    pairs = [
        (found, d)
        for found, d in zip((result.outputs, *result.state), gradients, strict=True)
        if d is not None
    ]
    needed = [tensor for tensor, is_needed in zip(row, ctx.needs_input_grad[2:], strict=True) if is_needed]
    found = iter(
        torch.autograd.grad(
            *([one for one, _ in pairs], needed, [d for _, d in pairs]), create_graph=True, allow_unused=True
        )
    )
    return [next(found) if is_needed else None for is_needed in ctx.needs_input_grad[2:]]

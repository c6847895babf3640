"""The ``cpu`` backend: the time loop in C++, forward and backward (see ``cpp/scan.cpp``).

Dimensions: ``T`` time, ``B`` batch, ``I`` input size; all others as in :mod:`mnm_rl.kernels.problem`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from mnm_rl.kernels.build import load_library
from mnm_rl.kernels.problem import ScanParameters, ScanResult, ScanSettings, ScanState
from mnm_rl.memory import Normalization

DTYPES = (torch.float32, torch.float64)
WRITE_RULES = frozenset({"local", "gradient"})
_OUTPUTS = 8  # controls, meta loss and the state's six tensors come before what is saved
_MEMORY = ScanState._fields.index("memory")


class _Call(NamedTuple):
    """The arguments of a scan that have no gradient."""

    settings: tuple[Any, ...]
    resets: Tensor | None
    initial_memory: Tensor


@functools.cache
def operators() -> Any:
    """The C++ operators, compiled on first use.

    Raises:
        BuildError: if they cannot be compiled.
    """
    return getattr(torch.ops, load_library())


def scan(
    parameters: ScanParameters,
    settings: ScanSettings,
    inputs: Tensor,
    state: ScanState,
    resets: Tensor | None,
    initial_memory: Tensor,
) -> ScanResult:
    """Run the time loop; arguments as in :func:`mnm_rl.kernels.scan`."""
    resets = None if resets is None else resets.contiguous()
    call = _Call(_plain(settings), resets, initial_memory.contiguous())
    trained = [tensor for tensor in parameters if tensor is not None]
    tensors = [tensor.contiguous() for tensor in (inputs, *trained, *state)]
    if state.memory.stride(1) == 1:  # a memory that is the same for all sequences stays one row
        tensors[1 + len(trained) + _MEMORY] = state.memory
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        results = _Scan.apply(call, len(trained), *tensors)
    else:
        results = _forward(call, len(trained), tensors, save=False)
    return ScanResult(results[0], results[1], ScanState(*results[2:_OUTPUTS]))


@functools.cache
def _plain(settings: ScanSettings) -> tuple[Any, ...]:
    """The settings as the operators take them."""
    return (
        list(settings.widths),
        settings.heads,
        settings.rates,
        settings.gradient_rule,
        settings.tanh_output,
        get_args(Normalization).index(settings.normalization),
        list(settings.recall_weights),
    )


class _Acting:
    """What a thread keeps while it acts."""

    def __init__(self) -> None:
        self.packed: dict[tuple[tuple[int, int], ...], tuple[list[Tensor], list[Tensor]]] = {}
        """The controller's weights in the kernel's own layout, with the parameters so that their ids stay
        theirs."""
        self.memory: Tensor | None = None
        """The memory after the last step, which the next step may overwrite."""


_thread = threading.local()


@contextmanager
def acting() -> Iterator[None]:
    """Inside, parameters must not change, and the state after a step must be used for one more step at most.

    Scans without gradient then keep the weights that they have prepared, which otherwise a scan of one step
    leaves out because it would take longer than the step, and overwrite the memory instead of copying it.
    """
    before = getattr(_thread, "acting", None)
    _thread.acting = _Acting()
    try:
        yield
    finally:
        _thread.acting = before


def _step_while_acting(call: _Call, count: int, tensors: list[Tensor], kept: _Acting) -> list[Tensor]:
    inputs, parameters, state = tensors[0], tensors[1 : 1 + count], tensors[1 + count :]
    key = tuple((id(tensor), tensor._version) for tensor in parameters)
    if key not in kept.packed:
        packed = operators().pack(inputs, parameters, state, call.initial_memory, *call.settings)
        kept.packed[key] = (parameters, packed)
    overwrite = state[_MEMORY] if state[_MEMORY] is kept.memory and len(inputs) == 1 else None
    results = operators().scan_forward(
        *(inputs, call.resets, parameters, state, call.initial_memory, *call.settings),
        *(kept.packed[key][1], overwrite, False),
    )
    if overwrite is not None:
        results[2 + _MEMORY] = overwrite
    kept.memory = results[2 + _MEMORY]
    return results


def _forward(call: _Call, count: int, tensors: list[Tensor], save: bool) -> list[Tensor]:
    kept = getattr(_thread, "acting", None)
    if kept is not None and not save:
        return _step_while_acting(call, count, tensors, kept)
    inputs, parameters, state = tensors[0], tensors[1 : 1 + count], tensors[1 + count :]
    return operators().scan_forward(
        inputs, call.resets, parameters, state, call.initial_memory, *call.settings, [], None, save
    )


class _Scan(torch.autograd.Function):
    """The differentiable operator; tensors are the inputs, ``count`` parameters and the state."""

    @staticmethod
    def forward(ctx: Any, call: _Call, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore
        results = _forward(call, count, list(tensors), save=True)
        ctx.call, ctx.count = call, count
        ctx.set_materialize_grads(False)  # zeros for a final memory that nobody uses would be large
        ctx.save_for_backward(*tensors, *results)
        return tuple(results[:_OUTPUTS])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        arguments = 1 + ctx.count + len(ScanState._fields)
        saved = ctx.saved_tensors  # once: under checkpointing each access would repeat the forward pass
        tensors, results = saved[:arguments], saved[arguments:]
        given = [
            gradient.contiguous() if gradient is not None else _no_gradient(results[i], i == 2 + _MEMORY)
            for i, gradient in enumerate(gradients)
        ]
        found = operators().scan_backward(
            tensors[0],
            ctx.call.resets,
            tensors[1 : 1 + ctx.count],
            tensors[1 + ctx.count :],
            ctx.call.initial_memory,
            *ctx.call.settings,
            results[_OUTPUTS:],
            results[0],
            results[2 + _MEMORY],
            given,
            ctx.needs_input_grad[2],
            ctx.needs_input_grad[2 + 1 + ctx.count + _MEMORY],
        )
        states = len(ScanState._fields)
        return None, None, found[0], *found[1 + states :], *found[1 : 1 + states]


def _no_gradient(result: Tensor, is_memory: bool) -> Tensor:
    """Zeros, which for a memory are an empty tensor."""
    return result.new_empty(0) if is_memory else torch.zeros_like(result)

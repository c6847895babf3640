"""The ``cpu`` backend: the time loop in C++, forward and backward (see ``cpp/scan.cpp``).

Dimensions: ``T`` time, ``B`` batch, ``I`` input size; all others as in :mod:`mnm_rl.kernels.problem`.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from mnm_rl.kernels.build import load_library
from mnm_rl.kernels.problem import MNMState, ScanParameters, ScanResult, ScanSettings
from mnm_rl.memory import Normalization

DTYPES = (torch.float32, torch.float64)
_MEMORY = MNMState._fields.index("memory")
_RULE_NUMBERS = {"local": 0, "gradient": 1}  # as the C++ side has them
WRITE_RULES = frozenset(_RULE_NUMBERS)


class _Problem(NamedTuple):
    """What every operator takes besides its tensors with a gradient."""

    settings: Tensor
    resets: Tensor | None
    initial_memory: Tensor


class _Trained(NamedTuple):
    """What has a gradient, or, of the same form, the gradients and whether they are needed."""

    inputs: Any
    parameters: list[Any]
    state: MNMState

    def flat(self) -> tuple[Any, ...]:
        """All in one row, as autograd wants them."""
        return self.inputs, *self.parameters, *self.state

    @classmethod
    def unflat(cls, row: Sequence[Any]) -> _Trained:
        """From what :meth:`flat` returned."""
        parameters_end = len(row) - len(MNMState._fields)
        return cls(row[0], list(row[1:parameters_end]), MNMState(*row[parameters_end:]))


class _Saved(NamedTuple):
    """What a forward pass leaves for the backward pass, ``[T, B, ...]`` each; see ``cpp/loop.h``."""

    gates: Tensor
    cells: Tensor
    vectors: Tensor
    rates: Tensor
    records: Tensor


@functools.cache
def operators() -> Any:
    """The C++ operators, compiled on first use where no prebuilt library fits.

    Raises:
        BuildError: if they cannot be compiled.
    """
    return getattr(torch.ops, load_library())


@functools.cache
def vector_bytes() -> int:
    """The length of the operators' vectors, to which some of their rows are padded."""
    return operators().vector_bytes()


def scan(
    parameters: ScanParameters,
    settings: ScanSettings,
    inputs: Tensor,
    state: MNMState,
    resets: Tensor | None,
    initial_memory: Tensor,
) -> ScanResult:
    """Run the time loop; arguments as in :func:`mnm_rl.kernels.scan`."""
    resets = None if resets is None else resets.contiguous()
    problem = _Problem(_settings_tensor(settings), resets, initial_memory.contiguous())
    given = [tensor.contiguous() for tensor in parameters if tensor is not None]
    trained = _Trained(inputs.contiguous(), given, _contiguous(state))
    if torch.is_grad_enabled():
        flat = trained.flat()
        if any(tensor.requires_grad for tensor in flat):
            controls, meta_loss, *final = _Scan.apply(problem, *flat)
            return ScanResult(controls, meta_loss, MNMState(*final))
    return _forward(problem, trained, save=False)[0]


@functools.cache
def _settings_tensor(settings: ScanSettings) -> Tensor:
    """The settings as the operators take them; ``cpp/settings.h`` reads them by these names."""
    named = {
        "widths": settings.widths,
        "heads": [settings.heads],
        "rates": [settings.rates],
        "write_rule": [_RULE_NUMBERS[settings.write_rule]],
        "tanh_output": [settings.tanh_output],
        "normalization": [get_args(Normalization).index(settings.normalization)],
        "recall_weights": settings.recall_weights,
    }
    return operators().settings({name: [float(x) for x in numbers] for name, numbers in named.items()})


class _Acting:
    """What a thread keeps of parameters while it acts with them."""

    def __init__(self) -> None:
        self.packed: dict[tuple[tuple[int, int], ...], tuple[list[Tensor], list[Tensor]]] = {}
        """The controller's weights in the kernel's own layout, with the parameters so that their ids stay
        theirs."""
        self.memory: Tensor | None = None
        """The memory after the last step, which the next step may overwrite."""


_thread = threading.local()


@contextmanager
def acting(parameters: ScanParameters) -> Iterator[None]:
    """Inside, these must not change, and a state after a step with them is used for one more step at most.

    Scans without gradient then keep the weights that they have prepared, which otherwise a scan of one step
    leaves out because it would take longer than the step, and overwrite the memory instead of copying it.
    """
    before = _acting()
    _thread.acting = {**before, id(parameters[0]): _Acting()}
    try:
        yield
    finally:
        _thread.acting = before


def _acting() -> dict[int, _Acting]:
    """What acts in this thread, by the id of the first parameter."""
    return getattr(_thread, "acting", {})


class QuickStep:
    """Single steps without gradient of parameters that stay as they are.

    A state that a step has returned must be used for one more step at most: that one overwrites its memory.

    Args:
        parameters, settings, initial_memory: as in :func:`mnm_rl.kernels.scan`, on the CPU.
        inputs: of any step, ``[B, I]``.
        state: of any step.
    """

    def __init__(
        self,
        parameters: ScanParameters,
        settings: ScanSettings,
        initial_memory: Tensor,
        inputs: Tensor,
        state: MNMState,
    ):
        self._parameters = [tensor.contiguous() for tensor in parameters if tensor is not None]
        self._initial_memory, self._settings = initial_memory.contiguous(), _settings_tensor(settings)
        given = (self._parameters, _contiguous(state), self._initial_memory, self._settings)
        self._packed = operators().pack(inputs.unsqueeze(0).contiguous(), *given)
        self._run = operators().scan_forward.default
        self._last: MNMState | None = None

    def __call__(self, inputs: Tensor, state: MNMState, resets: Tensor | None) -> tuple[Tensor, MNMState]:
        """Controls ``[1, B, d_h + d_v]`` and the state after a step, from ``[B, I]`` and resets ``[B]``."""
        is_own = state is self._last
        controls, _, final, _ = self._run(
            inputs.unsqueeze(0).contiguous(),
            None if resets is None else resets.unsqueeze(0).contiguous(),
            self._parameters,
            state if is_own else _contiguous(state),
            self._initial_memory,
            self._settings,
            self._packed,
            state.memory if is_own else None,
            False,
        )
        if is_own:
            final[_MEMORY] = state.memory
        self._last = after = MNMState(*final)
        return controls, after


def _contiguous(state: MNMState) -> MNMState:
    """The state as the operators take it."""
    fields = [tensor.contiguous() for tensor in state]
    if state.memory.dim() == 2 and state.memory.stride(1) == 1:
        fields[_MEMORY] = state.memory  # one that is the same for all sequences stays one row
    return MNMState(*fields)


def _step_while_acting(problem: _Problem, trained: _Trained, kept: _Acting) -> ScanResult:
    memory = trained.state.memory
    key = tuple((id(tensor), tensor._version) for tensor in trained.parameters)
    if key not in kept.packed:
        packed = operators().pack(*trained, problem.initial_memory, problem.settings)
        kept.packed[key] = (trained.parameters, packed)
    overwrite = memory if memory is kept.memory and len(trained.inputs) == 1 else None
    result, _ = _run(problem, trained, kept.packed[key][1], overwrite, save=False)
    kept.memory = result.state.memory
    return result


def _forward(problem: _Problem, trained: _Trained, save: bool) -> tuple[ScanResult, list[Tensor]]:
    """The result, and, for the backward pass, the tensors of :class:`_Saved`."""
    kept = _acting().get(id(trained.parameters[0]))
    if kept is not None and not save:
        return _step_while_acting(problem, trained, kept), []
    return _run(problem, trained, [], None, save)


def _run(
    problem: _Problem, trained: _Trained, packed: list[Tensor], new_memory: Tensor | None, save: bool
) -> tuple[ScanResult, list[Tensor]]:
    """The operator with its results by name; the final memory is in ``new_memory`` if that is given."""
    controls, meta_loss, final, saved = operators().scan_forward(
        *(trained.inputs, problem.resets, trained.parameters, trained.state, problem.initial_memory),
        *(problem.settings, packed, new_memory, save),
    )
    if new_memory is not None:
        final[_MEMORY] = new_memory
    return ScanResult(controls, meta_loss, MNMState(*final)), saved


class _Scan(torch.autograd.Function):
    """The differentiable operator; tensors are those of :meth:`_Trained.flat`."""

    @staticmethod
    def forward(ctx: Any, problem: _Problem, *tensors: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore
        result, saved = _forward(problem, _Trained.unflat(tensors), save=True)
        ctx.problem = problem
        ctx.set_materialize_grads(False)  # zeros for a final memory that nobody uses would be large
        ctx.save_for_backward(result.controls, result.state.memory, *_Saved(*saved), *tensors)
        return result.controls, result.meta_loss, *result.state

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        # Once: under checkpointing each access to the saved tensors would repeat the forward pass.
        controls, final_memory, *more = ctx.saved_tensors
        saved = _Saved(*more[: len(_Saved._fields)])
        trained = _Trained.unflat(more[len(saved) :])
        d_controls, d_meta_loss, *d_final = gradients
        shapes = trained.state._replace(memory=controls.new_empty(0))  # an empty one stands for zeros
        d_state = [_or_zeros(gradient, like) for gradient, like in zip(d_final, shapes, strict=True)]
        needed = _Trained.unflat(ctx.needs_input_grad[1:])
        d_inputs, d_parameters, d_initial = operators().scan_backward(
            *(trained.inputs, ctx.problem.resets, trained.parameters, trained.state),
            *(ctx.problem.initial_memory, ctx.problem.settings, saved, controls, final_memory),
            _or_zeros(d_controls, controls),
            _or_zeros(d_meta_loss, controls[:, :, 0]),
            d_state,
            needed.inputs,
            needed.state.memory,
        )
        return None, *_Trained(d_inputs, d_parameters, MNMState(*d_initial)).flat()


def _or_zeros(gradient: Tensor | None, like: Tensor) -> Tensor:
    """The gradient of ``like``, zeros if there is none."""
    return like.new_zeros(like.shape) if gradient is None else gradient.contiguous()

"""The one interface that every recurrent memory offers to tasks and to agents.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size, ``O`` output size.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from numbers import Integral
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from mnm_rl.cores.checks import FreeDimensions, StateLayout, input_fault
from mnm_rl.cores.quick import QuickStep
from mnm_rl.sizes import check_fits

NEVER_TOO_LARGE = 4096
"""Batch sizes up to this one are let through without an estimate of the memory they need."""
StateT = TypeVar("StateT", bound=tuple)
"""A ``NamedTuple`` of tensors, each ``[B, ...]``."""


class CoreOutput(NamedTuple, Generic[StateT]):
    """What a core returns for a sequence.

    Attributes:
        outputs: ``[T, B, O]``.
        state: the state after the last step, to be passed to the next call.
        meta_loss: ``[T, B]``, the core's own loss at every step (Munkhdalai et al. 2019, Eq. 5 before the
            mean over time). Zero for cores that have none. Whoever trains takes the mean over the steps
            that count, so that padding is left out without the core knowing about it.
        trace: named tensors ``[T, B, ...]`` of what the memory did, if asked for by ``record=True``.
    """

    outputs: Tensor
    state: StateT
    meta_loss: Tensor
    trace: dict[str, Tensor] | None = None


def _guarded(method: Callable[..., Any], dimensions: str) -> Callable[..., Any]:
    """``forward`` or ``step`` of a core, with its arguments checked first.

    Inside ``torch.compile`` a core is a break in the graph and runs as it is. Inside ``torch.autocast`` it
    computes in the dtype of its parameters. What cannot work is an error that names what does.
    """

    @functools.wraps(method)
    def run(self: Any, inputs: Tensor, state: Any = None, resets: Any = None, **options: Any) -> Any:
        if torch.compiler.is_dynamo_compiling() and not torch.compiler.is_exporting():
            return _uncompiled(checked, self, inputs, state, resets, **options)
        return checked(self, inputs, state, resets, **options)

    def checked(self: Any, inputs: Tensor, state: Any, resets: Any, **options: Any) -> Any:
        if isinstance(inputs, Tensor) and _is_autocast(inputs.device.type):
            return _without_autocast(checked, self, inputs, state, resets, **options)
        self._check_arguments(inputs, state, resets, dimensions)
        try:
            return method(self, inputs, state, resets, **options)
        except RuntimeError as error:
            if (sentence := _what_works(self, error)) is not None:
                raise RuntimeError(sentence) from error
            raise

    return run


def _sized(method: Callable[..., Any]) -> Callable[..., Any]:
    """``initial_state`` of a core, with the batch size checked first."""

    @functools.wraps(method)
    def initial_state(self: Any, batch_size: Any) -> Any:
        if isinstance(batch_size, Tensor):  # inside of torch.jit.trace
            return method(self, batch_size)
        if not isinstance(batch_size, Integral | torch.SymInt) or isinstance(batch_size, bool):
            raise TypeError(f"batch_size must be a whole number, got {batch_size!r}.")
        count: Any = batch_size
        if count < 0:
            raise ValueError(f"batch_size must not be negative, got {batch_size}.")
        if count > NEVER_TOO_LARGE:
            needed = int(count) * self._known_layout().bytes_per_example
            check_fits(needed, f"{batch_size} states of {type(self).__name__}")
        return method(self, batch_size)

    return initial_state


# The public torch.compiler.disable imports the compiler at once, which takes seconds; this when it is called.
@torch._disable_dynamo  # pyright: ignore[reportPrivateImportUsage]
def _uncompiled(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return function(*arguments, **options)


def _is_autocast(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def _without_autocast(
    function: Callable[..., Any], core: MemoryCore, inputs: Tensor, *rest: Any, **options: Any
) -> Any:
    device_type = inputs.device.type
    if inputs.dtype == torch.get_autocast_dtype(device_type):
        inputs = inputs.to(core._known_layout().dtype)
    with torch.autocast(device_type, enabled=False):
        return function(core, inputs, *rest, **options)


def _what_works(core: MemoryCore, error: RuntimeError) -> str | None:
    """A sentence, if an error comes from a transform of torch that the core cannot run inside."""
    name = type(core).__name__
    if torch.compiler.is_exporting():
        return (
            f"{name} cannot be exported by torch.export as it is; MNM cores can with kernel='torch', and "
            "every core's state_dict can be saved."
        )
    if any(word in str(error) for word in ("functorch", "Batching rule")):
        return (
            f"{name} does not work inside this transform of torch.func; torch.autograd does with every core, "
            "a batch takes the place of vmap, and torch.func.grad works with MNM cores of kernel='reference'."
        )
    return None


class MemoryCore(nn.Module, ABC, Generic[StateT]):
    """A recurrent memory: a sequence in, a sequence out, and a state in between.

    A core knows nothing of tasks, of reinforcement learning, or of losses other than its own meta loss. It is
    built from an input size and a config, ``MyCore(input_size, config=None)``; without a config its settings
    have their defaults. What ``forward`` and ``step`` are given is checked before they run, in subclasses,
    too. :func:`mnm_rl.testing.check_core` holds a core to what this class promises.

    Attributes:
        input_size: ``I``.
        output_size: ``O``.
    """

    config_class: type[Any]
    """The dataclass of the core's settings; bad values are a ValueError of its ``__post_init__``."""
    input_size: int
    output_size: int
    quick_resets: bool = False
    """Whether an episode may start at any step of any sequence at no great cost."""
    trace_names: tuple[str, ...] = ()
    """Names of the tensors in a trace; none for a core without a memory to look into."""
    free_dimensions: FreeDimensions = MappingProxyType({})
    """Dimensions of the state whose size changes from step to step: field -> dimension -> a letter, the same
    for sizes that agree, as in ``{"keys": {1: "N"}, "values": {1: "N"}}``."""
    _layout: StateLayout | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, dimensions in (("forward", "TB"), ("step", "B")):
            if name in vars(cls):
                setattr(cls, name, _guarded(vars(cls)[name], dimensions))
        if "initial_state" in vars(cls):
            cls.initial_state = _sized(cls.initial_state)

    @abstractmethod
    def initial_state(self, batch_size: int) -> StateT:
        """State at the start of an episode, ``batch_size`` times, on the device of the parameters.

        Shapes and dtypes depend on the core and the batch size alone.

        Raises:
            TypeError: the batch size is not a whole number.
            ValueError: it is negative, or there is no memory for so many states.
        """

    @abstractmethod
    def forward(
        self,
        inputs: Tensor,
        state: StateT | None = None,
        resets: Tensor | None = None,
        *,
        record: bool = False,
    ) -> CoreOutput[StateT]:
        """Run a whole sequence.

        Args:
            inputs: ``[T, B, I]``, with at least one step of at least one example.
            state: the state before the first step; the initial state if not given.
            resets: boolean ``[T, B]``. Where true, an episode starts at that step: the example's state is
                replaced by the initial state *before* the step, and no gradient flows across.
            record: also return a trace.

        Raises:
            ValueError: if shapes, dtypes or devices do not fit.
            TypeError: the state is not one of this kind of core, or something is not a tensor.
        """

    def step(
        self, inputs: Tensor, state: StateT | None = None, resets: Tensor | None = None
    ) -> tuple[Tensor, StateT]:
        """Run one step, for acting.

        Args:
            inputs: ``[B, I]``.
            state: the state before the step; the initial state if not given.
            resets: boolean ``[B]``, as in :meth:`forward`.

        Returns:
            outputs ``[B, O]`` and the state after the step.

        Raises:
            ValueError: as :meth:`forward`.
            TypeError: as :meth:`forward`.
        """
        try:
            output = self(inputs.unsqueeze(0), state, None if resets is None else resets.unsqueeze(0))
        except (AttributeError, TypeError, ValueError):
            # What does not fit a sequence of one step does not fit a step: here is the same said of a step.
            self._check_arguments(inputs, state, resets, "B")
            raise
        return output.outputs[0], output.state

    def acting(self) -> AbstractContextManager[None]:
        """Two promises with which a core may act faster, for as long as the context lasts.

        The parameters stay as they are, and a state that a step has returned is given to one further step
        at most: that step may overwrite it.
        """
        return nullcontext()

    def quick_step(self) -> QuickStep | None:
        """:meth:`step` without checks and gradient, inside of :meth:`acting`; None where there is none.

        What the caller promises besides: all arguments are right ones, and the core is the same as now, as
        :class:`mnm_rl.cores.quick.Unchanged` says it.
        """
        return None

    def _check_arguments(self, inputs: Any, state: Any, resets: Any, dimensions: str) -> None:
        layout = self._known_layout()
        fault = self._fault(layout, inputs, state, resets, dimensions)
        if fault is not None:
            # Parameters may have been replaced, by others of another dtype, since the layout was found.
            fault = self._fault(self._find_layout(), inputs, state, resets, dimensions)
        if fault is not None:
            raise fault

    def _fault(
        self, layout: StateLayout, inputs: Any, state: Any, resets: Any, dimensions: str
    ) -> Exception | None:
        name = type(self).__name__
        fault = input_fault(name, layout, inputs, resets, self.input_size, dimensions)
        if fault is not None or state is None:
            return fault
        return layout.fault(name, state, inputs.shape[-2])

    def _known_layout(self) -> StateLayout:
        return self._layout or self._find_layout()

    def _find_layout(self) -> StateLayout:
        state = self.initial_state(1)
        tensors = (tensor for tensor in (*self.parameters(), *state) if tensor.is_floating_point())
        first = next(tensors, state[0])
        self._layout = layout = StateLayout(state, first.dtype, self.free_dimensions)
        return layout

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._layout = None  # the core goes to another device or dtype
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        # The layout is found again. It names the class of the states, which pickle cannot always find.
        return {name: value for name, value in vars(self).items() if name != "_layout"}

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._layout = None
        super()._load_from_state_dict(*args, **kwargs)


def reset_state(state: StateT, initial: StateT, mask: Tensor) -> StateT:
    """Replace the examples of ``state`` where ``mask`` ``[B]`` is true by those of ``initial``."""
    fields: list[Any] = [
        torch.where(mask.view(-1, *[1] * (old.dim() - 1)), new, old)
        for old, new in zip(state, initial, strict=True)
    ]
    return type(state)(*fields)


def detach_state(state: StateT) -> StateT:
    """The same state, cut off from the graph that computed it.

    For training loops of your own with truncated back-propagation through time: between two chunks of a
    sequence, ``state = detach_state(output.state)`` carries on what the memory holds while gradients stay
    within a chunk.
    """
    return type(state)(*[field.detach() for field in state])


def outlasts_reset(outputs: Tensor, resets: Tensor | None) -> bool:
    """Whether a sequence must be run again by a plain loop, as something in it is not finite.

    Forms that take many steps at once multiply what is of an episode before by zero, which numbers that are
    not finite outlast; plain loops put the initial state in their place.

    Args:
        outputs: of all steps, of any shape.
        resets: of the sequence, or None.
    """
    if resets is None or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False  # there, what to run must not depend on numbers
    return not bool(outputs.detach().isfinite().all())


def steps_with_resets(resets: Tensor | None, length: int) -> list[bool]:
    """For each of ``length`` steps, whether any example of the batch is reset there."""
    return [False] * length if resets is None else resets.any(dim=1).tolist()

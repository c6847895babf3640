"""Cores made of cores: behind an encoder, on top of each other, side by side.

They are built from cores that are there, not from a config, and their states have the fields of all of them.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size, ``O`` output size.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections import namedtuple
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from mnm_rl.cores.base import CoreOutput, MemoryCore
from mnm_rl.cores.checks import check_input_size
from mnm_rl.cores.quick import QuickStep
from mnm_rl.cores.registry import CoreChoice, make_core
from mnm_rl.field_types import check_whole
from mnm_rl.kernels import departure
from mnm_rl.sizes import check_fits


class _Composed(MemoryCore):
    """What cores made of several have in common.

    Args:
        parts: name -> core; the names stand before those of the fields of the state.
        shown: which of them has the config and the trace that are those of the whole.

    Attributes:
        shown: that core.

    Raises:
        ValueError: there is none.
    """

    def __init__(self, parts: dict[str, MemoryCore], shown: str):
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self._shown = shown
        states = {name: core.initial_state(1) for name, core in parts.items()}
        self._fields = tuple(f"{name}_{field}" for name, state in states.items() for field in state._fields)
        self._sizes = [len(state) for state in states.values()]
        self.config_class = self.shown.config_class
        self.config = self.shown.config
        self.quick_resets = all(core.quick_resets for core in parts.values())
        self.trace_names = self.shown.trace_names
        self.free_dimensions = {
            f"{name}_{field}": {place: f"{letter}_{name}" for place, letter in dimensions.items()}
            for name, core in parts.items()
            for field, dimensions in core.free_dimensions.items()
        }

    @property
    def shown(self) -> Any:
        """See the class."""
        return self.parts[self._shown]

    def _cores(self) -> Iterator[Any]:
        return iter(self.parts.values())

    def initial_state(self, batch_size: int) -> Any:
        """See :meth:`MemoryCore.initial_state`."""
        return self._joined([core.initial_state(batch_size) for core in self._cores()])

    def _joined(self, states: Sequence[Any]) -> Any:
        return _state_class(self._fields)(*[field for state in states for field in state])

    def _split(self, state: Any) -> list[Any]:
        """The states of the parts, ``None`` each for ``None``."""
        if state is None:
            return [None] * len(self._sizes)
        fields = iter(state)
        return [
            core._known_layout().kind(*[next(fields) for _ in range(size)])
            for core, size in zip(self._cores(), self._sizes, strict=True)
        ]

    @abstractmethod
    def _run(self, inputs: Tensor, states: list[Any], resets: Tensor | None, record: bool) -> CoreOutput:
        """A sequence; the state in the output is a list of those of the parts."""

    @abstractmethod
    def _run_step(self, inputs: Tensor, states: list[Any], resets: Tensor | None) -> tuple[Tensor, list[Any]]:
        """One step of all parts."""

    def forward(
        self, inputs: Tensor, state: Any = None, resets: Tensor | None = None, *, record: bool = False
    ) -> CoreOutput:
        """See :meth:`MemoryCore.forward`; the meta loss is the sum over the parts."""
        output = self._run(inputs, self._split(state), resets, record)
        return output._replace(state=self._joined(output.state))

    def step(self, inputs: Tensor, state: Any = None, resets: Tensor | None = None) -> tuple[Tensor, Any]:
        """See :meth:`MemoryCore.step`."""
        outputs, states = self._run_step(inputs, self._split(state), resets)
        return outputs, self._joined(states)

    @contextmanager
    def acting(self) -> Iterator[None]:
        """See :meth:`MemoryCore.acting`."""
        with ExitStack() as stack:
            for core in self._cores():
                stack.enter_context(core.acting())
            yield


def _require_cores(parts: Sequence[Any]) -> None:
    for part in parts:
        if not isinstance(part, MemoryCore):
            raise TypeError(f"Cores are made of cores, got {type(part).__name__}.")


@functools.cache
def _state_class(fields: tuple[str, ...]) -> Any:
    kind: Any = namedtuple("ComposedState", fields)
    # A class that no module holds cannot be found again by its name: its states are made by their fields.
    kind.__reduce__ = lambda state: (_composed_state, (fields, *state))
    return kind


def _composed_state(fields: tuple[str, ...], *values: Any) -> Any:
    return _state_class(fields)(*values)


class StackedCore(_Composed):
    """Layers: the outputs of each core are the inputs of the next one; the last one's are those of the whole.

    Args:
        cores: from the bottom to the top. The trace and the config are those of the top.

    Raises:
        ValueError: there is none, or one does not fit on the one below.
        TypeError: one is no core.
    """

    def __init__(self, cores: Sequence[MemoryCore]):
        if not cores:
            raise ValueError("A stack needs at least one core.")
        _require_cores(cores)
        for below, above in pairwise(cores):
            if below.output_size != above.input_size:
                raise ValueError(
                    f"A core of input size {above.input_size} does not fit on one of output size "
                    f"{below.output_size}."
                )
        names = [f"layer{number}" for number in range(len(cores))]
        super().__init__(dict(zip(names, cores, strict=True)), names[-1])
        self.input_size, self.output_size = cores[0].input_size, cores[-1].output_size

    def _run(self, inputs: Tensor, states: list[Any], resets: Tensor | None, record: bool) -> CoreOutput:
        after, meta_loss, trace = [], torch.zeros(()), None
        for core, state in zip(self._cores(), states, strict=True):
            output = core(inputs, state, resets, record=record and core is self.shown)
            inputs, meta_loss, trace = output.outputs, output.meta_loss + meta_loss, output.trace
            after.append(output.state)
        return CoreOutput(inputs, after, meta_loss, trace)  # pyright: ignore[reportArgumentType]

    def _run_step(self, inputs: Tensor, states: list[Any], resets: Tensor | None) -> tuple[Tensor, list[Any]]:
        after = []
        for core, state in zip(self._cores(), states, strict=True):
            inputs, state = core.step(inputs, state, resets)
            after.append(state)
        return inputs, after


class PairedCore(_Composed):
    """Two cores side by side, such as that of a policy and that of a value function.

    Both get the same inputs; the outputs ``[T, B, O]`` are those of the first, then those of the second.

    Args:
        first: the trace and the config are those of this one.
        second: of the same input size.
        names: what the two are.

    Raises:
        ValueError: the input sizes differ.
        TypeError: one is no core.
    """

    def __init__(self, first: MemoryCore, second: MemoryCore, names: tuple[str, str] = ("first", "second")):
        _require_cores([first, second])
        if first.input_size != second.input_size:
            raise ValueError(
                f"Two cores side by side need the same input size, got {first.input_size} and "
                f"{second.input_size}."
            )
        super().__init__({names[0]: first, names[1]: second}, names[0])
        self.input_size = first.input_size
        self.output_sizes = (first.output_size, second.output_size)
        self.output_size = sum(self.output_sizes)

    def _run(self, inputs: Tensor, states: list[Any], resets: Tensor | None, record: bool) -> CoreOutput:
        first, second = (
            core(inputs, state, resets, record=record and core is self.shown)
            for core, state in zip(self._cores(), states, strict=True)
        )
        outputs = torch.cat([first.outputs, second.outputs], dim=-1)
        meta_loss = first.meta_loss + second.meta_loss
        return CoreOutput(outputs, [first.state, second.state], meta_loss, first.trace)  # pyright: ignore[reportArgumentType]

    def _run_step(self, inputs: Tensor, states: list[Any], resets: Tensor | None) -> tuple[Tensor, list[Any]]:
        pairs = [core.step(inputs, state, resets) for core, state in zip(self._cores(), states, strict=True)]
        return torch.cat([outputs for outputs, _ in pairs], dim=-1), [state for _, state in pairs]


class EncodedCore(MemoryCore):
    """A core whose inputs go through layers first, which have no memory.

    Args:
        encoder: ``[..., I]`` to the inputs of the core.
        core: what remembers; states, config and trace are its own.
        input_size: I.

    Attributes:
        encoder: the layers.
        shown: the core.

    Raises:
        ValueError: the input size is none.
        TypeError: the core is none.
    """

    def __init__(self, encoder: nn.Module, core: MemoryCore, input_size: int):
        super().__init__()
        _require_cores([core])
        check_input_size(input_size)
        self.encoder, self.core = encoder, core
        self.input_size, self.output_size = input_size, core.output_size
        self.config_class, self.config = core.config_class, core.config  # pyright: ignore[reportAttributeAccessIssue]
        self.quick_resets, self.trace_names = core.quick_resets, core.trace_names
        self.free_dimensions = dict(core.free_dimensions)

    @property
    def shown(self) -> Any:
        """See the class."""
        return self.core

    def initial_state(self, batch_size: int) -> Any:
        """See :meth:`MemoryCore.initial_state`."""
        return self.core.initial_state(batch_size)

    def forward(
        self, inputs: Tensor, state: Any = None, resets: Tensor | None = None, *, record: bool = False
    ) -> CoreOutput:
        """See :meth:`MemoryCore.forward`."""
        return self.core(self.encoder(inputs), state, resets, record=record)

    def step(self, inputs: Tensor, state: Any = None, resets: Tensor | None = None) -> tuple[Tensor, Any]:
        """See :meth:`MemoryCore.step`."""
        return self.core.step(self.encoder(inputs), state, resets)

    @contextmanager
    def acting(self) -> Iterator[None]:
        """See :meth:`MemoryCore.acting`."""
        with self.core.acting():
            yield

    def quick_step(self) -> QuickStep | None:
        """See :meth:`MemoryCore.quick_step`; that of the core, where it has one."""
        step = self.core.quick_step()
        if step is None or departure(self, EncodedCore, ("step",), {}):
            return None
        return lambda inputs, state, resets: step(self.encoder(inputs), state, resets)


def innermost(core: MemoryCore) -> Any:
    """The core that remembers, within one that is made of several: that with the trace and the config."""
    while isinstance(core, _Composed | EncodedCore):
        core = core.shown
    return core


def make_layers(core: CoreChoice, input_size: int, layers: int, /, **settings: Any) -> MemoryCore:
    """So many cores of one kind on top of each other; a single one is that core itself.

    Args:
        core: as of :func:`mnm_rl.cores.make_core`.
        input_size: I.
        layers: at least 1.
        settings: of each.

    Raises:
        ValueError: as :func:`mnm_rl.cores.make_core`.
        TypeError: as there.
    """
    check_whole("layers", layers, 1)
    first = make_core(core, input_size, **settings)
    if layers == 1:
        return first
    needed = sum(parameter.numel() * parameter.itemsize for parameter in first.parameters())
    check_fits(layers * max(needed, 1000), f"a core of core_layers {layers}")
    above = [make_core(core, first.output_size, **settings) for _ in range(1, layers)]
    return StackedCore([first, *above])

"""What a core is given, checked before it runs: a state of the wrong shape must not reach a kernel.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size, ``N`` sizes that grow with time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

ConfigT = TypeVar("ConfigT")
FreeDimensions = Mapping[str, Mapping[int, str]]
"""Field of a state -> dimension -> a letter; sizes under the same letter agree, and are free otherwise."""


def check_input_size(input_size: Any) -> None:
    """Raise a ValueError for an input size that is not a whole number, or negative."""
    if not isinstance(input_size, int) or isinstance(input_size, bool) or input_size < 0:
        raise ValueError(f"input_size must be a whole number that is not negative, got {input_size!r}.")


def checked_config(core: Any, input_size: Any, config: Any, kind: type[ConfigT]) -> ConfigT:
    """The config that a core is built from, with what its class was given checked.

    Args:
        core: that is being built.
        input_size: anything; ``I`` is right.
        config: anything; one of the core's kind is right, and None for the defaults.
        kind: of the class whose ``__init__`` asks; a subclass may have a config of its own.

    Raises:
        ValueError: of the input size.
        TypeError: of the config.
    """
    check_input_size(input_size)
    if config is None:
        return kind()
    if not isinstance(config, kind | core.config_class):
        name = core.config_class.__name__
        raise TypeError(f"The config of {type(core).__name__} must be a {name} or None, got {config!r}.")
    return config  # pyright: ignore[reportReturnType]


class _Field(NamedTuple):
    """What a field of a state looks like."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | str, ...]
    """Without the batch; letters for free dimensions."""
    free: bool


class StateLayout:
    """What a core's states and inputs look like, whatever the batch size.

    Args:
        state: a state of the core.
        dtype: of the core's parameters.
        free: dimensions of the state whose size changes from step to step.
    """

    def __init__(self, state: Any, dtype: torch.dtype, free: FreeDimensions):
        self.kind, self.dtype = type(state), dtype
        self.device: torch.device = state[0].device
        self.bytes_per_example = sum(field[:1].numel() * field.itemsize for field in state)
        self._fields = [
            _Field(name, field.dtype, _named(tuple(field.shape)[1:], free.get(name, {})), name in free)
            for name, field in zip(state._fields, state, strict=True)
        ]
        self._shapes: tuple[int, list[tuple[int | str, ...]]] = (0, [])
        """Batch size and the shapes for it; one is enough, because it rarely changes."""

    def _fits(self, state: Any, batch_size: int) -> bool:
        """Whether a state is right, at little cost."""
        if type(state) is not self.kind or len(state) != len(self._fields):
            return False
        cached_size, shapes = self._shapes
        if cached_size != batch_size:
            shapes = [(batch_size, *field.shape) for field in self._fields]
            self._shapes = (batch_size, shapes)
        device, strided, sizes = self.device, torch.strided, {}
        for value, field, shape in zip(state, self._fields, shapes, strict=True):
            if not isinstance(value, Tensor) or value.dtype is not field.dtype:
                return False
            if value.shape != shape and not (field.free and _matches(tuple(value.shape), shape, sizes)):
                return False
            if value.device != device or value.layout is not strided:
                return False
        return True

    def fault(self, core: str, state: Any, batch_size: int) -> Exception | None:
        """What is wrong with a state, as an error to raise.

        Args:
            core: what the core is called.
            state: anything.
            batch_size: ``B`` of the inputs.
        """
        if self._fits(state, batch_size):
            return None
        if type(state) is not self.kind:
            return TypeError(
                f"The state of {core} must be a {self.kind.__name__}, got {type(state).__name__}."
            )
        if len(state) != len(self._fields):
            return ValueError(f"The state of {core} must have {len(self._fields)} fields, got {len(state)}.")
        sizes: dict[str, int] = {}
        for field, value in zip(self._fields, state, strict=True):
            if not isinstance(value, Tensor):
                return TypeError(
                    f"The state's {field.name} of {core} must be a tensor, got {type(value).__name__}."
                )
            shape = (batch_size, *field.shape)
            if not _matches(tuple(value.shape), shape, sizes):
                known = ", ".join(f"{letter} = {size}" for letter, size in sizes.items())
                return ValueError(
                    f"The state's {field.name} of {core} must have the shape {_written(shape)}"
                    f"{f' with {known}' if known else ''}, got {list(value.shape)}."
                )
            if (value.dtype, value.device, value.layout) != (field.dtype, self.device, torch.strided):
                return ValueError(
                    f"The state's {field.name} of {core} must be {_kind(field.dtype, self.device)}, "
                    f"got {_kind(value.dtype, value.device, value.layout)}."
                )
        return None


def input_fault(
    core: str, layout: StateLayout, inputs: Any, resets: Any, input_size: int, dimensions: str
) -> Exception | None:
    """What is wrong with inputs and resets, as an error to raise.

    Args:
        core: what the core is called.
        layout: of the core.
        inputs: anything.
        resets: anything; None is right.
        input_size: ``I``.
        dimensions: ``"TB"`` for a sequence, ``"B"`` for a step.
    """
    if not isinstance(inputs, Tensor):
        return TypeError(f"{core} takes inputs as a tensor, got {type(inputs).__name__}.")
    leading = inputs.shape[:-1]
    if len(leading) != len(dimensions) or inputs.shape[-1] != input_size or 0 in leading:
        letters = ", ".join(dimensions)
        least = " and ".join(f"{letter} >= 1" for letter in dimensions)
        return ValueError(
            f"{core} takes inputs of shape [{letters}, {input_size}] with {least}, got {list(inputs.shape)}."
        )
    if (inputs.dtype, inputs.device, inputs.layout) != (layout.dtype, layout.device, torch.strided):
        return ValueError(
            f"{core} takes inputs that are {_kind(layout.dtype, layout.device)}, as its parameters are, "
            f"got {_kind(inputs.dtype, inputs.device, inputs.layout)}."
        )
    if resets is None:
        return None
    if not isinstance(resets, Tensor):
        return TypeError(f"resets must be a boolean tensor or None, got {type(resets).__name__}.")
    if resets.dtype != torch.bool or resets.shape != leading:
        return ValueError(
            f"resets must be boolean of shape {list(leading)}, "
            f"got {resets.dtype} of shape {list(resets.shape)}."
        )
    if (resets.device, resets.layout) != (layout.device, torch.strided):
        return ValueError(
            f"resets must be {_kind(torch.bool, layout.device)}, "
            f"got {_kind(resets.dtype, resets.device, resets.layout)}."
        )
    return None


def _named(shape: tuple[int, ...], free: Mapping[int, str]) -> tuple[int | str, ...]:
    return tuple(free.get(dimension, size) for dimension, size in enumerate(shape, start=1))


def _matches(shape: tuple[int, ...], expected: tuple[int | str, ...], sizes: dict[str, int]) -> bool:
    """Whether sizes agree; those of letters that are new go into ``sizes``."""
    if len(shape) != len(expected):
        return False
    for size, wanted in zip(shape, expected, strict=True):
        if size != (sizes.setdefault(wanted, size) if isinstance(wanted, str) else wanted):
            return False
    return True


def _written(shape: tuple[int | str, ...]) -> str:
    return f"[{', '.join(str(size) for size in shape)}]"


def _kind(dtype: torch.dtype, device: torch.device, layout: torch.layout = torch.strided) -> str:
    kind = f"{dtype} on {device}"
    return kind if layout == torch.strided else f"{kind} ({layout})"

"""Observation and action spaces as plain values, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

LARGEST = 2**26
"""Numbers in an observation or action; a file that claims more is damaged."""


def space_to_plain(space: spaces.Space) -> dict[str, Any]:
    """A space as JSON can hold it.

    Raises:
        ValueError: it is of another kind than those that an agent can serve.
    """
    if isinstance(space, spaces.Dict):
        return {"kind": "Dict", "spaces": [[key, space_to_plain(part)] for key, part in space.spaces.items()]}
    common = {"kind": type(space).__name__, "dtype": str(space.dtype)}
    if isinstance(space, spaces.Box):
        bounds = {"low": _bound(space.low), "high": _bound(space.high)}
        return {**common, "shape": list(space.shape), **bounds}
    if isinstance(space, spaces.Discrete):
        return {**common, "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {**common, "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {**common, "n": int(space.n) if isinstance(space.n, int | np.integer) else list(space.shape)}
    raise ValueError(f"A space of the kind {type(space).__name__} cannot be saved.")


def space_from_plain(values: Any) -> spaces.Space:
    """The inverse of :func:`space_to_plain`.

    Raises:
        ValueError: the values are not those of a space.
    """
    try:
        return _space(values)
    except (KeyError, TypeError, ValueError, AssertionError, OverflowError, IndexError) as error:
        raise ValueError(f"not the values of a space: {str(error)[:200] or type(error).__name__}") from error


def _space(values: Mapping[str, Any]) -> spaces.Space:
    kind = values["kind"]
    if kind == "Dict":
        return spaces.Dict({str(key): _space(part) for key, part in values["spaces"]})
    dtype: Any = np.dtype(str(values["dtype"]))
    if dtype.kind not in "biuf":
        raise ValueError(f"the dtype {dtype} is not one of numbers")
    if kind == "Box":
        shape = tuple(int(size) for size in values["shape"])
        _check_size(shape)
        low, high = (_array(values[name], shape, dtype) for name in ("low", "high"))
        return spaces.Box(low, high, shape, dtype)
    if kind == "Discrete":
        _check_size([values["n"]])
        return spaces.Discrete(int(values["n"]), start=int(values["start"]))
    if kind == "MultiDiscrete":
        _check_size([sum(values["nvec"])])
        return spaces.MultiDiscrete(values["nvec"], dtype=dtype, start=values["start"])
    if kind == "MultiBinary":
        _check_size(values["n"] if isinstance(values["n"], list) else [values["n"]])
        return spaces.MultiBinary(values["n"])
    raise ValueError(f"the kind {str(kind)[:40]!r} is not known")


def _check_size(shape: Any) -> None:
    if math.prod(shape) > LARGEST or min(shape, default=1) < 0:
        raise ValueError(f"the shape {list(shape)} is too large")


def _bound(bound: NDArray[Any]) -> Any:
    """One number where all are alike; infinities as texts, which JSON lacks."""
    if bound.size and (bound == bound.flat[0]).all():
        return _number(bound.flat[0].item())
    return [_number(value) for value in bound.ravel().tolist()]


def _number(value: Any) -> Any:
    return value if isinstance(value, int) or math.isfinite(value) else str(value)


def _array(values: Any, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    if not isinstance(values, list):
        return np.full(shape, _value(values), dtype)
    return np.asarray([_value(value) for value in values], dtype).reshape(shape)


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return float(value)  # "inf"
    return value

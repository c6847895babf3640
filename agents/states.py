"""Recurrent states that come from outside: as arrays, of another run, or of nobody knows what.

Dimensions: ``B`` environments.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def state_to_arrays(state: Any) -> tuple[NDArray[Any], ...]:
    """A recurrent state as numpy arrays, each ``[B, ...]``."""
    return tuple(field.cpu().numpy() for field in state)


def state_tensors(arrays: tuple[NDArray[Any], ...], device: torch.device) -> tuple[Tensor, ...]:
    """Arrays as tensors; none where one of them is no array of numbers."""
    try:
        return tuple(torch.as_tensor(array, device=device) for array in arrays)
    except (TypeError, ValueError, RuntimeError):
        return ()


def state_fits(state: Any, initial: Any) -> bool:
    """Whether tensors are a state of the core with this initial state, for as many environments."""
    if not isinstance(state, tuple) or len(state) != len(initial):
        return False
    # Dimensions that start empty may have grown: the slots of a look-up table, as many in each field.
    grown = set()
    for field, expected in zip(state, initial, strict=True):
        if not isinstance(field, Tensor) or field.dim() != expected.dim():
            return False
        for size, wanted in zip(field.shape, expected.shape, strict=True):
            if wanted == 0:
                grown.add(size)
            elif size != wanted:
                return False
    return len(grown) <= 1


def checked_state(state: Any, initial: Any, core_name: str, batch_size: int) -> Any:
    """The state, of the initial one's type and dtype; the initial one for ``None``.

    Raises:
        ValueError: it is not a state of this core for so many environments.
    """
    if state is None:
        return initial
    if not state_fits(state, initial):
        wanted = ", ".join(str(list(field.shape)) for field in initial)
        got = ", ".join(_shape(field) for field in state) if isinstance(state, tuple) else type(state)
        raise ValueError(
            f"A state of {core_name!r} for {batch_size} environments starts as {wanted}, not {got}."
        )
    pairs = zip(state, initial, strict=True)
    return type(initial)(*[field.to(expected.dtype) for field, expected in pairs])


def checked_starts(episode_start: Any, batch_size: int) -> NDArray[np.bool_]:
    """``episode_start`` of ``predict()`` as ``[B]``; false for ``None``.

    Raises:
        ValueError: it is not one for so many environments.
    """
    starts = np.asarray(False if episode_start is None else episode_start)
    if starts.shape not in ((), (1,), (batch_size,)) or starts.dtype.kind not in "biuf":
        raise ValueError(
            f"episode_start must be {batch_size} of True and False, one for each observation, "
            f"got an array of {starts.dtype} of shape {list(starts.shape)}."
        )
    return np.broadcast_to(starts.astype(bool), batch_size).copy()


def _shape(field: Any) -> str:
    return str(list(np.shape(field)))

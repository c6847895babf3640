"""The state of a core between the batches of a text without end.

Dimensions: ``B`` batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mnm_rl.cores import MemoryCore, detach_state

MOST_SLOTS = 1000
"""A state that grows with every step keeps so many of its latest slots."""


class CarriedState:
    """What a model takes up at a batch's first step, and leaves at its last, without its graph.

    Attributes:
        state: the core's, or ``None`` before the first batch, which begins with the initial state.
    """

    def __init__(self) -> None:
        self.state: Any = None

    def put(self, core: MemoryCore, state: Any) -> None:
        """Keep a state for the next batch."""
        fields = detach_state(state)._asdict()
        for name, dimensions in core.free_dimensions.items():
            for dimension in dimensions:
                length = fields[name].shape[dimension]
                kept = min(length, MOST_SLOTS)
                fields[name] = fields[name].narrow(dimension, length - kept, kept)
        self.state = type(state)(**fields)

    def saved(self) -> dict[str, Tensor] | None:
        """The state's tensors by their names, for a checkpoint."""
        return None if self.state is None else dict(self.state._asdict())

    def load(self, core: MemoryCore, saved: Any, batch_size: int) -> None:
        """Take up what :meth:`saved` gave.

        Args:
            core: whose state it is.
            saved: from a checkpoint.
            batch_size: ``B``.

        Raises:
            ValueError: it is no state of this core for so many sequences.
        """
        if saved is None:
            self.state = None
            return
        initial = core.initial_state(1)
        if not isinstance(saved, dict) or saved.keys() != {*initial._fields}:
            raise ValueError(f"the carried state does not have {', '.join(initial._fields)}")
        for name, own in initial._asdict().items():
            _check_field(name, saved[name], own, batch_size, {*core.free_dimensions.get(name, ())})
        self.state = type(initial)(**{name: value.to(initial[0].device) for name, value in saved.items()})


def _check_field(name: str, field: Any, initial: Tensor, batch_size: int, free: set[int]) -> None:
    wanted = (batch_size, *initial.shape[1:])
    fits = isinstance(field, Tensor) and field.dtype == initial.dtype and field.dim() == len(wanted)
    if not fits or any(
        size != expected
        for place, (size, expected) in enumerate(zip(field.shape, wanted, strict=True))
        if place not in free
    ):
        raise ValueError(f"{name} of the carried state is not {initial.dtype} of shape {list(wanted)}")
    if field.is_floating_point() and not torch.isfinite(field).all():
        raise ValueError(f"{name} of the carried state is not finite")

"""What a DNC's time loop takes, keeps of its steps, and shares with its backward pass.

Dimensions: ``T`` time, ``B`` batch, ``N`` slots, ``W`` size of a slot, ``R`` read heads, ``U`` size of the
interface vector; ``d_h`` controller.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor

from mnm_rl.memory.dnc import Switches


class Parameters(NamedTuple):
    """The trained tensors inside the time loop."""

    weight_hh: Tensor
    """Of the controller, ``[4 d_h, d_h]``; gates in the order of ``torch.nn.LSTMCell``."""
    weight_rh: Tensor
    """Of the controller, from the reads, ``[4 d_h, R W]``."""
    interface_weight: Tensor
    """``[U, d_h]``."""
    interface_bias: Tensor
    """``[U]``."""


class State(NamedTuple):
    """As :class:`mnm_rl.cores.dnc.DNCState`; without links the last two are missing."""

    hidden: Tensor
    cell: Tensor
    reads: Tensor
    memory: Tensor
    usage: Tensor
    write_weights: Tensor
    read_weights: Tensor
    precedence: Tensor | None = None
    link: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        """Those that are there."""
        return [field for field in self if field is not None]

    def vectors(self) -> list[Tensor]:
        """Usage, write weights, read weights and, with links, precedence."""
        return [field for field in self[4:8] if field is not None]


class Record(NamedTuple):
    """What the forward pass keeps of a step, or, stacked, of all steps; all after the step."""

    control: Tensor
    """``[h; r]``, ``[B, d_h + R W]``."""
    cell: Tensor
    """``[B, d_h]``."""
    sums: Tensor
    """The controller's gates before their nonlinearities, ``[B, 4 d_h]``."""
    vector: Tensor
    """xi, the interface vector before its nonlinearities, ``[B, U]``."""
    usage: Tensor
    write_weights: Tensor
    read_weights: Tensor
    precedence: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        """Those that are there."""
        return [field for field in self if field is not None]

    def vectors(self) -> list[Tensor]:
        """As :meth:`State.vectors`."""
        return self.tensors()[4:]


class Call(NamedTuple):
    """The arguments of a scan that have no gradient."""

    switches: Switches
    resets: Tensor | None
    """Boolean ``[T, B]``."""


def options(switches: Switches) -> tuple[Any, ...]:
    """The switches as the operators take them."""
    least = switches.mask_minimum if switches.masked else None
    return switches.read_heads, least, switches.deallocating, switches.usage_gradient


def segment_length(steps: int) -> int:
    """Steps from one copy of memory and links to the next.

    sqrt(2 T), so that there are half as many copies: a copy has the links, too, which are most of it, and a
    segment that is repeated has none.
    """
    return math.ceil(math.sqrt(2 * steps))


def forget(field: Tensor, mask: Tensor) -> Tensor:
    """Zeros where ``mask`` is true, which has the first dimensions of the field."""
    return field.masked_fill(mask.reshape(*mask.shape, *[1] * (field.dim() - mask.dim())), 0)

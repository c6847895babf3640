"""What the forms of a neural Turing machine's time loop share (:mod:`mnm_rl.kernels.ntm`).

Dimensions: ``B`` batch, ``H`` read heads and as many write heads, ``N`` slots, ``W`` slot size, ``S`` shift
values, ``P`` numbers that the controller tells the heads; sizes ``d_h`` controller, ``d_c = d_h + H W``
controller and reads.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

CLIP = 20.0
"""What the controller says to the heads is limited to plus and minus this, before its nonlinearities."""
SMALLEST_NORM = 1e-8
"""Added to a product of norms, so that a slot of zeros is like nothing."""
SMALLEST_WEIGHT = 1e-8
"""Added to weights before they are raised to a power, whose gradient at zero would not be finite."""


class NTMSizes(NamedTuple):
    """What is not seen from the shapes of the tensors."""

    heads: int
    """H."""
    slot_size: int
    """W."""
    shifts: int
    """S."""

    @property
    def told(self) -> tuple[int, ...]:
        """Numbers told to the heads: keys, adds, erases, gates, strengths, sharpenings, shifts."""
        heads, values = self.heads, self.heads * self.slot_size
        return (2 * values, values, values, *3 * (2 * heads,), 2 * heads * self.shifts)


class NTMParameters(NamedTuple):
    """Weights of the controller for what it said and read the step before, and of what it tells the heads."""

    recurrent: Tensor
    """``[4 d_h, d_c]``, gates in the order input, forget, cell, output."""
    interaction: Tensor
    """``[P, d_h]``."""
    interaction_bias: Tensor
    """``[P]``."""


class NTMState(NamedTuple):
    """What the core carries from step to step."""

    hidden: Tensor
    """h, ``[B, d_h]``."""
    cell: Tensor
    """The controller's cell state, ``[B, d_h]``."""
    reads: Tensor
    """r of the last step, ``[B, H, W]``."""
    weights: Tensor
    """w of the last step, over the slots, ``[B, 2 H, N]``: write heads first, then read heads."""
    memory: Tensor
    """M, ``[B, N, W]``."""

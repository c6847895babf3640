"""Products with a weight that is the same in every step of a time loop (``cpp/packed_product.h``).

Dimensions: ``T`` time, ``B`` batch, ``I`` and ``O`` numbers in and out.
"""

from __future__ import annotations

from torch import Tensor

from mnm_rl.kernels import cpu

FEW_STEPS = 8
"""For fewer steps it is not worth it to copy the weight."""


def outer_sum(left: Tensor, right: Tensor) -> Tensor:
    """The sum over all steps and the batch of outer products, ``[I, O]``: the gradient of a weight.

    Args:
        left: ``[T, B, I]``.
        right: ``[T, B, O]``.
    """
    return cpu.operators().outer_sum(left.flatten(0, 1), right.flatten(0, 1))


class StepProduct:
    """``start + values weight`` for many steps.

    Args:
        weight: ``[I, O]``, any strides; it must not change.
        steps: so many products are going to be made.
    """

    def __init__(self, weight: Tensor, steps: int):
        self.weight = weight
        self._packed = cpu.operators().pack_matrix(weight) if steps >= FEW_STEPS else None

    def __call__(self, values: Tensor, start: Tensor | None = None) -> Tensor:
        """The product of one step, ``[B, O]``.

        Args:
            values: ``[B, I]``.
            start: what it is added to, ``[B, O]`` or ``[O]``.
        """
        if self._packed is not None:
            return cpu.operators().packed_product(values, self.weight, self._packed, start)
        return values @ self.weight if start is None else start.addmm(values, self.weight)

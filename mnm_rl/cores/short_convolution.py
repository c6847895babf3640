"""A causal convolution over the last few steps, channel by channel, that knows where episodes start.

Dimensions: ``B`` batch, ``T`` time, ``C`` channels, ``W`` steps that it spans.
"""

from __future__ import annotations

import torch
from torch import Tensor


def short_convolution(
    inputs: Tensor, recent: Tensor, weights: Tensor, resets: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``y_t = sum_j weights_j x_{t-j}`` over those j < W whose step is of the same episode.

    Args:
        inputs: x, ``[B, T, C]``.
        recent: the W - 1 inputs before the first step, the oldest first, ``[B, W - 1, C]``; zeros for those
            that there were not.
        weights: ``[C, W]``, of the oldest input first.
        resets: boolean ``[B, T]``, true where an episode starts.

    Returns:
        y, ``[B, T, C]``, and the inputs to be ``recent`` in the next call.
    """
    steps, before = inputs.shape[1], recent.shape[1]
    row = torch.cat([recent, inputs], 1)
    if resets is None:
        outputs = sum(row[:, j : j + steps] * weights[:, j] for j in range(before + 1))
        return outputs, row[:, steps:]  # pyright: ignore[reportReturnType]
    starts = torch.cat([resets.new_zeros(len(resets), before), resets], 1).cumsum(1)
    outputs = torch.zeros_like(inputs)
    for j in range(before + 1):
        is_other = starts[:, j : j + steps] != starts[:, before:]
        # Not a product with zero, which what is not finite would outlast.
        outputs = outputs + row[:, j : j + steps].masked_fill(is_other.unsqueeze(2), 0) * weights[:, j]
    is_earlier = starts[:, steps:] != starts[:, -1:]
    return outputs, row[:, steps:].masked_fill(is_earlier.unsqueeze(2), 0)

"""What a supervised task offers to the trainer.

Dimensions: ``T`` time, ``B`` batch, ``C`` classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Batch(NamedTuple):
    """Sequences of symbols with the symbols to be predicted.

    Attributes:
        inputs: int64 symbols ``[T, B]``.
        targets: int64 symbols ``[T, B]``; any value where ``mask`` is false.
        mask: boolean ``[T, B]``, true where a prediction is asked for.
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor


def symbol_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy over the steps that ask for a prediction; ``logits`` is ``[T, B, C]``."""
    return F.cross_entropy(logits[batch.mask], batch.targets[batch.mask])


def symbol_errors(logits: Tensor, batch: Batch) -> tuple[float, float]:
    """Fraction of wrong symbols, and fraction of sequences with at least one wrong symbol."""
    wrong = (logits.argmax(-1) != batch.targets) & batch.mask
    per_symbol = wrong.sum() / batch.mask.sum()
    per_sequence = wrong.any(0).float().mean()
    return float(per_symbol), float(per_sequence)


def random_subset(mask: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` columns with replacement, uniformly from those where ``mask`` ``[B, N]`` is true."""
    return torch.multinomial(mask.float(), count, replacement=True, generator=generator)

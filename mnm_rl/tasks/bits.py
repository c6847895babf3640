"""What the tasks of Graves, Wayne and Danihelka 2014 share: sequences of random length, and bits as answers.

Dimensions: ``T`` time, ``B`` batch, ``F`` features.
"""

from __future__ import annotations

from torch import Tensor

from mnm_rl.tasks.base import Batch, ErrorCounts, bit_loss, count_bit_errors
from mnm_rl.tasks.generated import GeneratedTask


class BitTask(GeneratedTask):
    """Bits are predicted, and what the right ones cost decides."""

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Binary cross-entropy of the bits."""
        return bit_loss(logits, batch)

    def count_errors(self, logits: Tensor, batch: Batch) -> ErrorCounts:
        """Wrong bits, sequences with any wrong bit, and the cost in bits."""
        return count_bit_errors(logits, batch)

    def score(self, counts: ErrorCounts) -> float:
        """The cost of a bit: 1 for guessing. It still falls where hardly a bit is wrong any more."""
        return counts.cost / max(1, counts.symbols)


def at(vectors: Tensor, places: Tensor, where: Tensor) -> Tensor:
    """Vectors by their places in a sequence, zeros elsewhere.

    Args:
        vectors: ``[n, B, F]``.
        places: ``[T, B]`` or ``[T, 1]``; anything where ``where`` is false.
        where: boolean ``[T, B]``.

    Returns:
        ``[T, B, F]``.
    """
    places = places.clamp(0, len(vectors) - 1).expand_as(where)
    found = vectors.gather(0, places.unsqueeze(2).expand(-1, -1, vectors.shape[2]))
    return found * where.unsqueeze(2)


def check_range(name: str, smallest: int, largest: int, least: int = 1) -> None:
    """Make sure that a size may be drawn from a range.

    Args:
        name: of the size; the ends of the range are called min_NAME and max_NAME.
        smallest: of the range.
        largest: of the range.
        least: that the size may be.

    Raises:
        ValueError: it may not.
    """
    if smallest < least:
        raise ValueError(f"min_{name} must be at least {least}, got {smallest}.")
    if largest < smallest:
        raise ValueError(f"max_{name} must be at least min_{name}, {smallest}, got {largest}.")

"""Cosine similarities between the memory's operations (Munkhdalai et al. 2019, section 4.2, Figure 5).

A read value like a value that was written earlier says that what was written then is being retrieved now.

Dimensions: ``T`` time (``T_1``, ``T_2`` some of the steps), ``B`` batch, ``H`` heads, ``d`` size of
a key or a value.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor
from torch.nn import functional as F

Heads = Literal["together", "separately"]


def similarities(rows: Tensor, columns: Tensor, heads: Heads = "together") -> Tensor:
    """The cosine similarity of every row step with every column step.

    Args:
        rows: ``[T_1, B, H, d]``, such as a trace's ``read_values`` at some steps.
        columns: ``[T_2, B, H, d]``, such as its ``write_values``.
        heads: ``together``: of all heads' vectors in a row; ``separately``: head by head.

    Returns:
        ``[B, T_1, T_2]``, or ``[B, H, T_1, T_2]`` for the heads separately.

    Raises:
        ValueError: if the shapes do not fit.
    """
    if heads not in get_args(Heads):
        raise ValueError(f"heads must be one of {', '.join(get_args(Heads))}, got {heads!r}.")
    if rows.dim() != 4 or rows.shape[1:] != columns.shape[1:]:
        raise ValueError(
            f"Rows and columns must be [T_1, B, H, d] and [T_2, B, H, d], got {list(rows.shape)} and "
            f"{list(columns.shape)}."
        )
    if heads == "together":
        rows, columns = rows.flatten(2).unsqueeze(2), columns.flatten(2).unsqueeze(2)
    units = [F.normalize(vectors, dim=-1).permute(1, 2, 0, 3) for vectors in (rows, columns)]
    cosines = units[0] @ units[1].mT
    return cosines.squeeze(1) if heads == "together" else cosines

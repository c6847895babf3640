"""Triangular systems of linear equations in any precision that cores run in."""

from __future__ import annotations

import torch
from torch import Tensor

HALVES = (torch.bfloat16, torch.float16)


def solve_unit_triangular(system: Tensor, right: Tensor, *, upper: bool = False) -> Tensor:
    """X with ``A X = B``, where A has ones on its diagonal, which are not read.

    torch solves none in half precision; these are solved in single precision.

    Args:
        system: A, ``[..., N, N]``.
        right: B, ``[..., N, K]``.
        upper: whether A is upper triangular, not lower.
    """
    dtype = right.dtype
    if dtype in HALVES:
        system, right = system.float(), right.float()
    return torch.linalg.solve_triangular(system, right, upper=upper, unitriangular=True).to(dtype)

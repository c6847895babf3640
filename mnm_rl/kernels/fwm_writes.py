"""The writes of a chunk of steps to a tensor memory, one after the other, forward and backward.

See :mod:`mnm_rl.kernels.fwm`, whose F, D and chunks these are. Of the memory before the chunk only
what it holds at the chunk's keys is needed, and of the keys only their products:

    v_t = D' F_0(k_t) + sum_{tau < t} D'_tau (k_tau . k_t) u_tau,    D' the row of D of the step before
    u_t = beta_t (t_t - v_t) / d_t
    |F|^2 <- |F|^2 + 2 v . u + |k|^2 |u|^2, and no more than 1

Dimensions: ``B`` batch, ``C`` steps of the chunk; ``d_t`` size of a target.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Problem(NamedTuple):
    """What the writes depend on."""

    looked_up: Tensor
    """What the memory before the chunk holds at the keys, ``[B, C, d_t]``."""
    gram: Tensor
    """``k_t . k_tau``, ``[B, C, C]``."""
    targets: Tensor
    """``[B, C, d_t]``."""
    rates: Tensor
    """beta, ``[B, C]``."""
    keep: Tensor | None
    """``[B, C]``, 0 where an episode starts, else 1."""


class Written(NamedTuple):
    """What the writes did."""

    updates: Tensor
    """u, ``[B, C, d_t]``."""
    found: Tensor
    """v, ``[B, C, d_t]``."""
    decays: Tensor
    """D, ``[B, C, 1 + C]``: after step t, of the memory before the chunk, and of the write of step tau."""
    sizes: Tensor
    """``|F|^2`` after each write and before it is made to be at most 1, ``[B, C]``."""
    squared_norm: Tensor
    """``|F|^2`` after the chunk, ``[B]``."""


class Gradients(NamedTuple):
    """Of :class:`Problem`, and of the squared norm before the chunk."""

    looked_up: Tensor
    gram: Tensor
    targets: Tensor
    rates: Tensor
    squared_norm: Tensor


def forward(problem: Problem, squared_norm: Tensor) -> Written:
    """All writes of a chunk.

    Args:
        problem: what they depend on.
        squared_norm: ``|F|^2`` before them, ``[B]``.
    """
    looked_up, gram, targets, rates, keep = problem
    updates, found, sizes = torch.empty_like(targets), torch.empty_like(targets), torch.empty_like(rates)
    decays = targets.new_zeros(*rates.shape, 1 + rates.shape[1])
    row = _first_row(decays)
    steps = rates / targets.shape[2]
    for t in range(rates.shape[1]):
        if keep is not None:
            row, squared_norm = row * keep[:, t : t + 1], squared_norm * keep[:, t]
        weights = row[:, 1 : t + 1] * gram[:, t, :t]
        v = row[:, :1] * looked_up[:, t] + (weights.unsqueeze(1) @ updates[:, :t]).squeeze(1)
        u = steps[:, t : t + 1] * (targets[:, t] - v)
        size = squared_norm + (u * (2 * v + gram[:, t, t, None] * u)).sum(1)
        excess = size.clamp(min=1)
        squared_norm = size / excess
        row = row * excess.rsqrt().unsqueeze(1)
        row[:, t + 1] = excess.rsqrt()
        updates[:, t], found[:, t], decays[:, t], sizes[:, t] = u, v, row, size
    return Written(updates, found, decays, sizes, squared_norm)


def backward(
    problem: Problem, written: Written, d_updates: Tensor, d_log_decays: Tensor, d_squared_norm: Tensor
) -> Gradients:
    """The gradients of a chunk.

    Args:
        problem: what :func:`forward` was given.
        written: what it returned.
        d_updates: gradient of u, from all but the writes, ``[B, C, d_t]``; is overwritten.
        d_log_decays: the gradient of D, times D, from all but the writes, ``[B, C, 1 + C]``.
        d_squared_norm: gradient of ``|F|^2`` after the chunk, ``[B]``.
    """
    looked_up, gram, targets, rates, keep = problem
    updates, found, decays, sizes, _ = written
    d = Gradients(
        torch.empty_like(targets),
        torch.zeros_like(gram),
        torch.empty_like(targets),
        torch.empty_like(rates),
        d_squared_norm,
    )
    steps = rates / targets.shape[2]
    rows = torch.cat([_first_row(decays).unsqueeze(1), decays[:, :-1]], 1)  # of the step before
    if keep is not None:
        rows = rows * keep.unsqueeze(2)
    mixing = rows[:, :, 1:] * gram
    d_scales = torch.zeros_like(rows[:, 0])  # of the logarithms of all D so far that have this step's factor
    for t in reversed(range(rates.shape[1])):
        d_scales = d_scales + d_log_decays[:, t]
        u, v, d_u = updates[:, t], found[:, t], d_updates[:, t]
        d_scale, size = d_scales[:, : t + 2].sum(1), sizes[:, t]
        d_size = torch.where(size > 1, -0.5 * d_scale / size, d.squared_norm).unsqueeze(1)
        d_u = d_u + 2 * d_size * (v + gram[:, t, t, None] * u)
        d_v = 2 * d_size * u - steps[:, t : t + 1] * d_u
        products = (updates[:, :t] @ d_v.unsqueeze(2)).squeeze(2)
        d.looked_up[:, t] = rows[:, t, :1] * d_v
        d.gram[:, t, :t] = rows[:, t, 1 : t + 1] * products
        d.gram[:, t, t] = d_size.squeeze(1) * u.square().sum(1)
        d.targets[:, t] = steps[:, t : t + 1] * d_u
        d.rates[:, t] = ((targets[:, t] - v) * d_u).sum(1) / targets.shape[2]
        d_updates[:, :t] += mixing[:, t, :t].unsqueeze(2) * d_v.unsqueeze(1)
        d_scales = d_scales.clone()
        d_scales[:, 0] += (d.looked_up[:, t] * looked_up[:, t]).sum(1)
        d_scales[:, 1 : t + 1] += mixing[:, t, :t] * products
        d_squared_norm = d_size.squeeze(1) if keep is None else d_size.squeeze(1) * keep[:, t]
        d = d._replace(squared_norm=d_squared_norm)
    return d


def _first_row(decays: Tensor) -> Tensor:
    """D before the first step, ``[B, 1 + C]``."""
    row = torch.zeros_like(decays[:, 0])
    row[:, 0] = 1
    return row

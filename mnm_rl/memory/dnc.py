"""The memory of a differentiable neural computer: how slots are found, taken, freed and linked.

Graves et al. 2016, "Hybrid computing using a neural network with dynamic external memory", Methods; masked
look-up, de-allocation and sharpened links are those of Csordas and Schmidhuber 2019, "Improving
differentiable neural computers through memory masking, de-allocation, and link distribution sharpness
control". All in plain torch; :mod:`mnm_rl.kernels.dnc` has the same in C++ with a backward pass by hand.

Dimensions: ``B`` batch, ``N`` slots, ``W`` size of a slot, ``R`` read heads, ``U`` size of the interface
vector.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

EPSILON = 1e-6
"""Keeps norms, usages and sharpened distributions away from zero."""
INTERFACE_LIMIT = 20.0
"""The interface vector is clamped to this on both sides, before its nonlinearities."""


class Switches(NamedTuple):
    """Sizes of the memory, and which of its parts are there."""

    slots: int
    """N."""
    slot_size: int
    """W."""
    read_heads: int
    """R."""
    masked: bool = True
    """Look-up by a learned part of the slot."""
    mask_minimum: float = 0.0
    """Masks lie between this and 1."""
    deallocating: bool = True
    """A freed slot loses its contents, too."""
    links: bool = True
    """Slots remember in which order they were written."""
    sharpened: bool = False
    """What links lead to is sharpened."""
    usage_gradient: bool = False
    """Whether gradients flow from the usage into the write weights of the step before."""
    link_gradient: bool = True
    """Whether gradients flow through the links into the write weights."""

    def part_sizes(self) -> list[int]:
        """Sizes of the parts of the interface vector, in the order of :class:`Interface`."""
        heads, size = self.read_heads, self.slot_size
        return [
            (heads + 1) * size,
            size,
            heads + 1,
            2 * heads if self.links and self.sharpened else 0,
            (heads + 1) * size if self.masked else 0,
            size,
            heads,
            1,
            1,
            3 * heads if self.links else 0,
        ]


class Interface(NamedTuple):
    """What the controller says to the memory in a step; of the heads, those that read are first."""

    keys: Tensor
    """k, ``[B, R + 1, W]``."""
    write_vector: Tensor
    """v, ``[B, W]``."""
    strengths: Tensor
    """beta, at least 1, ``[B, R + 1]``."""
    sharpness: Tensor | None
    """Powers, at least 1, for the backward and the forward links of each read head, ``[B, 2, R]``."""
    masks: Tensor | None
    """m, ``[B, R + 1, W]``."""
    erase: Tensor
    """e, ``[B, W]``."""
    free_gates: Tensor
    """f, ``[B, R]``."""
    allocation_gate: Tensor
    """g_a, ``[B, 1]``."""
    write_gate: Tensor
    """g_w, ``[B, 1]``."""
    modes: Tensor | None
    """pi, ``[B, 3, R]``: follow links backward, look up contents, follow links forward."""


def split_interface(vector: Tensor, switches: Switches) -> Interface:
    """The parts of the interface vector, through their nonlinearities (Methods, "Interface parameters").

    Args:
        vector: xi, ``[..., U]``.
        switches: of the memory.
    """
    parts = vector.clamp(-INTERFACE_LIMIT, INTERFACE_LIMIT).split(switches.part_sizes(), dim=-1)
    heads, size = switches.read_heads, switches.slot_size
    by_head = (heads + 1, size)
    keys, write_vector, strengths, sharpness, masks, erase, free, allocation, write, modes = parts
    least = switches.mask_minimum
    return Interface(
        keys.unflatten(-1, by_head),
        write_vector,
        oneplus(strengths),
        oneplus(sharpness).unflatten(-1, (2, heads)) if sharpness.shape[-1] else None,
        least + (1 - least) * masks.sigmoid().unflatten(-1, by_head) if switches.masked else None,
        erase.sigmoid(),
        free.sigmoid(),
        allocation.sigmoid(),
        write.sigmoid(),
        modes.unflatten(-1, (3, heads)).softmax(-2) if switches.links else None,
    )


def oneplus(x: Tensor) -> Tensor:
    """``1 + log(1 + e^x)``, at least 1."""
    return 1 + softplus(x)


def similarity(keys: Tensor, masks: Tensor | None, memory: Tensor) -> Tensor:
    """Cosines of keys and slots, ``D(k ⊙ m, M_i ⊙ m)``, without a tensor of masked slots.

    ``(M_i ⊙ m) . (k ⊙ m) = M_i . (k ⊙ m²)`` and ``|M_i ⊙ m|² = (M_i ⊙ M_i) . m²``.

    Args:
        keys: ``[B, R, W]``.
        masks: ``[B, R, W]``; none for whole slots.
        memory: ``[B, N, W]``.

    Returns:
        ``[B, R, N]``.
    """
    squares, weighted, key_squares = memory.square(), keys, keys.square()
    if masks is None:
        norms = squares.sum(2).unsqueeze(1)
    else:
        mask_squares = masks.square()
        weighted, key_squares = keys * mask_squares, key_squares * mask_squares
        norms = mask_squares @ squares.mT
    slot_norms = (norms + EPSILON).sqrt()
    key_norms = (key_squares.sum(2, keepdim=True) + EPSILON).sqrt()
    return weighted @ memory.mT / (slot_norms * key_norms + EPSILON)


def content_weights(keys: Tensor, masks: Tensor | None, strengths: Tensor, memory: Tensor) -> Tensor:
    """``C(M, k, beta)``, a softmax over slots, ``[B, R, N]``; arguments as of :func:`similarity`.

    Args:
        keys: ``[B, R, W]``.
        masks: ``[B, R, W]``; none for whole slots.
        strengths: beta, ``[B, R]``.
        memory: ``[B, N, W]``.
    """
    return (strengths.unsqueeze(2) * similarity(keys, masks, memory)).softmax(2)


def retention(free_gates: Tensor, read_weights: Tensor) -> Tensor:
    """``psi = prod_r (1 - f_r w^r_r)``: how much of each slot the read heads do not free, ``[B, N]``.

    Args:
        free_gates: ``[B, R]``.
        read_weights: of the step before, ``[B, R, N]``.
    """
    return (1 - free_gates.unsqueeze(2) * read_weights).prod(1)


def next_usage(usage: Tensor, write_weights: Tensor, retained: Tensor) -> Tensor:
    """``u_t = (u + w - u ⊙ w) ⊙ psi``, with u and w of the step before; all ``[B, N]``."""
    return (usage + write_weights * (1 - usage)) * retained


def allocation(usage: Tensor) -> Tensor:
    """``a``: weights of the slots by how free they are, the freest first, ``[B, N]``.

    With phi the slots from the least used, ``a(phi_j) = (1 - u(phi_j)) prod_{i < j} u(phi_i)``. The order has
    no gradient. Usages are moved away from zero a little, where products have no good gradient.

    Args:
        usage: ``[B, N]``.
    """
    usage, order = (EPSILON + (1 - EPSILON) * usage).sort(stable=True, dim=1)
    before = torch.cat([torch.ones_like(usage[:, :1]), usage[:, :-1].cumprod(1)], 1)
    return torch.zeros_like(usage).scatter(1, order, (1 - usage) * before)


def write_weights(write_gate: Tensor, allocation_gate: Tensor, free: Tensor, found: Tensor) -> Tensor:
    """``w^w = g_w (g_a a + (1 - g_a) c)``, ``[B, N]``.

    Args:
        write_gate: g_w, ``[B, 1]``.
        allocation_gate: g_a, ``[B, 1]``.
        free: a, ``[B, N]``.
        found: c, ``[B, N]``.
    """
    return write_gate * (allocation_gate * free + (1 - allocation_gate) * found)


def write(
    memory: Tensor, weights: Tensor, erase: Tensor, vector: Tensor, retained: Tensor | None = None
) -> Tensor:
    """``M_t = M ⊙ (E - w e^T) + w v^T``; with de-allocation, what is not retained of M is gone before.

    Args:
        memory: ``[B, N, W]``.
        weights: w, ``[B, N]``.
        erase: e, ``[B, W]``.
        vector: v, ``[B, W]``.
        retained: psi, ``[B, N]``; for memories that de-allocate.
    """
    weights = weights.unsqueeze(2)
    if retained is not None:
        memory = memory * retained.unsqueeze(2)
    return memory * (1 - weights * erase.unsqueeze(1)) + weights * vector.unsqueeze(1)


def next_link(link: Tensor, precedence: Tensor, weights: Tensor) -> Tensor:
    """``L_t[i, j] = (1 - w[i] - w[j]) L[i, j] + w[i] p[j]``, zero for i = j: how far i was written after j.

    Args:
        link: ``[B, N, N]``.
        precedence: p of the step before, ``[B, N]``.
        weights: w, of this step's write, ``[B, N]``.
    """
    written = weights.unsqueeze(2)
    link = (1 - written - weights.unsqueeze(1)) * link + written * precedence.unsqueeze(1)
    return link * (1 - torch.eye(weights.shape[1], dtype=link.dtype, device=link.device))


def next_precedence(precedence: Tensor, weights: Tensor) -> Tensor:
    """``p_t = (1 - sum_i w[i]) p + w``: how far each slot was the last to be written; all ``[B, N]``."""
    return (1 - weights.sum(1, keepdim=True)) * precedence + weights


def sharpen(weights: Tensor, power: Tensor) -> Tensor:
    """``S(d, s)[i] = d[i]^s / sum_j d[j]^s`` (Csordas and Schmidhuber 2019, section 3.3); always sums to 1.

    Args:
        weights: d, ``[B, R, N]``.
        power: s, ``[B, R]``.
    """
    weights = weights + EPSILON
    weights = weights / weights.amax(2, keepdim=True).detach()
    weights = weights ** power.unsqueeze(2)
    return weights / weights.sum(2, keepdim=True)


def keep_largest(weights: Tensor, count: int | None, *, rescale: bool = True) -> Tensor:
    """The largest ``count`` of the last dimension, with the rest set to zero.

    Args:
        weights: ``[..., N]``, not negative.
        count: none for all of them.
        rescale: whether those that stay take over the sum of all.
    """
    if count is None or count >= weights.shape[-1]:
        return weights
    # Of equals the first, so that it does not depend on what else is in the batch.
    places = weights.detach().sort(dim=-1, descending=True, stable=True).indices[..., :count]
    largest = weights.gather(-1, places)
    if rescale:
        largest = largest * (weights.sum(-1, keepdim=True) / (largest.sum(-1, keepdim=True) + EPSILON**2))
    return torch.zeros_like(weights).scatter(-1, places, largest)

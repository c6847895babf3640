"""The memory of the TPR-RNN, a tensor of order 3, as it is written, and without the tensor.

Schlag and Schmidhuber 2018, "Learning to reason with third-order tensor products", section 3. A sentence has
the entities e1, e2 and the roles r1, r2, r3, and makes three changes, each of which erases what is there:
it writes e2 under (e1, r1), moves what was there to (e1, r2), and links e2 back to e1 under (e2, r3).

The tensor is a sum over the changes, ``F = sum_k e_k x r_k x u_k``, and looking up needs inner products of
keys only: ``F(e, r) = sum_k (e . e_k) (r . r_k) u_k``. So the values u of a whole story solve one triangular
system of linear equations, and the tensor is never made.

Dimensions: ``B`` batch, ``S`` sentences, ``Q`` questions, ``K`` = 3S changes (those of a sentence side by
side), ``E`` entity size, ``R`` role size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mnm_rl.kernels.triangular import solve_unit_triangular

CHANGES = 3
"""Of a sentence: write, move, backlink."""


class Changes(NamedTuple):
    """What has been written to a memory.

    Attributes:
        entities: ``[B, K, E]``.
        roles: ``[B, K, R]``.
        values: ``[B, K, E]``.
    """

    entities: Tensor
    roles: Tensor
    values: Tensor


def look_up(memory: Tensor, entities: Tensor, roles: Tensor) -> Tensor:
    """``F(e, r)_f = sum_ij e_i r_j F_ijf``, Eq. 9.

    Args:
        memory: ``[B, E, R, E]``.
        entities: ``[B, Q, E]``.
        roles: ``[B, Q, R]``.

    Returns:
        ``[B, Q, E]``.
    """
    keys = entities.unsqueeze(3) * roles.unsqueeze(2)
    return keys.flatten(2) @ memory.flatten(1, 2)


def write(memory: Tensor, entities: Tensor, roles: Tensor) -> Tensor:
    """The tensor after a sentence, Eq. 4, 6 and 9 to 14: the plain form.

    Args:
        memory: ``[B, E, R, E]``.
        entities: ``[B, 2, E]``.
        roles: ``[B, 3, R]``.
    """
    e1, e2 = entities.unbind(1)
    r1, r2, r3 = roles.unbind(1)
    w, m, b = look_up(memory, torch.stack([e1, e1, e2], 1), roles).unbind(1)
    of_first = _outer(r1, e2 - w) + _outer(r2, w - m)
    of_second = _outer(r3, e1 - b)
    first = _outer(e1, of_first.flatten(1)).view_as(memory)
    second = _outer(e2, of_second.flatten(1)).view_as(memory)
    return memory + first + second


def _outer(left: Tensor, right: Tensor) -> Tensor:
    return left.unsqueeze(2) * right.unsqueeze(1)


def solve(
    entities: Tensor, roles: Tensor, episodes: Tensor | None = None, memory: Tensor | None = None
) -> Changes:
    """All changes that sentences make to a memory, by one triangular solve.

    With ``G = (E E^T) * (R R^T)`` between keys, zero where the column's sentence is not before the row's, the
    values are ``u_write = e2 - G_write U``, ``u_move = (G_write - G_move) U`` and ``u_back = e1 - G_back U``.

    Args:
        entities: ``[B, S, 2, E]``; zeros for what is not to be written.
        roles: ``[B, S, 3, R]``.
        episodes: int64 ``[B, S]``, ascending: sentences of different episodes do not see each other.
        memory: ``[B, E, R, E]``, that of before; sentences of episode 0 see it.
    """
    length = entities.shape[1]
    e1, e2 = entities.unbind(2)
    keys = torch.stack([e1, e1, e2], 2).flatten(1, 2)
    roles = roles.flatten(1, 2)
    earlier = torch.arange(length, device=keys.device).unsqueeze(0) - 1
    before = visible_changes(earlier, length, episodes, episodes).repeat_interleave(CHANGES, 1)
    wanted = torch.stack([e2, torch.zeros_like(e1), e1], 2)
    if memory is not None:
        found = look_up(memory, keys, roles)
        if episodes is not None:
            found = found * (episodes == 0).repeat_interleave(CHANGES, 1).unsqueeze(2)
        w, m, b = found.unflatten(1, (length, CHANGES)).unbind(2)
        wanted = wanted - torch.stack([w, m - w, b], 2)
    values: Any = _Values.apply(keys, roles, wanted.flatten(1, 2), before.to(keys.dtype))
    return Changes(keys, roles, values)


class _Values(torch.autograd.Function):
    """Solves ``(I + A) U = Y``, with a backward pass that takes each product of keys once.

    A has the rows ``G_write``, ``G_move - G_write`` and ``G_back`` of every sentence.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, keys: Tensor, roles: Tensor, wanted: Tensor, before: Tensor
    ) -> Tensor:
        of_keys, of_roles = (each @ each.transpose(1, 2) for each in (keys, roles))
        system = (of_keys * of_roles).mul_(before)
        write_row, move_row, _ = system.unflatten(1, (-1, CHANGES)).unbind(2)
        move_row.sub_(write_row)
        values = solve_unit_triangular(system, wanted)
        ctx.save_for_backward(keys, roles, before, of_keys, of_roles, system, values)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_values: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        keys, roles, before, of_keys, of_roles, system, values = ctx.saved_tensors
        transposed = system.transpose(1, 2)
        d_wanted = solve_unit_triangular(transposed, d_values, upper=True)
        d_gram = (d_wanted @ values.transpose(1, 2)).neg_()
        write_row, move_row, _ = d_gram.unflatten(1, (-1, CHANGES)).unbind(2)
        write_row.sub_(move_row)
        d_gram.mul_(before)
        d_keys, d_roles = (
            (product + product.transpose(1, 2)) @ vectors
            for product, vectors in ((d_gram * of_roles, keys), (d_gram * of_keys, roles))
        )
        return d_keys, d_roles, d_wanted, None


def look_up_changes(changes: Changes, entities: Tensor, roles: Tensor, visible: Tensor) -> Tensor:
    """``F(e, r)`` from the changes that made F.

    Args:
        changes: of S sentences.
        entities: ``[B, Q, E]``.
        roles: ``[B, Q, R]``.
        visible: ``[B or 1, Q, K]``, 1 for the changes that a question sees and 0 for others.

    Returns:
        ``[B, Q, E]``.
    """
    return _overlaps(entities, roles, changes.entities, changes.roles, visible) @ changes.values


def _overlaps(
    entities: Tensor, roles: Tensor, key_entities: Tensor, key_roles: Tensor, seen: Tensor
) -> Tensor:
    """Inner products of keys, ``[B, Q, K]``, where they are seen, and zeros."""
    products = (entities @ key_entities.transpose(1, 2)) * (roles @ key_roles.transpose(1, 2))
    return products * seen


def visible_changes(
    places: Tensor, length: int, own_episodes: Tensor | None = None, episodes: Tensor | None = None
) -> Tensor:
    """Boolean ``[B or 1, Q, K]``: the changes of sentences up to and with a place, in the same episode.

    Args:
        places: int64 ``[B or 1, Q]``, from 0.
        length: ``S``.
        own_episodes: int64 ``[B, Q]``, the questions' episodes.
        episodes: int64 ``[B, S]``.
    """
    sentences = torch.arange(length, device=places.device)
    visible = sentences <= places.unsqueeze(2)
    if own_episodes is not None and episodes is not None:
        visible = visible & (own_episodes.unsqueeze(2) == episodes.unsqueeze(1))
    return visible.repeat_interleave(CHANGES, 2)


def to_tensor(changes: Changes) -> Tensor:
    """``F = sum_k e_k x r_k x u_k``, ``[B, E, R, E]``."""
    keys = changes.entities.unsqueeze(3) * changes.roles.unsqueeze(2)
    product = keys.flatten(2).transpose(1, 2) @ changes.values
    return product.unflatten(1, keys.shape[2:])

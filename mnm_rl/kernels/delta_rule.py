"""A matrix that is written by a delta rule and forgets by a gate: DeltaNet, Gated DeltaNet, KDA and GDN-2.

    S <- diag(e^g) S,   u = v - S^T b,   S <- S + k u^T,   o = S^T q            in each head, at each step

With b = beta k, and v beta times the value, this is the delta rule of Schlag, Irie and Schmidhuber (2021) and
DeltaNet (Yang et al. 2024); with one g for a whole head, Gated DeltaNet (Yang, Kautz and Hatamizadeh 2025);
with one for each row of S, Kimi Delta Attention (2025); with b and v that have rates of their own for each
channel, Gated DeltaNet-2 (2026).

What is written depends on earlier writes, but linearly. So :func:`scan` solves for the writes of a *chunk* of
C steps at once. With ``G_t`` the sum of g since the chunk or an episode in it began, and S_0 what was before,

    u_t + sum_{tau < t} (sum_i b_ti e^(G_ti - G_taui) k_taui) u_tau = v_t - (S_0^T diag(e^G_t) b_t)

is a triangular system, for all chunks of a sequence at once; only S_0 goes from chunk to chunk. No power is
positive, so that nothing grows however fast it is forgotten. At the start of an episode the old matrix is
multiplied by zero: pairs of steps with a start between them, and S_0 after a start, drop out. :func:`plain`
is the same step by step.

Dimensions: ``B`` batch, ``H`` heads, ``T`` time, ``C`` steps of a chunk; sizes ``K`` key, ``V`` value.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mnm_rl.kernels.triangular import solve_unit_triangular

CHUNK = 32
"""C, a power of two."""


class Commands(NamedTuple):
    """What goes into the recurrence."""

    queries: Tensor
    """q, ``[B, H, T, K]``."""
    keys: Tensor
    """k, ``[B, H, T, K]``."""
    erased: Tensor
    """b, the direction that is looked up and subtracted, ``[B, H, T, K]``."""
    values: Tensor
    """v, ``[B, H, T, V]``."""
    log_decays: Tensor | None
    """g, not positive, ``[B, H, T, K]`` or ``[B, H, T, 1]``; None where nothing is forgotten."""


class DeltaResult(NamedTuple):
    """What a scan returns."""

    outputs: Tensor
    """o, ``[B, H, T, V]``."""
    memory: Tensor
    """S after the last step, ``[B, H, K, V]``."""


def plain_step(memory: Tensor, commands: Commands) -> DeltaResult:
    """One step, with all of the commands without the dimension ``T``."""
    q, k, b, v, g = commands
    if g is not None:
        memory = g.exp().unsqueeze(-1) * memory
    u = v - (b.unsqueeze(-2) @ memory).squeeze(-2)
    memory = memory + k.unsqueeze(-1) * u.unsqueeze(-2)
    return DeltaResult((q.unsqueeze(-2) @ memory).squeeze(-2), memory)


def plain(commands: Commands, memory: Tensor, resets: Tensor | None = None) -> DeltaResult:
    """What :func:`scan` does, step by step."""
    outputs = []
    for t in range(commands.keys.shape[2]):
        if resets is not None:
            memory = memory.masked_fill(resets[:, t].view(-1, 1, 1, 1), 0)
        output, memory = plain_step(memory, at_step(commands, t))
        outputs.append(output)
    return DeltaResult(torch.stack(outputs, 2), memory)


def at_step(commands: Commands, t: int) -> Commands:
    """The commands of one step, without the dimension ``T``."""
    return Commands(*(None if tensor is None else tensor[:, :, t] for tensor in commands))  # pyright: ignore


def scan(
    commands: Commands, memory: Tensor, resets: Tensor | None = None, chunk: int | None = None
) -> DeltaResult:
    """Run a sequence, chunk by chunk; differentiable.

    Args:
        commands: of all steps.
        memory: S before the first step, ``[B, H, K, V]``.
        resets: boolean ``[B, T]``; where true, S is zero before the step, and no gradient flows across.
        chunk: C, a power of two; as large as is of use, up to :data:`CHUNK`, if not given.
    """
    steps, key_size = commands.keys.shape[2:]
    chunk = chunk or min(CHUNK, 1 << (steps - 1).bit_length())
    q, k, b, v = (_cut(tensor, chunk) for tensor in commands[:4])
    g = None if commands.log_decays is None else _cut(commands.log_decays, chunk)
    since = None if resets is None else _episodes(resets, chunk)
    decays = _Decays(g, since, chunk, k)
    by_erased, by_query = decays.products(b, q, k)
    right = torch.cat([v, decays.from_start(b)], -1)
    solved = solve_unit_triangular(by_erased.tril(-1), right)
    new, old = solved.split([v.shape[-1], key_size], -1)  # u = new - old S_0
    starts, updates = [], []
    kept, written = decays.whole().unbind(2), decays.to_end(k).mT.unbind(2)
    for i, (n, o) in enumerate(zip(new.unbind(2), old.unbind(2), strict=True)):
        starts.append(memory)
        updates.append(n - o @ memory)
        memory = kept[i] * memory + written[i] @ updates[-1]
    u, start = torch.stack(updates, 2), torch.stack(starts, 2)
    outputs = decays.from_start(q) @ start + by_query @ u
    return DeltaResult(outputs.flatten(2, 3)[:, :, :steps], memory)


class _Decays:
    """What a chunk's steps still hold of earlier steps of the chunk and of the matrix before it.

    Args:
        log_decays: g, ``[B, H, n, C, K or 1]`` for n chunks, or None.
        episodes: the number of starts of an episode in the chunk so far, ``[B, 1, n, C]``, or None.
        chunk: C.
        like: any tensor of the dtype and device.
    """

    def __init__(self, log_decays: Tensor | None, episodes: Tensor | None, chunk: int, like: Tensor):
        self._one = like.new_ones(1, 1, like.shape[2], 1, 1)
        self._alive = self._same = None
        if episodes is not None:
            self._alive = (episodes == 0).unsqueeze(-1).to(like.dtype)
            self._same = episodes.unsqueeze(-1) == episodes.unsqueeze(-2)
        later = like.new_ones(chunk, chunk, dtype=torch.bool).tril()
        self._pairs = later if self._same is None else later & self._same
        # A product with zeros and ones, so that no gradient, not even of roundoff, gets across a start.
        self._total = None if log_decays is None else self._pairs.to(like.dtype) @ log_decays

    def products(self, one: Tensor, other: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """``sum_i left_ti e^(G_ti - G_taui) right_taui`` for two lefts, ``[B, H, n, C, C]`` each.

        They are zero where tau is later than t, or of another episode.
        """
        left = torch.stack([one, other], -3)
        if self._total is not None and self._total.shape[-1] > 1:
            found = _decayed_products(left, right, self._total).masked_fill(~self._pairs.unsqueeze(-3), 0)
        else:
            found = (left.flatten(-3, -2) @ right.mT).unflatten(-2, left.shape[-3:-1])
            if self._total is None:
                found = found.masked_fill(~self._pairs.unsqueeze(-3), 0)
            else:
                gaps = (self._total - self._total.mT).masked_fill(~self._pairs, -torch.inf)
                found = found * gaps.exp().unsqueeze(-3)
        return found[..., 0, :, :], found[..., 1, :, :]

    def from_start(self, vectors: Tensor) -> Tensor:
        """``[B, H, n, C, K]``, times what is left of the matrix before the chunk."""
        vectors = vectors if self._total is None else vectors * self._total.exp()
        return vectors if self._alive is None else vectors * self._alive

    def to_end(self, vectors: Tensor) -> Tensor:
        """``[B, H, n, C, K]``, times what is left of each step after the chunk."""
        if self._total is not None:
            # Where the gap is positive, of an episode before the last, the factor below is zero.
            vectors = vectors * (self._total[..., -1:, :] - self._total).clamp(max=0).exp()
        return vectors if self._same is None else vectors * self._same[..., -1, :].unsqueeze(-1)

    def whole(self) -> Tensor:
        """What is left after the chunk of the matrix before it, to be multiplied by it; n in dimension 2."""
        left = self._one if self._total is None else self._total[..., -1:, :].exp().mT
        return left if self._alive is None else left * self._alive[..., -1:, :]


def _decayed_products(left: Tensor, right: Tensor, total: Tensor) -> Tensor:
    """``sum_i left_ti e^(G_ti - G_taui) right_taui`` where tau is not later than t, a G for each i.

    Steps are halved until they are single: each of a second half meets each of the first with the G between
    the halves taken from both, which leaves no power positive, and one product of matrices.

    Args:
        left: some rows of vectors, ``[..., m, C, K]``.
        right: ``[..., C, K]``.
        total: G, ``[..., C, K]``.
    """
    if right.shape[-2] == 1:
        return (left * right.unsqueeze(-3)).sum(-1, keepdim=True)
    (first, second), (right_first, right_second), (before, after) = (
        x.chunk(2, -2) for x in (left, right, total)
    )
    middle = before[..., -1:, :]
    rows = second * (after - middle).clamp(max=0).exp().unsqueeze(-3)
    columns = right_first * (middle - before).clamp(max=0).exp()
    low = (rows.flatten(-3, -2) @ columns.mT).unflatten(-2, rows.shape[-3:-1])
    # Both halves at once, as one more dimension.
    halves = _decayed_products(
        torch.stack([first, second], 0),
        torch.stack([right_first, right_second], 0),
        torch.stack([before, after], 0),
    )
    top = torch.cat([halves[0], torch.zeros_like(low)], -1)
    return torch.cat([top, torch.cat([low, halves[1]], -1)], -2)


def _cut(tensor: Tensor, chunk: int) -> Tensor:
    """``[B, H, T, ...]`` as ``[B, H, n, C, ...]``, with zeros at the end, which change nothing."""
    padded = functional.pad(tensor, (0, 0, 0, -tensor.shape[2] % chunk))
    return padded.unflatten(2, (-1, chunk))


def _episodes(resets: Tensor, chunk: int) -> Tensor:
    """Of ``[B, T]``: how many episodes have started in the chunk so far, ``[B, 1, n, C]``."""
    padded = functional.pad(resets, (0, -resets.shape[1] % chunk))
    return padded.unflatten(1, (-1, chunk)).cumsum(2).unsqueeze(1)

"""Fast weight memory (Schlag, Munkhdalai and Schmidhuber 2021, section 3): a tensor written by a delta rule.

    v = F(s, r),  u = beta (t - v) / d_t,  F <- F + s x r x u,  F <- F / max(1, |F|)           the write
    n <- LN(F(n, e_i)),  i = 1 ... N                                                           the reads

where ``F(s, r)`` is the vector of ``sum_ij s_i r_j F_ij``. Nothing here depends on what was read, so a
sequence's writes need no step by step work on F, except for the norm, which is one number. :func:`scan` goes
through *chunks* of C steps. Within one, F is what it was before the chunk, times a number, plus the writes
since:

    F_t = D_t0 F_0 + sum_{tau <= t} D_{t tau} s_tau x r_tau x u_tau

with D the product of all 1 / max(1, |F|) since that write, 0 across the start of an episode. Products with
F_0 are those of matrices, over all steps of a chunk at once. Two keys meet as two pairs of vectors do,
``(s . s') (r . r')``, so what goes step by step, in :mod:`mnm_rl.kernels.fwm_writes`, has C and d_t
numbers a step in place of d_s d_r d_t. The norm comes from ``|F + k x u|^2 = |F|^2 + 2 v . u + |k|^2 |u|^2``.

The backward pass, written out below, goes through the chunks from the last. It keeps vectors, and F before
each chunk. :func:`plain` is the same in plain torch, step by step: what :func:`scan` is tested against.

Dimensions: ``B`` batch, ``T`` time, ``N`` reads, ``C`` steps of a chunk, ``K`` = ``d_s`` ``d_r``; sizes
``d_s`` subject, ``d_r`` relation, ``d_t`` target; with reads, ``d_s`` = ``d_t``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mnm_rl.kernels import fwm_writes as writes

CHUNK = 32
"""C."""
EPSILON = 1e-5
"""Added to the variance in LN, which has neither gain nor bias."""


class Commands(NamedTuple):
    """What a controller asks of the memory in a sequence."""

    subjects: Tensor
    """s, ``[B, T, d_s]``."""
    relations: Tensor
    """r, ``[B, T, d_r]``."""
    targets: Tensor
    """t, ``[B, T, d_t]``."""
    rates: Tensor
    """beta in [0, 1], ``[B, T]``."""
    queries: Tensor
    """n before the first read, ``[B, T, d_s]``."""
    read_relations: Tensor
    """e, ``[B, T, N, d_r]``."""

    def between(self, start: int, stop: int) -> Commands:
        """Those of some steps."""
        return Commands(*(tensor[:, start:stop] for tensor in self))


class Step(NamedTuple):
    """What :func:`plain_step` did."""

    memory: Tensor
    """F after the write, ``[B, d_s, d_r, d_t]``."""
    looked_up: Tensor
    """v, what was there before the write, ``[B, d_t]``."""
    read: Tensor
    """n after the last read, ``[B, d_t]``."""


def plain_step(memory: Tensor, commands: Sequence[Tensor]) -> Step:
    """A write and the reads after it.

    Args:
        memory: F before the step, ``[B, d_s, d_r, d_t]``.
        commands: of this step, :class:`Commands` without the dimension ``T``.
    """
    s, r, t, beta, n, e = commands
    v = _look_up(memory, s, r)
    u = beta.unsqueeze(1) * (t - v) / t.shape[1]
    memory = memory + s[:, :, None, None] * r[:, None, :, None] * u[:, None, None, :]
    size = memory.square().sum((1, 2, 3)).clamp(min=1).sqrt()  # the root of 0 has no gradient
    memory = memory / size.view(-1, 1, 1, 1)
    for relation in e.unbind(1):
        n = normalized(_look_up(memory, n, relation))[0]
    return Step(memory, v, n)


def plain(commands: Commands, memory: Tensor, resets: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What :func:`scan` does, step by step in plain torch."""
    reads = []
    for i in range(commands.rates.shape[1]):
        if resets is not None:
            memory = memory.masked_fill(resets[:, i].view(-1, 1, 1, 1), 0)
        memory, _, read = plain_step(memory, [tensor[:, i] for tensor in commands])
        reads.append(read)
    return torch.stack(reads, 1), memory


def scan(commands: Commands, memory: Tensor, resets: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Run a sequence; differentiable once in all that has floating-point numbers.

    Args:
        commands: of the controller.
        memory: F before the first step, ``[B, d_s, d_r, d_t]``.
        resets: boolean ``[B, T]``; where true, F is zero before the step, and no gradient flows across.

    Returns:
        what was read at every step, ``[B, T, d_t]``, and F after the last step.
    """
    keep = None if resets is None else (~resets).to(memory.dtype)
    contiguous = (tensor.contiguous() for tensor in commands)
    return _Scan.apply(memory.contiguous(), keep, *contiguous)  # pyright: ignore[reportReturnType]


def normalized(x: Tensor) -> tuple[Tensor, Tensor]:
    """LN(x) over the last dimension, and what x minus its mean was multiplied by, ``[..., 1]``."""
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + EPSILON).rsqrt()
    return centred * scale, scale


def _look_up(memory: Tensor, s: Tensor, r: Tensor) -> Tensor:
    """F(s, r), ``[B, d_t]``."""
    key = (s.unsqueeze(2) * r.unsqueeze(1)).flatten(1)
    return (key.unsqueeze(1) @ memory.flatten(1, 2)).squeeze(1)


def keys(s: Tensor, r: Tensor) -> Tensor:
    """``s x r`` as rows ``[B, C, K]``."""
    return (s.unsqueeze(3) * r.unsqueeze(2)).flatten(2)


def _key_gradients(d_keys: Tensor, s: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of s and r from that of :func:`keys`."""
    d_keys = d_keys.unflatten(2, (s.shape[2], r.shape[2]))
    return (d_keys @ r.unsqueeze(3)).squeeze(3), (s.unsqueeze(2) @ d_keys).squeeze(2)


class _Read(NamedTuple):
    """One of the N reads at all steps of a chunk."""

    query: Tensor
    """n before it, ``[B, C, d_s]``."""
    found: Tensor
    """LN(F(n, e)), ``[B, C, d_t]``."""
    scale: Tensor
    """Of LN, ``[B, C, 1]``."""


class _Chunk:
    """The steps of a chunk, forward and backward; F is ``[B, K, d_t]`` here."""

    def __init__(self, commands: Commands, keep: Tensor | None, memory: Tensor):
        self.commands, self.keep, self.memory = commands, keep, memory
        s, r = commands.subjects, commands.relations
        self.keys = keys(s, r)
        self.s_products, self.r_products = s @ s.mT, r @ r.mT

    def write(self, squared_norm: Tensor) -> writes.Written:
        """The writes, with ``|F|^2`` before them ``[B]``."""
        return writes.forward(self.problem(), squared_norm)

    def problem(self) -> writes.Problem:
        """What the writes depend on."""
        gram = self.s_products * self.r_products
        return writes.Problem(
            self.keys @ self.memory, gram, self.commands.targets, self.commands.rates, self.keep
        )

    def read(self, written: writes.Written) -> list[_Read]:
        """All reads, each at all steps."""
        query, reads = self.commands.queries, []
        for relation in self.commands.read_relations.unbind(2):
            mixing = self.mixing(query, relation) * written.decays[:, :, 1:]
            x = written.decays[:, :, :1] * (keys(query, relation) @ self.memory) + mixing @ written.updates
            reads.append(_Read(query, *normalized(x)))
            query = reads[-1].found
        return reads

    def mixing(self, query: Tensor, relation: Tensor) -> Tensor:
        """The products of keys at reads and writes, ``[B, C, C]``."""
        return (query @ self.commands.subjects.mT) * (relation @ self.commands.relations.mT)

    def memory_after(self, written: writes.Written) -> Tensor:
        """F after the last step."""
        last = written.decays[:, -1]
        weighted = written.updates * last[:, 1:].unsqueeze(2)
        return torch.baddbmm(last[:, :1].unsqueeze(2) * self.memory, self.keys.mT, weighted)


class _Gradients:
    """The gradients of a chunk, gathered part by part."""

    def __init__(self, chunk: _Chunk, written: writes.Written, reads: list[_Read]):
        self.chunk, self.written, self.reads = chunk, written, reads
        commands = chunk.commands
        self.subjects, self.relations = map(torch.zeros_like, (commands.subjects, commands.relations))
        self.read_relations = torch.empty_like(commands.read_relations)
        self.updates = torch.zeros_like(written.updates)
        self.log_decays = torch.zeros_like(written.decays)
        """Those of the logarithms of D."""

    def of_last_memory(self, d_memory: Tensor) -> None:
        """From the gradient of F after the last step, ``[B, K, d_t]``."""
        chunk, last = self.chunk, self.written.decays[:, -1].unsqueeze(2)
        self.memory = last[:, :1] * d_memory
        along_keys = chunk.keys @ d_memory
        self.updates += last[:, 1:] * along_keys
        self.log_decays[:, -1, 0] += (self.memory * chunk.memory).sum((1, 2))
        self.log_decays[:, -1, 1:] += last[:, 1:, 0] * (along_keys * self.written.updates).sum(2)
        self.keys = (last[:, 1:] * self.written.updates) @ d_memory.mT

    def of_reads(self, d_read: Tensor) -> None:
        """From the gradient of what was read last, ``[B, C, d_t]``."""
        for i in reversed(range(len(self.reads))):
            d_read = self._of_read(i, d_read)
        self.queries = d_read

    def _of_read(self, i: int, d_found: Tensor) -> Tensor:
        """From the gradient of LN(F(n, e)), ``[B, C, d_t]``, to that of n."""
        chunk, decays, updates = self.chunk, self.written.decays, self.written.updates
        (query, found, scale), relation = self.reads[i], chunk.commands.read_relations[:, :, i]
        d_x = d_found - d_found.mean(2, keepdim=True) - found * (d_found * found).mean(2, keepdim=True)
        d_x = scale * d_x
        decayed = decays[:, :, :1] * d_x
        read_keys = keys(query, relation)
        d_keys = decayed @ chunk.memory.mT
        self.memory += read_keys.mT @ decayed
        by_s, by_r = query @ chunk.commands.subjects.mT, relation @ chunk.commands.relations.mT
        mixing, d_decayed_mixing = by_s * by_r * decays[:, :, 1:], d_x @ updates.mT
        self.updates += mixing.mT @ d_x
        self.log_decays[:, :, 0] += (d_keys * read_keys).sum(2)
        self.log_decays[:, :, 1:] += mixing * d_decayed_mixing
        d_mixing = d_decayed_mixing * decays[:, :, 1:]
        d_query, d_relation = _key_gradients(d_keys, query, relation)
        d_by_s, d_by_r = d_mixing * by_r, d_mixing * by_s
        self.subjects += d_by_s.mT @ query
        self.relations += d_by_r.mT @ relation
        self.read_relations[:, :, i] = d_relation + d_by_r @ chunk.commands.relations
        return d_query + d_by_s @ chunk.commands.subjects

    def of_writes(self, d_squared_norm: Tensor) -> None:
        """From the gradients of the writes so far, and of ``|F|^2`` after them ``[B]``."""
        chunk, problem = self.chunk, self.chunk.problem()
        d = writes.backward(problem, self.written, self.updates, self.log_decays, d_squared_norm)
        self.targets, self.rates, self.squared_norm = d.targets, d.rates, d.squared_norm
        self.memory += chunk.keys.mT @ d.looked_up
        self.keys += d.looked_up @ chunk.memory.mT
        s, r = chunk.commands.subjects, chunk.commands.relations
        d_s_products, d_r_products = d.gram * chunk.r_products, d.gram * chunk.s_products
        d_s, d_r = _key_gradients(self.keys, s, r)
        self.subjects += d_s + (d_s_products + d_s_products.mT) @ s
        self.relations += d_r + (d_r_products + d_r_products.mT) @ r

    def commands(self) -> Commands:
        """All that go to the controller."""
        return Commands(
            self.subjects, self.relations, self.targets, self.rates, self.queries, self.read_relations
        )


class _Scan(torch.autograd.Function):
    """The sequence as one operation."""

    @staticmethod
    def forward(ctx: Any, memory: Tensor, keep: Tensor | None, *row: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore
        commands, shape = Commands(*row), memory.shape
        memory = memory.flatten(1, 2)
        squared_norm = memory.square().sum((1, 2))
        outputs, saved, kept = [], any(ctx.needs_input_grad), []
        for start, stop in _spans(commands.rates.shape[1]):
            chunk = _Chunk(commands.between(start, stop), _between(keep, start, stop), memory)
            written = chunk.write(squared_norm)
            reads = chunk.read(written)
            outputs.append(reads[-1].found if reads else chunk.commands.queries)
            if saved:
                kept += [memory, *written, *(tensor for read in reads for tensor in read)]
            memory, squared_norm = chunk.memory_after(written), written.squared_norm
        ctx.keep, ctx.count = keep, len(row)
        ctx.save_for_backward(*row, *kept)
        return torch.cat(outputs, 1), memory.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_reads: Tensor, d_memory: Tensor) -> tuple[Tensor | None, ...]:
        row, kept = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        commands, shape = Commands(*row), d_memory.shape
        spans = _spans(commands.rates.shape[1])
        width, written_width = len(kept) // len(spans), len(writes.Written._fields)
        d_memory, d_squared_norm = d_memory.flatten(1, 2), d_memory.new_zeros(shape[0])
        pieces: list[Commands] = []
        for i, (start, stop) in reversed(list(enumerate(spans))):
            memory, *rest = kept[i * width : (i + 1) * width]
            written, reads = writes.Written(*rest[:written_width]), rest[written_width:]
            chunk = _Chunk(commands.between(start, stop), _between(ctx.keep, start, stop), memory)
            d = _Gradients(chunk, written, [_Read(*reads[j : j + 3]) for j in range(0, len(reads), 3)])
            d.of_last_memory(d_memory)
            d.of_reads(d_reads[:, start:stop])
            d.of_writes(d_squared_norm)
            pieces.insert(0, d.commands())
            d_memory, d_squared_norm = d.memory, d.squared_norm
        d_memory = d_memory + 2 * d_squared_norm.view(-1, 1, 1) * kept[0]
        return d_memory.view(shape), None, *(torch.cat(parts, 1) for parts in zip(*pieces, strict=True))


def _spans(length: int) -> list[tuple[int, int]]:
    return [(start, min(start + CHUNK, length)) for start in range(0, length, CHUNK)]


def _between(keep: Tensor | None, start: int, stop: int) -> Tensor | None:
    return None if keep is None else keep[:, start:stop]

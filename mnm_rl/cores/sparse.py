"""Sparse access memory and the sparse DNC: each head reads a few slots, and a step writes those or old ones.

Rae et al. 2016, "Scaling memory-augmented neural networks with sparse reads and writes", equations 4 to 8 and
appendix D. Neither is a DNC with small numbers cut off: there are no free gates and no allocation, a write
goes to the slots that were read before or to those not accessed for longest, and no gradient flows through
links.

Nothing as large as the memory is kept for the backward pass: what is read is gathered from it, and a write
adds to it, so that both need the places alone.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size, ``N`` slots, ``W`` size of a slot, ``R`` read heads,
``D`` writers, ``K`` slots that a head reads; sizes ``d_h`` controller, ``d_o`` output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mnm_rl.cores.base import CoreOutput, MemoryCore, reset_state, steps_with_resets
from mnm_rl.cores.checks import checked_config
from mnm_rl.field_types import check_own_fields
from mnm_rl.kernels import departure
from mnm_rl.memory import dnc as memory_of
from mnm_rl.memory.dnc import EPSILON, INTERFACE_LIMIT

ACCESSED = 0.005
"""delta: a slot is accessed in a step in which its write and read weights sum to more."""
OF_LINKS = ("sparse_links", "link_gradient")
"""Settings that mean nothing without links, and stay at their defaults there."""


@dataclass(frozen=True)
class SparseConfig:
    """Settings of the ``sam`` and ``sdnc`` cores."""

    links: bool = False
    """Slots remember in which order they were written, as in the sparse DNC, which has one writer."""
    hidden_size: int = 200
    """d_h, width of the controller."""
    output_size: int | None = None
    """d_o, size of the output; the controller's width if not given."""
    slots: int = 64
    """N."""
    slot_size: int = 32
    """W."""
    read_heads: int = 4
    """R."""
    sparse_reads: int = 4
    """K, slots that a head reads."""
    sparse_links: int = 8
    """K_L, links that a slot has in each direction; for ``sdnc``."""
    link_gradient: bool = False
    """Gradients flow through links into the write weights; not in the paper; for ``sdnc``."""

    def __post_init__(self) -> None:
        check_own_fields(self, "hidden_size", "slots", "slot_size", "read_heads", "output_size")
        for name in ("sparse_reads", *(["sparse_links"] if self.links else [])):
            count = getattr(self, name)
            if not 1 <= count <= self.slots:
                raise ValueError(f"{name} must be from 1 to the number of slots, {self.slots}, got {count}.")
        if not self.links:
            for field in fields(self):
                if field.name in OF_LINKS and getattr(self, field.name) != field.default:
                    raise ValueError(
                        f"{field.name} is for memories with links, as that of sdnc, and links is false."
                    )
        if self.writers > self.slots:
            raise ValueError(
                f"There must be a slot for each head to write to, and {self.read_heads} read_heads have "
                f"{self.slots} slots."
            )

    @property
    def writers(self) -> int:
        """D: with links one, as in a DNC, and otherwise one a head."""
        return 1 if self.links else self.read_heads

    def part_sizes(self) -> list[int]:
        """Sizes of the interface vector's parts: queries, strengths, words, gates alpha and gamma, modes."""
        heads, writers, size = self.read_heads, self.writers, self.slot_size
        return [heads * size, heads, writers * size, writers, writers, 3 * heads if self.links else 0]


class SAMState(NamedTuple):
    """What the ``sam`` core carries from step to step."""

    hidden: Tensor
    """h, ``[B, d_h]``."""
    cell: Tensor
    """The controller's cell state, ``[B, d_h]``."""
    reads: Tensor
    """r of the last step, ``[B, R, W]``."""
    memory: Tensor
    """M, ``[B, N, W]``."""
    read_weights: Tensor
    """w^R of the last step, ``[B, R, N]``, at most K of them not zero for a head."""
    ages: Tensor
    """Steps since the last access of each slot, whole numbers, ``[B, N]``."""


class SDNCState(NamedTuple):
    """What the ``sdnc`` core carries from step to step; the first fields as in :class:`SAMState`."""

    hidden: Tensor
    cell: Tensor
    reads: Tensor
    memory: Tensor
    read_weights: Tensor
    ages: Tensor
    precedence: Tensor
    """p, ``[B, N]``, at most K_L of them not zero."""
    forward_link: Tensor
    """N, ``[B, N, N]``, at most K_L not zero in a row: how far the row's slot was written after others."""
    backward_link: Tensor
    """P, ``[B, N, N]``: how far the slot of the row was written before others."""


class _Trace(NamedTuple):
    """What a step leaves in a trace."""

    read_keys: Tensor
    """Queries, ``[B, R, W]``."""
    write_values: Tensor
    """Mean of the words that are written, ``[B, 1, W]``."""
    read_values: Tensor
    """Mean of what the heads read, ``[B, 1, W]``."""
    read_weights: Tensor
    """``[B, R, N]``."""
    write_weights: Tensor
    """``[B, D, N]``."""
    ages: Tensor
    """``[B, N]``."""
    write_sizes: Tensor
    """Frobenius norm of the memory's change, ``[B, 1]``."""
    memory_distances: Tensor
    """Frobenius norm of the memory, ``[B, 1]``."""


class SparseCore(MemoryCore[Any]):
    """LSTM controller and a memory with sparse access, ``y_t = W_y [h_t; r_t] + b_y``.

    The weights of a read are a softmax over the K slots most like the query: slots that are not read have no
    gradient at all. With several writers, each takes another of the slots not accessed for longest.

    Args:
        input_size: ``I``.
        config: all other settings.
    """

    config_class = SparseConfig
    trace_names = _Trace._fields

    def __init__(self, input_size: int, config: SparseConfig | None = None):
        super().__init__()
        self.config = config = checked_config(self, input_size, config, SparseConfig)
        self.input_size = input_size
        self.output_size = config.output_size or config.hidden_size
        read_size = config.read_heads * config.slot_size
        self.controller = nn.LSTMCell(input_size + read_size, config.hidden_size)
        self.interface = nn.Linear(config.hidden_size, sum(config.part_sizes()))
        self.output = nn.Linear(config.hidden_size + read_size, self.output_size)

    def initial_state(self, batch_size: int) -> SAMState | SDNCState:
        """Zeros."""
        heads, slots, size = self.config.read_heads, self.config.slots, self.config.slot_size
        zeros = self.interface.weight.new_zeros
        state = SAMState(
            hidden=zeros(batch_size, self.config.hidden_size),
            cell=zeros(batch_size, self.config.hidden_size),
            reads=zeros(batch_size, heads, size),
            memory=zeros(batch_size, slots, size),
            read_weights=zeros(batch_size, heads, slots),
            ages=zeros(batch_size, slots, dtype=torch.int64),
        )
        if not self.config.links:
            return state
        links = [zeros(batch_size, slots, slots) for _ in range(2)]
        return SDNCState(*state, zeros(batch_size, slots), *links)

    def forward(
        self, inputs: Tensor, state: Any = None, resets: Tensor | None = None, *, record: bool = False
    ) -> CoreOutput[Any]:
        """See :meth:`MemoryCore.forward`."""
        initial = self.initial_state(inputs.shape[1])
        state = initial if state is None else state
        any_reset = steps_with_resets(resets, len(inputs))
        controls, traces, control = [], [], self._controller(inputs)
        for t in range(len(inputs)):
            if resets is not None and any_reset[t]:
                state = reset_state(state, initial, resets[t])
            before = state
            found, state = self._advance(*control(t, before), before)
            controls.append(torch.cat([state.hidden, state.reads.flatten(1)], 1))
            if record:
                traces.append(_look(*found, before, state))
        outputs = self.output(torch.stack(controls))
        columns = zip(_Trace._fields, zip(*traces, strict=True), strict=True) if record else ()
        trace = {name: torch.stack(column) for name, column in columns} if record else None
        return CoreOutput(outputs, state, outputs.new_zeros(outputs.shape[:2]), trace)

    def _controller(self, inputs: Tensor) -> Callable[[int, Any], tuple[Tensor, Tensor]]:
        """Hidden state and cell, ``[B, d_h]`` each, of step t after a state.

        The products of the inputs are one of all steps, unless somebody changed the module, which is called.
        """
        cell = self.controller

        def by_module(t: int, state: Any) -> tuple[Tensor, Tensor]:
            seen = torch.cat([inputs[t], state.reads.flatten(1)], 1)
            return cell(seen, (state.hidden, state.cell))

        if departure(self, SparseCore, (), {"controller": nn.LSTMCell}) is not None:
            return by_module
        bias = cell.bias_ih + cell.bias_hh
        projected = nn.functional.linear(inputs, cell.weight_ih[:, : self.input_size], bias)

        def by_gates(t: int, state: Any) -> tuple[Tensor, Tensor]:
            sums = projected[t] + state.hidden @ cell.weight_hh.mT
            sums = sums + state.reads.flatten(1) @ cell.weight_ih[:, self.input_size :].mT
            i, f, g, o = sums.chunk(4, 1)
            new_cell = f.sigmoid() * state.cell + i.sigmoid() * g.tanh()
            return o.sigmoid() * new_cell.tanh(), new_cell

        return by_gates

    def _advance(self, hidden: Tensor, cell: Tensor, state: Any) -> tuple[tuple[Tensor, Tensor, Tensor], Any]:
        """One step from the controller's, ``[B, d_h]``; also queries, words and write weights, for traces."""
        config = self.config
        vector = self.interface(hidden).clamp(-INTERFACE_LIMIT, INTERFACE_LIMIT)
        queries, strengths, words, alpha, gamma, modes = vector.split(config.part_sizes(), 1)
        queries = queries.unflatten(1, (config.read_heads, config.slot_size))
        words = words.unflatten(1, (config.writers, config.slot_size))
        oldest = least_recently_accessed(state.ages, config.writers)
        last = state.read_weights.mean(1, keepdim=True) if config.links else state.read_weights
        write_weights = sparse_write_weights(alpha.sigmoid(), gamma.sigmoid(), last, oldest)
        memory = sparse_write(state.memory, write_weights, words, oldest)
        read_weights = self._contents(queries, memory_of.oneplus(strengths), memory)
        order: tuple[Tensor, ...] = ()
        if config.links:
            with torch.set_grad_enabled(torch.is_grad_enabled() and config.link_gradient):
                order = self._relink(state, write_weights[:, 0])
            ways = (self._follow(order[2], state), read_weights, self._follow(order[1], state))
            pi = modes.unflatten(1, (3, config.read_heads)).softmax(1).unsqueeze(3)
            mixed = pi[:, 0] * ways[0] + pi[:, 1] * ways[1] + pi[:, 2] * ways[2]
            read_weights = memory_of.keep_largest(mixed, config.sparse_reads, rescale=False)
        places = _largest(read_weights, config.sparse_reads)
        reads = (read_weights.gather(2, places).unsqueeze(3) * _rows(memory, places)).sum(2)
        accessed = (write_weights.sum(1) + read_weights.sum(1)).detach() > ACCESSED
        ages = (state.ages + 1).masked_fill(accessed, 0)
        state = type(state)(hidden, cell, reads, memory, read_weights, ages, *order)
        return (queries, words, write_weights), state

    def _contents(self, queries: Tensor, strengths: Tensor, memory: Tensor) -> Tensor:
        """A softmax over the K slots most like each query, ``[B, R, N]``."""
        with torch.no_grad():
            places = _largest(memory_of.similarity(queries, None, memory), self.config.sparse_reads)
        rows = _rows(memory, places)
        norms = [(x.square().sum(-1) + EPSILON).sqrt() for x in (rows, queries)]
        products = (rows @ queries.unsqueeze(3)).squeeze(3)
        cosines = products / (norms[0] * norms[1].unsqueeze(2) + EPSILON)
        weights = (strengths.unsqueeze(2) * cosines).softmax(2)
        return torch.zeros_like(queries[:, :, :1]).expand(-1, -1, memory.shape[1]).scatter(2, places, weights)

    def _relink(self, state: SDNCState, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Precedence and the links both ways after a write ``[B, N]``, with their largest entries alone."""
        config = self.config
        writes = min(config.slots, config.read_heads * config.sparse_reads + 1)
        links = relink(
            state.forward_link, state.backward_link, state.precedence, weights, writes, config.sparse_links
        )
        precedence = memory_of.next_precedence(state.precedence, weights)
        return memory_of.keep_largest(precedence, config.sparse_links, rescale=False), *links

    def _follow(self, link: Tensor, state: SDNCState) -> Tensor:
        """``L w^R``, from the columns of the slots that were read, ``[B, R, N]``."""
        places = _largest(state.read_weights, self.config.sparse_reads)
        first = torch.arange(places.shape[0], device=places.device).view(-1, 1, 1)
        return (state.read_weights.gather(2, places).unsqueeze(3) * link[first, :, places]).sum(2)


def least_recently_accessed(ages: Tensor, count: int) -> Tensor:
    """I^U: the slots that were not accessed for longest, the first of equals, one-hot ``[B, count, N]``.

    Args:
        ages: steps since the last access, ``[B, N]``.
        count: how many.
    """
    return nn.functional.one_hot(_largest(ages, count), ages.shape[1]).bool()


def sparse_write_weights(alpha: Tensor, gamma: Tensor, last: Tensor, oldest: Tensor) -> Tensor:
    """``w^W = alpha (gamma w^R + (1 - gamma) I^U)``, ``[B, D, N]`` (Rae et al. 2016, equation 5).

    Args:
        alpha: write gates, ``[B, D]``.
        gamma: how far to write where was read last, ``[B, D]``.
        last: w^R of the step before, ``[B, D, N]``.
        oldest: I^U, boolean ``[B, D, N]``.
    """
    alpha, gamma = alpha.unsqueeze(2), gamma.unsqueeze(2)
    return alpha * (gamma * last + (1 - gamma) * oldest.to(last.dtype))


def sparse_write(memory: Tensor, weights: Tensor, words: Tensor, oldest: Tensor) -> Tensor:
    """``M_t = (1 - I^U) M + w^W a^T``: the oldest slots are emptied, whatever the gates say (equation 3).

    Args:
        memory: ``[B, N, W]``.
        weights: w^W, ``[B, D, N]``.
        words: a, ``[B, D, W]``.
        oldest: I^U, boolean ``[B, D, N]``.
    """
    return torch.baddbmm(memory.masked_fill(oldest.any(1).unsqueeze(2), 0), weights.mT, words)


def relink(
    forward: Tensor, backward: Tensor, precedence: Tensor, weights: Tensor, writes: int, links: int
) -> tuple[Tensor, Tensor]:
    """N and P after a write, the largest links of each row (Rae et al. 2016, appendix D).

    ``N_t[i, j] = (1 - w[i]) N[i, j] + w[i] p[j]`` and ``P_t[i, j] = (1 - w[j]) P[i, j] + w[j] p[i]``. A row
    gets more links where w[i], in P where p[i], is not zero; there alone are they cut off.

    Args:
        forward: N, ``[B, N, N]``.
        backward: P, ``[B, N, N]``.
        precedence: p of the step before, ``[B, N]``, with at most ``links`` that are not zero.
        weights: w, ``[B, N]``, with at most ``writes`` that are not zero.
        writes: how many slots are written at most.
        links: K_L.
    """
    written, preceding = _largest(weights, writes), _largest(precedence, links)
    w, p = weights.gather(1, written).unsqueeze(2), precedence.gather(1, preceding).unsqueeze(2)
    backward = (1 - weights.unsqueeze(1)) * backward
    rows = (1 - w) * _of_rows(forward, written) + w * precedence.unsqueeze(1)
    columns = _of_rows(backward, preceding) + p * weights.unsqueeze(1)
    return _with_rows(forward, written, rows, links), _with_rows(backward, preceding, columns, links)


def _of_rows(link: Tensor, places: Tensor) -> Tensor:
    return link.gather(1, places.unsqueeze(2).expand(-1, -1, link.shape[2]))


def _with_rows(link: Tensor, places: Tensor, rows: Tensor, count: int) -> Tensor:
    """Links with other rows at ``places`` ``[B, J]``, of which the largest stay."""
    rows = memory_of.keep_largest(rows, count, rescale=False)
    return link.scatter(1, places.unsqueeze(2).expand_as(rows), rows)


def _largest(values: Tensor, count: int) -> Tensor:
    """Places of the largest of the last dimension, of equals the first, so that no batch decides."""
    return values.detach().sort(dim=-1, descending=True, stable=True).indices[..., :count]


def _rows(memory: Tensor, places: Tensor) -> Tensor:
    """Slots at ``places`` ``[B, R, K]``, as ``[B, R, K, W]``."""
    batch, slots = memory.shape[:2]
    first = torch.arange(batch, device=memory.device).view(-1, 1, 1) * slots
    # Unlike gather, this keeps nothing of the memory for the backward pass.
    return memory.flatten(0, 1).index_select(0, (places + first).flatten()).unflatten(0, places.shape)


def _look(queries: Tensor, words: Tensor, write_weights: Tensor, before: Any, after: Any) -> _Trace:
    sizes = [torch.linalg.matrix_norm(x) for x in (after.memory - before.memory, after.memory)]
    return _Trace(
        queries,
        words.mean(1, keepdim=True),
        after.reads.mean(1, keepdim=True),
        after.read_weights,
        write_weights,
        after.ages,
        *(size.unsqueeze(1) for size in sizes),
    )

"""What is compiled into the Triton kernels, and the buffers that forward and backward share.

Dimensions: ``T`` time, ``B`` batch, ``H`` heads, ``L`` layers of widths ``D_l`` (``D_0`` = d_k,
``D_L`` = d_v), ``A`` = D_1 + ... + D_L, ``N`` recall delays, ``R`` = H (1 + N) reads, ``C`` = d_h + d_v; all
others as in :mod:`mnm_rl.kernels.problem`. All buffers are contiguous.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from mnm_rl.kernels.problem import ScanSettings
from mnm_rl.memory import constant_scale, layer_sizes


@dataclass(frozen=True)
class Tiles:
    """Numbers of matrix entries that a program holds at a time, powers of two."""

    memory: int = 8192
    """Of one layer's weights, and as many of their gradient. A tile has whole rows."""
    rows: int = 32
    """Rows of the shared weights, or columns where the transposed matrix is multiplied."""
    columns: int = 128
    """The other dimension, over which the product sums."""


TILES = {torch.float32: Tiles(), torch.float64: Tiles(memory=4096, rows=16)}


@dataclass(frozen=True)
class Layout:
    """Sizes and choices; every kernel is compiled for one. Layer ``i`` maps z^i to z^{i+1}."""

    widths: tuple[int, ...]
    """D_0 ... D_L."""
    layers: int
    heads: int
    delays: int
    reads: int
    hidden: int
    """d_h."""
    key_size: int
    """d_k."""
    value_size: int
    """d_v."""
    control: int
    """C."""
    vectors: int
    """U."""
    write_values_at: int
    """Where write values begin in a step's interaction vectors; read keys come first, then write keys."""
    rate_vector_at: int
    rates: int
    """1 or L."""
    activations: int
    """A."""
    spans: tuple[int, ...]
    """Where z^1 ... z^L begin in a row of ``A`` activations."""
    memory: int
    """F."""
    weights_at: tuple[int, ...]
    """Where the layers' weights begin in a memory."""
    gradient_rule: bool
    nonlinear: tuple[bool, ...]
    """Which layers end in tanh."""
    squared_norm: bool
    scales: tuple[float, ...]
    """c_h of every layer where it is a constant."""
    memory_columns: tuple[int, ...]
    """Each layer's tile: its width ..."""
    memory_rows: tuple[int, ...]
    """... and height."""
    rows: int
    columns: int
    value_block: int
    rate_block: int


class Weights(NamedTuple):
    """What all sequences share."""

    recurrent: Tensor
    """From [h; v^r] to the gates, ``[4 d_h, C]``."""
    interaction: Tensor
    interaction_bias: Tensor
    rate: Tensor
    rate_bias: Tensor
    feedback: Tensor | None
    feedback_bias: Tensor | None
    delay_weights: Tensor
    """``[N]``."""


class Memories(NamedTuple):
    """Memories of all sequences."""

    now: Tensor
    """``[B, F]``, changed from step to step."""
    first: Tensor
    """Before the first step, ``[B, F]``."""
    initial: Tensor
    """After a reset, phi_0 ``[F]``."""


class Record(NamedTuple):
    """What the forward kernel leaves for the backward kernel; with T = 1 where nothing is kept for it."""

    age: Tensor
    """Steps since the sequence's last reset, at least T + N where there was none; ``[T, B]``, an input."""
    control: Tensor
    """[h; v^r] before the first step and after every step, ``[1 + T, B, C]``; always of full length."""
    cell: Tensor
    """Likewise, ``[1 + T, B, d_h]``."""
    vectors: Tensor
    """Interaction vectors, ``[N - 1 + T, B, U]``; the first rows hold the state's recent keys and values, the
    latest last. Always of full length."""
    gates: Tensor
    """i, f, g, o after their nonlinearities, ``[T, B, 4 d_h]``."""
    rates: Tensor
    """beta, ``[T, B, 1]`` or ``[T, B, L]``."""
    written: Tensor
    """z^1 ... z^L at the write keys in the old memory, ``[T, B, H, A]``."""
    errors: Tensor
    """e^1 ... e^L, ``[T, B, H, A]``; the gradient rule's without the slope of their nonlinearity."""
    read: Tensor
    """a^1 ... a^L at all reads in the new memory, ``[T, B, R, A]``; the first H reads are at the read keys,
    the others at the write keys of delays 0 ... N - 1."""


class Gradients(NamedTuple):
    """What the backward kernel reads and writes."""

    controls: Tensor
    """Of every step's [h; v^r] as an output, ``[T, B, C]``; an input."""
    meta_loss: Tensor
    """``[T, B]``; an input."""
    control: Tensor
    """Of [h; v^r] as a state, ``[B, C]``: carried from step to step, as are the next two."""
    cell: Tensor
    """``[B, d_h]``."""
    memory: Tensor
    """``[B, F]``."""
    sums: Tensor
    """Of the gates before their nonlinearities, ``[T, B, 4 d_h]``."""
    vectors: Tensor
    """Of the interaction vectors before their nonlinearity, ``[N - 1 + T, B, U]``; comes with the gradients
    of the last state's recent keys and values, which later steps would have added, and zeros elsewhere."""
    rates: Tensor
    """Of beta before its nonlinearity, ``[T, B, 1]`` or ``[T, B, L]``."""
    errors: Tensor
    """Of e^1 ... e^L, ``[T, B, H, A]``; for the gradient rule one step only, ``[B, H, A]``."""
    written: Tensor
    """Of z^1 ... z^L, one step only, ``[B, H, A]``."""
    read: Tensor
    """Of a^1 ... a^L, one step only, ``[B, R, A]``."""


@functools.cache
def make_layout(settings: ScanSettings, hidden: int, tiles: Tiles) -> Layout:
    """The layout for a core with these settings and ``hidden`` = d_h."""
    widths, heads = settings.widths, settings.heads
    sizes, delays = layer_sizes(widths), len(settings.recall_weights)
    columns = [triton.next_power_of_2(width) for width in widths[:-1]]
    heights = [max(1, tiles.memory // width) for width in columns]
    _, write_values_at, rate_vector_at = settings.vector_splits
    return Layout(
        widths=widths,
        layers=len(sizes),
        heads=heads,
        delays=delays,
        reads=heads * (1 + delays),
        hidden=hidden,
        key_size=widths[0],
        value_size=widths[-1],
        control=hidden + widths[-1],
        vectors=rate_vector_at + widths[0],
        write_values_at=write_values_at,
        rate_vector_at=rate_vector_at,
        rates=settings.rates,
        activations=sum(widths[1:]),
        spans=tuple(begin for begin, _ in settings.layer_spans),
        memory=sum(rows * columns for rows, columns in sizes),
        weights_at=tuple(accumulate((rows * columns for rows, columns in sizes[:-1]), initial=0)),
        gradient_rule=settings.gradient_rule,
        nonlinear=(*[True] * (len(sizes) - 1), settings.tanh_output),
        squared_norm=settings.normalization == "squared-norm",
        scales=tuple(
            constant_scale(settings.normalization, heads, *settings.scale_terms(layer))
            for layer in range(1, len(widths))
        ),
        memory_columns=tuple(columns),
        memory_rows=tuple(
            min(height, triton.next_power_of_2(width))
            for height, width in zip(heights, widths[1:], strict=True)
        ),
        rows=tiles.rows,
        columns=tiles.columns,
        value_block=triton.next_power_of_2(widths[-1]),
        rate_block=triton.next_power_of_2(settings.rates),
    )

"""Products, activations and tiles of the memory, for the kernels of a whole time loop.

One program runs through time for one sequence. What it hands from one stage to the next goes through global
memory (in practice the second-level cache), where another thread of the program may read it, so there is a
barrier after every stage that writes. There is one also before an entry that was read is overwritten: a block
with fewer entries than threads is held several times, and a slow thread would read the new entry. Triton's
interpreter runs one thread and shows none of this.

Dimensions as in :mod:`mnm_rl.kernels.triton.layout`. In all kernels ``S`` is a ``Layout``, ``b`` the
sequence, ``row`` the place of a step and sequence in buffers ``[T, B, ...]``, ``now`` its place in the
interaction vectors, and ``LAYER`` = i the layer from z^i to z^{i+1}.
"""

# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
# (Not quite Python: a constexpr has the attributes of its value, and a static_range can be iterated.)

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tanh(x):
    """Within rounding of an exponential; exact signs, no overflow."""
    e = tl.exp(-2.0 * tl.abs(x))
    size = (1.0 - e) / (1.0 + e)
    return tl.where(x < 0, -size, size)


@triton.jit
def logistic(x):
    """The logistic function, without overflow."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x < 0, e, 1.0) / (1.0 + e)


@triton.jit
def activate(x, LAYER: tl.constexpr, S: tl.constexpr):
    """The layer's nonlinearity."""
    if S.nonlinear[LAYER]:
        return tanh(x)
    else:
        return x


@triton.jit
def with_slope(x, activation, LAYER: tl.constexpr, S: tl.constexpr):
    """Times the derivative of the layer's nonlinearity."""
    if S.nonlinear[LAYER]:
        return x * (1.0 - activation * activation)
    else:
        return x


@triton.jit
def scaled(x, z, LAYER: tl.constexpr, S: tl.constexpr):
    """Times c_h, where ``z`` holds the layer's inputs, all of them."""
    if S.squared_norm:
        return x / (S.heads * (tl.sum(z * z) + 1.0))
    else:
        return x * S.scales[LAYER]


@triton.jit
def product(matrix, rows, HEIGHT: tl.constexpr, vector, width, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """``matrix[rows] @ vector`` for a matrix ``[HEIGHT, WIDTH]``; the first ``width`` columns count."""
    total = tl.zeros([rows.shape[0], BLOCK], matrix.dtype.element_ty)
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        inside = (rows < HEIGHT)[:, None] & (column < width)[None, :]
        tile = tl.load(matrix + rows[:, None] * WIDTH + column[None, :], mask=inside, other=0)
        total += tile * tl.load(vector + column, mask=column < width, other=0)[None, :]
    return tl.sum(total, 1)


@triton.jit
def transposed_product(
    matrix, HEIGHT: tl.constexpr, vector, columns, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    """``matrix[:, columns].T @ vector`` for a matrix ``[HEIGHT, WIDTH]``."""
    total = tl.zeros([BLOCK, columns.shape[0]], matrix.dtype.element_ty)
    for first in range(0, HEIGHT, BLOCK):
        row = first + tl.arange(0, BLOCK)
        inside = (row < HEIGHT)[:, None] & (columns < WIDTH)[None, :]
        tile = tl.load(matrix + row[:, None] * WIDTH + columns[None, :], mask=inside, other=0)
        total += tile * tl.load(vector + row, mask=row < HEIGHT, other=0)[:, None]
    return tl.sum(total, 0)


@triton.jit
def accumulate(pointer, value, mask, begin):
    """Add to what lies in memory or, where ``begin``, replace it."""
    old = tl.load(pointer, mask=mask, other=0)
    tl.debug_barrier()
    tl.store(pointer, tl.where(begin, 0.0, old) + value, mask=mask)


@triton.jit
def copy(source, target, LENGTH: tl.constexpr, BLOCK: tl.constexpr):
    """Copy a vector."""
    for first in range(0, LENGTH, BLOCK):
        place = first + tl.arange(0, BLOCK)
        tl.store(target + place, tl.load(source + place, mask=place < LENGTH), mask=place < LENGTH)


@triton.jit
def clear(target, LENGTH: tl.constexpr, BLOCK: tl.constexpr):
    """Fill a vector with zeros."""
    for first in range(0, LENGTH, BLOCK):
        place = first + tl.arange(0, BLOCK)
        tl.store(target + place, tl.zeros([BLOCK], target.dtype.element_ty), mask=place < LENGTH)


@triton.jit
def tile_at(first, LAYER: tl.constexpr, S: tl.constexpr):
    """Rows, columns and places in a memory of the tile that begins at row ``first``; where it is inside."""
    r = first + tl.arange(0, S.memory_rows[LAYER])
    c = tl.arange(0, S.memory_columns[LAYER])
    inside = (r < S.widths[LAYER + 1])[:, None] & (c < S.widths[LAYER])[None, :]
    return r, c, S.weights_at[LAYER] + r[:, None] * S.widths[LAYER] + c[None, :], inside


@triton.jit
def level(row, h, COUNT: tl.constexpr, LEVEL: tl.constexpr, S: tl.constexpr):
    """Place of z^LEVEL, LEVEL >= 1, of head ``h`` in ``[..., COUNT, A]``."""
    return (row * COUNT + h) * S.activations + S.spans[LEVEL - 1]


@triton.jit
def write_input(record, row, now, h, c, LAYER: tl.constexpr, S: tl.constexpr):
    """z^LAYER of head ``h``; z^0 is the write key."""
    if LAYER == 0:
        pointer = record.vectors + now * S.vectors + (S.heads + h) * S.key_size
    else:
        pointer = record.written + level(row, h, S.heads, LAYER, S)
    return tl.load(pointer + c, mask=c < S.widths[LAYER], other=0)


@triton.jit
def delay_of(k, S: tl.constexpr):
    """Steps since the key of read ``k`` was new."""
    return tl.maximum(k // S.heads - 1, 0)


@triton.jit
def is_reset(age):
    """Whether an episode starts at the step, so that the state before it counts for nothing."""
    return age == 0


@triton.jit
def known(k, age, width, S: tl.constexpr):
    """How much of the key or value of read ``k`` counts: nothing where a reset lies between then and now."""
    return tl.where(delay_of(k, S) <= age, width, 0)


@triton.jit
def read_key(now, k, batch, S: tl.constexpr):
    """Place of the key of read ``k`` among the interaction vectors: a read key, then write keys by delay."""
    key = tl.minimum(k // S.heads, 1) * S.heads + k % S.heads
    return (now - delay_of(k, S) * batch) * S.vectors + key * S.key_size


@triton.jit
def write_value(now, k, batch, S: tl.constexpr):
    """Place of the value that belongs to read ``k`` at a write key."""
    return (now - delay_of(k, S) * batch) * S.vectors + S.write_values_at + k % S.heads * S.value_size


@triton.jit
def read_input(record, row, now, k, c, age, batch, LAYER: tl.constexpr, S: tl.constexpr):
    """a^LAYER of read ``k``; a^0 is its key."""
    if LAYER == 0:
        pointer = record.vectors + read_key(now, k, batch, S)
        return tl.load(pointer + c, mask=c < known(k, age, S.key_size, S), other=0)
    else:
        pointer = record.read + level(row, k, S.reads, LAYER, S)
        return tl.load(pointer + c, mask=c < S.widths[LAYER], other=0)


@triton.jit
def full_error(record, row, h, r, LAYER: tl.constexpr, S: tl.constexpr):
    """e^{LAYER+1} of head ``h``."""
    place = level(row, h, S.heads, LAYER + 1, S) + r
    error = tl.load(record.errors + place, mask=r < S.widths[LAYER + 1], other=0)
    if S.gradient_rule:
        z = tl.load(record.written + place, mask=r < S.widths[LAYER + 1], other=0)
        return with_slope(error, z, LAYER, S)
    else:
        return error


@triton.jit
def rate_of(record, row, LAYER: tl.constexpr, S: tl.constexpr):
    """Rate ``beta`` of the layer."""
    return tl.load(record.rates + row * S.rates + LAYER % S.rates)

"""The forward kernel: the whole time loop of one sequence in one program.

Symbols as in the paper; dimensions and names as in :mod:`mnm_rl.kernels.triton.tiles`.
"""

# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
# (Not quite Python: a constexpr has the attributes of its value, and a static_range can be iterated.)

from __future__ import annotations

import triton
import triton.language as tl

from mnm_rl.kernels.triton.tiles import (
    accumulate,
    activate,
    copy,
    delay_of,
    full_error,
    is_reset,
    known,
    level,
    logistic,
    product,
    rate_of,
    read_input,
    scaled,
    tanh,
    tile_at,
    write_input,
    write_value,
)


@triton.jit(do_not_specialize=["steps"])
def forward_kernel(
    weights, projected, memories, record, meta_loss, steps, KEEP: tl.constexpr, S: tl.constexpr
):
    """Fills the record, but for its inputs, the meta loss ``[T, B]`` and the memory after the last step.

    Args:
        weights: ``Weights``.
        projected: the inputs' part of the gates and all biases, ``[T, B, 4 d_h]``.
        memories: ``Memories``, of which ``now`` changes.
        record: ``Record``.
        meta_loss: Eq. 5, ``[T, B]``.
        steps: T.
        KEEP: whether there is a backward pass; otherwise most of the record has one step.
        S: ``Layout``.
    """
    b = tl.program_id(0).to(tl.int64)
    batch = tl.num_programs(0)
    for t in range(steps):
        row = t * batch + b
        now = row + (S.delays - 1) * batch
        kept = row if KEEP else b
        age = tl.load(record.age + row)
        if is_reset(age):
            _reset_memory(memories, b, S)
        _controller(weights, projected + row * (4 * S.hidden), record, row, kept, age, batch, S)
        tl.debug_barrier()
        _interaction_vectors(weights, record, row, now, batch, S)
        tl.debug_barrier()
        _rates(weights, record, now, kept, S)
        if not S.gradient_rule:
            _predicted_activations(weights, record, now, kept, S)
        tl.debug_barrier()
        _memory(memories.now + b * S.memory, record, kept, now, age, batch, S)
        _outputs(weights, record, row, kept, now, age, batch, meta_loss, S)
        tl.debug_barrier()


@triton.jit
def _reset_memory(memories, b, S: tl.constexpr):
    """The memory of a new episode.

    Of h, v^r and the cell, a reset leaves none to the controller; recent keys and values from before it are
    not ``known``.
    """
    copy(memories.initial, memories.now + b * S.memory, S.memory, S.columns)


@triton.jit
def _controller(weights, projected, record, row, kept, age, batch, S: tl.constexpr):
    """The LSTM's step."""
    before, after = record.control + row * S.control, record.control + (row + batch) * S.control
    used = tl.where(is_reset(age), 0, S.control)
    for first in range(0, S.hidden, S.rows):
        j = first + tl.arange(0, S.rows)
        inside = j < S.hidden
        i = logistic(_gate(weights, projected, before, used, j, 0, S))
        f = logistic(_gate(weights, projected, before, used, j, 1, S))
        g = tanh(_gate(weights, projected, before, used, j, 2, S))
        o = logistic(_gate(weights, projected, before, used, j, 3, S))
        old = tl.load(record.cell + row * S.hidden + j, mask=inside & (j < used), other=0)
        cell = f * old + i * g
        tl.store(record.cell + (row + batch) * S.hidden + j, cell, mask=inside)
        tl.store(after + j, o * tanh(cell), mask=inside)
        gates = record.gates + kept * (4 * S.hidden) + j
        tl.store(gates, i, mask=inside)
        tl.store(gates + S.hidden, f, mask=inside)
        tl.store(gates + 2 * S.hidden, g, mask=inside)
        tl.store(gates + 3 * S.hidden, o, mask=inside)


@triton.jit
def _gate(weights, projected, before, used, j, GATE: tl.constexpr, S: tl.constexpr):
    """Units ``j`` of one gate before its nonlinearity."""
    matrix = weights.recurrent + GATE * S.hidden * S.control
    total = product(matrix, j, S.hidden, before, used, S.control, S.columns)
    return total + tl.load(projected + GATE * S.hidden + j, mask=j < S.hidden, other=0)


@triton.jit
def _interaction_vectors(weights, record, row, now, batch, S: tl.constexpr):
    """Eq. 1."""
    hidden = record.control + (row + batch) * S.control
    for first in range(0, S.vectors, S.rows):
        u = first + tl.arange(0, S.rows)
        total = product(weights.interaction, u, S.vectors, hidden, S.hidden, S.hidden, S.columns)
        total += tl.load(weights.interaction_bias + u, mask=u < S.vectors, other=0)
        tl.store(record.vectors + now * S.vectors + u, tanh(total), mask=u < S.vectors)


@triton.jit
def _rates(weights, record, now, kept, S: tl.constexpr):
    """Rates ``beta``."""
    n = tl.arange(0, S.rate_block)
    vector = record.vectors + now * S.vectors + S.rate_vector_at
    total = product(weights.rate, n, S.rates, vector, S.key_size, S.key_size, S.columns)
    total += tl.load(weights.rate_bias + n, mask=n < S.rates, other=0)
    tl.store(record.rates + kept * S.rates + n, logistic(total), mask=n < S.rates)


@triton.jit
def _predicted_activations(weights, record, now, kept, S: tl.constexpr):
    """q_psi of section 3.4, to where the errors will be."""
    values = record.vectors + now * S.vectors + S.write_values_at
    for first in range(0, S.activations, S.rows):
        n = first + tl.arange(0, S.rows)
        bias = tl.load(weights.feedback_bias + n, mask=n < S.activations, other=0)
        for h in range(S.heads):
            value = values + h * S.value_size
            total = product(weights.feedback, n, S.activations, value, S.value_size, S.value_size, S.columns)
            target = record.errors + (kept * S.heads + h) * S.activations + n
            tl.store(target, total + bias, mask=n < S.activations)


@triton.jit
def _memory(memory, record, row, now, age, batch, S: tl.constexpr):
    """Write, by Eq. 3 or 4, then read. The local rule visits each layer once."""
    LAYERS: tl.constexpr = S.layers
    if S.gradient_rule:
        for layer in tl.static_range(LAYERS):
            _activations(memory, record, row, now, layer, S)
            tl.debug_barrier()
        _last_error(record, row, now, S)
        tl.debug_barrier()
        for back in tl.static_range(LAYERS):
            _gradient_write(memory, record, row, now, LAYERS - 1 - back, S)
            tl.debug_barrier()
        for layer in tl.static_range(LAYERS):
            _read(memory, record, row, now, age, batch, layer, S)
            tl.debug_barrier()
    else:
        for layer in tl.static_range(LAYERS):
            _local_write_and_read(memory, record, row, now, age, batch, layer, S)
            tl.debug_barrier()


@triton.jit
def _local_write_and_read(memory, record, row, now, age, batch, LAYER: tl.constexpr, S: tl.constexpr):
    """One layer: z, its error, the write, and a at all reads."""
    rate = rate_of(record, row, LAYER, S)
    for first in range(0, S.widths[LAYER + 1], S.memory_rows[LAYER]):
        r, c, place, inside = tile_at(first, LAYER, S)
        weight = tl.load(memory + place, mask=inside, other=0)
        new = weight
        for h in range(S.heads):
            z = write_input(record, row, now, h, c, LAYER, S)
            activation = _activation(weight, z, record, row, h, r, LAYER, S)
            target = record.errors + level(row, h, S.heads, LAYER + 1, S) + r
            error = activation - tl.load(target, mask=r < S.widths[LAYER + 1], other=0)
            new -= scaled(rate * error, z, LAYER, S)[:, None] * z[None, :]
            tl.debug_barrier()
            tl.store(target, error, mask=r < S.widths[LAYER + 1])
        tl.store(memory + place, new, mask=inside)
        _read_tile(new, record, row, now, age, batch, r, c, LAYER, S)


@triton.jit
def _activation(weight, z, record, row, h, r, LAYER: tl.constexpr, S: tl.constexpr):
    """z^{LAYER+1} from z^LAYER, for the rows of a tile; kept in the record."""
    activation = activate(tl.sum(weight * z[None, :], 1), LAYER, S)
    place = level(row, h, S.heads, LAYER + 1, S) + r
    tl.store(record.written + place, activation, mask=r < S.widths[LAYER + 1])
    return activation


@triton.jit
def _read_tile(weight, record, row, now, age, batch, r, c, LAYER: tl.constexpr, S: tl.constexpr):
    """a^{LAYER+1} from a^LAYER at all reads, for the rows of a tile."""
    for k in range(S.reads):
        a = read_input(record, row, now, k, c, age, batch, LAYER, S)
        activation = activate(tl.sum(weight * a[None, :], 1), LAYER, S)
        place = level(row, k, S.reads, LAYER + 1, S) + r
        tl.store(record.read + place, activation, mask=r < S.widths[LAYER + 1])


@triton.jit
def _activations(memory, record, row, now, LAYER: tl.constexpr, S: tl.constexpr):
    """One layer's z for the gradient rule."""
    for first in range(0, S.widths[LAYER + 1], S.memory_rows[LAYER]):
        r, c, place, inside = tile_at(first, LAYER, S)
        weight = tl.load(memory + place, mask=inside, other=0)
        for h in range(S.heads):
            z = write_input(record, row, now, h, c, LAYER, S)
            _activation(weight, z, record, row, h, r, LAYER, S)


@triton.jit
def _last_error(record, row, now, S: tl.constexpr):
    """z^L less the write value."""
    v = tl.arange(0, S.value_block)
    for h in range(S.heads):
        place = level(row, h, S.heads, S.layers, S) + v
        z = tl.load(record.written + place, mask=v < S.value_size, other=0)
        value = record.vectors + now * S.vectors + S.write_values_at + h * S.value_size + v
        tl.store(
            record.errors + place, z - tl.load(value, mask=v < S.value_size, other=0), mask=v < S.value_size
        )


@triton.jit
def _gradient_write(memory, record, row, now, LAYER: tl.constexpr, S: tl.constexpr):
    """One layer, from the last to the first: the write, and the error of the layer before through M_old."""
    rate = rate_of(record, row, LAYER, S)
    for first in range(0, S.widths[LAYER + 1], S.memory_rows[LAYER]):
        r, c, place, inside = tile_at(first, LAYER, S)
        weight = tl.load(memory + place, mask=inside, other=0)
        new = weight
        for h in range(S.heads):
            z = write_input(record, row, now, h, c, LAYER, S)
            error = full_error(record, row, h, r, LAYER, S)
            new -= scaled(rate * error, z, LAYER, S)[:, None] * z[None, :]
            if LAYER > 0:
                before = record.errors + level(row, h, S.heads, LAYER, S) + c
                accumulate(before, tl.sum(weight * error[:, None], 0), c < S.widths[LAYER], first == 0)
        tl.debug_barrier()
        tl.store(memory + place, new, mask=inside)


@triton.jit
def _read(memory, record, row, now, age, batch, LAYER: tl.constexpr, S: tl.constexpr):
    """One layer's a at all reads, after the gradient rule's write."""
    for first in range(0, S.widths[LAYER + 1], S.memory_rows[LAYER]):
        r, c, place, inside = tile_at(first, LAYER, S)
        weight = tl.load(memory + place, mask=inside, other=0)
        _read_tile(weight, record, row, now, age, batch, r, c, LAYER, S)


@triton.jit
def _outputs(weights, record, row, kept, now, age, batch, meta_loss, S: tl.constexpr):
    """The mean read value, and Eq. 5."""
    BLOCK: tl.constexpr = S.value_block
    v = tl.arange(0, BLOCK)
    inside = v < S.value_size
    read_value = tl.zeros([BLOCK], meta_loss.dtype.element_ty)
    loss = tl.zeros([BLOCK], meta_loss.dtype.element_ty)
    for k in range(S.heads):
        read_value += tl.load(record.read + level(kept, k, S.reads, S.layers, S) + v, mask=inside, other=0)
    for k in range(S.heads, S.reads):
        recalled = tl.load(record.read + level(kept, k, S.reads, S.layers, S) + v, mask=inside, other=0)
        value = record.vectors + write_value(now, k, batch, S) + v
        error = recalled - tl.load(value, mask=v < known(k, age, S.value_size, S), other=0)
        loss += tl.load(weights.delay_weights + delay_of(k, S)) * error * error
    control = record.control + (row + batch) * S.control + S.hidden
    tl.store(control + v, read_value / S.heads, mask=inside)
    tl.store(meta_loss + row, tl.sum(loss) / (S.heads * S.value_size))

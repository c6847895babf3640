"""The backward kernel: from the last step to the first, undoing every write.

A prefix ``d_`` means the loss's gradient of what follows; ``d`` is the ``Gradients``. At a reset the memory
of the episode before comes back by repeating its writes. Symbols as in the paper; dimensions and names as in
:mod:`mnm_rl.kernels.triton.tiles`.
"""

# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
# (Not quite Python: a constexpr has the attributes of its value, and a static_range can be iterated.)

from __future__ import annotations

import triton
import triton.language as tl

from mnm_rl.kernels.triton.tiles import (
    accumulate,
    clear,
    copy,
    delay_of,
    full_error,
    is_reset,
    known,
    level,
    rate_of,
    read_input,
    read_key,
    scaled,
    tanh,
    tile_at,
    transposed_product,
    with_slope,
    write_input,
    write_value,
)


@triton.jit(do_not_specialize=["steps"])
def backward_kernel(weights, memories, record, d, steps, S: tl.constexpr):
    """Fills the gradients, but for its inputs; those of the parameters are products of these over all steps.

    Args:
        weights: ``Weights``.
        memories: ``Memories``, of which ``now`` goes from the last step's to the first.
        record: ``Record``.
        d: ``Gradients``.
        steps: T.
        S: ``Layout``.
    """
    b = tl.program_id(0).to(tl.int64)
    batch = tl.num_programs(0)
    memory, d_memory = memories.now + b * S.memory, d.memory + b * S.memory
    for back in range(steps):
        t = steps - 1 - back
        row = t * batch + b
        now = row + (S.delays - 1) * batch
        age = tl.load(record.age + row)
        error_row = b if S.gradient_rule else row
        _outputs_backward(weights, record, d, b, row, now, age, batch, S)
        tl.debug_barrier()
        _memory_backward(memory, d_memory, record, d, b, row, error_row, now, age, batch, S)
        _vectors_backward(weights, record, d, row, error_row, now, S)
        tl.debug_barrier()
        _controller_backward(weights, record, d, b, row, now, age, batch, S)
        if is_reset(age):
            _reset_backward(memories, d_memory, record, b, t, row, batch, S)
        tl.debug_barrier()


@triton.jit
def _outputs_backward(weights, record, d, b, row, now, age, batch, S: tl.constexpr):
    """Gradients of a^L from the read value and from Eq. 5, and the latter's of the values."""
    v = tl.arange(0, S.value_block)
    inside = v < S.value_size
    at = S.hidden + v
    d_read_value = tl.load(d.control + b * S.control + at, mask=inside, other=0)
    d_read_value += tl.load(d.controls + row * S.control + at, mask=inside, other=0)
    for k in range(S.heads):
        target = d.read + level(b, k, S.reads, S.layers, S) + v
        tl.store(target, d_read_value / S.heads, mask=inside)
    d_loss = tl.load(d.meta_loss + row) * 2.0 / (S.heads * S.value_size)
    for k in range(S.heads, S.reads):
        counts = v < known(k, age, S.value_size, S)
        place = write_value(now, k, batch, S) + v
        recalled = tl.load(record.read + level(row, k, S.reads, S.layers, S) + v, mask=inside, other=0)
        error = recalled - tl.load(record.vectors + place, mask=counts, other=0)
        d_recalled = tl.load(weights.delay_weights + delay_of(k, S)) * d_loss * error
        tl.store(d.read + level(b, k, S.reads, S.layers, S) + v, d_recalled, mask=inside)
        accumulate(d.vectors + place, -d_recalled, counts, False)


@triton.jit
def _memory_backward(memory, d_memory, record, d, b, row, error_row, now, age, batch, S: tl.constexpr):
    """Back through the reads and the write. The local rule visits each layer once."""
    LAYERS: tl.constexpr = S.layers
    for back in tl.static_range(LAYERS):
        _visit(memory, d_memory, record, d, b, row, error_row, now, age, batch, LAYERS - 1 - back, S)
        tl.debug_barrier()
    if S.gradient_rule:
        for layer in tl.static_range(1, LAYERS):
            _errors_backward(memory, d_memory, record, d, b, row, now, layer, S)
            tl.debug_barrier()
        _last_error_backward(record, d, b, row, S)
        tl.debug_barrier()
        for back in tl.static_range(LAYERS):
            _written_backward(memory, d_memory, record, d, b, row, now, LAYERS - 1 - back, S)
            tl.debug_barrier()


@triton.jit
def _visit(
    memory, d_memory, record, d, b, row, error_row, now, age, batch, LAYER: tl.constexpr, S: tl.constexpr
):
    """One layer, from the last to the first: reads, then the write, and for the local rule z as well."""
    d_rate = tl.zeros([1], memory.dtype.element_ty)
    for first in range(0, S.widths[LAYER + 1], S.memory_rows[LAYER]):
        r, c, place, inside = tile_at(first, LAYER, S)
        weight = tl.load(memory + place, mask=inside, other=0)
        d_weight = tl.load(d_memory + place, mask=inside, other=0)
        d_weight = _reads_tile(weight, d_weight, record, d, b, row, now, age, batch, first, r, c, LAYER, S)
        weight, d_rate = _undo_tile(
            weight, d_weight, d_rate, record, d, b, row, error_row, now, first, r, c, LAYER, S
        )
        tl.debug_barrier()
        if not S.gradient_rule:
            d_weight = _written_tile(weight, d_weight, record, d, b, row, error_row, now, r, c, LAYER, S)
        tl.store(memory + place, weight, mask=inside)
        tl.store(d_memory + place, d_weight, mask=inside)
        tl.debug_barrier()
    # With one rate for all layers, its gradient is a sum over them; the last layer comes first.
    rate = rate_of(record, row, LAYER, S)
    n = tl.arange(0, 1) + LAYER % S.rates
    begin = S.rates > 1 or S.layers == LAYER + 1
    accumulate(d.rates + row * S.rates + n, d_rate * rate * (1.0 - rate), n >= 0, begin)


@triton.jit
def _reads_tile(
    weight, d_weight, record, d, b, row, now, age, batch, first, r, c, LAYER: tl.constexpr, S: tl.constexpr
):
    """Back through a^{LAYER+1} = sigma(M a^LAYER) at all reads, for the rows of a tile."""
    for k in range(S.reads):
        output = level(0, k, S.reads, LAYER + 1, S) + r
        inside = r < S.widths[LAYER + 1]
        activation = tl.load(record.read + row * (S.reads * S.activations) + output, mask=inside, other=0)
        d_output = tl.load(d.read + b * (S.reads * S.activations) + output, mask=inside, other=0)
        d_sum = with_slope(d_output, activation, LAYER, S)
        a = read_input(record, row, now, k, c, age, batch, LAYER, S)
        d_weight += d_sum[:, None] * a[None, :]
        d_a = tl.sum(weight * d_sum[:, None], 0)
        if LAYER == 0:
            target = d.vectors + read_key(now, k, batch, S) + c
            accumulate(target, d_a, c < known(k, age, S.key_size, S), False)
        else:
            target = d.read + level(b, k, S.reads, LAYER, S) + c
            accumulate(target, d_a, c < S.widths[LAYER], first == 0)
    tl.debug_barrier()
    return d_weight


@triton.jit
def _undo_tile(
    weight,
    d_weight,
    d_rate,
    record,
    d,
    b,
    row,
    error_row,
    now,
    first,
    r,
    c,
    LAYER: tl.constexpr,
    S: tl.constexpr,
):
    """Back through M = M_old - sum_h beta c_h e_h z_h^T, for the rows of a tile; returns M_old."""
    rate = rate_of(record, row, LAYER, S)
    for h in range(S.heads):
        z = write_input(record, row, now, h, c, LAYER, S)
        error = full_error(record, row, h, r, LAYER, S)
        change = scaled(rate * error, z, LAYER, S)
        weight += change[:, None] * z[None, :]
        d_change = -tl.sum(d_weight * z[None, :], 1)
        d_z = -tl.sum(d_weight * change[:, None], 0)
        d_rate_h = scaled(tl.sum(d_change * error), z, LAYER, S)
        d_rate += d_rate_h
        if S.squared_norm:
            d_z -= scaled(2.0 * S.heads * rate * d_rate_h, z, LAYER, S) * z
        d_error = d.errors + level(error_row, h, S.heads, LAYER + 1, S) + r
        tl.store(d_error, scaled(rate * d_change, z, LAYER, S), mask=r < S.widths[LAYER + 1])
        _add_to_written(d_z, d, b, now, h, c, first == 0, LAYER, S)
    return weight, d_rate


@triton.jit
def _add_to_written(d_z, d, b, now, h, c, begin, LAYER: tl.constexpr, S: tl.constexpr):
    """Add to the gradient of z^LAYER; z^0 is the write key."""
    if LAYER == 0:
        target = d.vectors + now * S.vectors + (S.heads + h) * S.key_size + c
        accumulate(target, d_z, c < S.key_size, False)
    else:
        target = d.written + level(b, h, S.heads, LAYER, S) + c
        accumulate(target, d_z, c < S.widths[LAYER], begin)


@triton.jit
def _written_tile(
    weight, d_weight, record, d, b, row, error_row, now, r, c, LAYER: tl.constexpr, S: tl.constexpr
):
    """Back through z^{LAYER+1} = sigma(M_old z^LAYER), for the rows of a tile."""
    inside = r < S.widths[LAYER + 1]
    for h in range(S.heads):
        output = level(0, h, S.heads, LAYER + 1, S) + r
        activation = tl.load(record.written + row * (S.heads * S.activations) + output, mask=inside, other=0)
        d_activation = tl.zeros([r.shape[0]], d.memory.dtype.element_ty)
        if S.gradient_rule or S.layers > LAYER + 1:
            d_activation += tl.load(d.written + b * (S.heads * S.activations) + output, mask=inside, other=0)
        if not S.gradient_rule:
            d_error = d.errors + error_row * (S.heads * S.activations) + output
            d_activation += tl.load(d_error, mask=inside, other=0)
        d_sum = with_slope(d_activation, activation, LAYER, S)
        z = write_input(record, row, now, h, c, LAYER, S)
        d_weight += d_sum[:, None] * z[None, :]
        _add_to_written(tl.sum(weight * d_sum[:, None], 0), d, b, now, h, c, False, LAYER, S)
    return d_weight


@triton.jit
def _errors_backward(memory, d_memory, record, d, b, row, now, LAYER: tl.constexpr, S: tl.constexpr):
    """Back through e^LAYER = (M_old^T e^{LAYER+1}) * (1 - z^2), from the first layer to the last."""
    for first in range(0, S.widths[LAYER + 1], S.memory_rows[LAYER]):
        r, c, place, inside = tile_at(first, LAYER, S)
        weight = tl.load(memory + place, mask=inside, other=0)
        d_weight = tl.load(d_memory + place, mask=inside, other=0)
        for h in range(S.heads):
            d_raw = _raw_error_backward(record, d, b, row, h, c, first == 0, LAYER, S)
            error = full_error(record, row, h, r, LAYER, S)
            d_weight += error[:, None] * d_raw[None, :]
            target = d.errors + level(b, h, S.heads, LAYER + 1, S) + r
            accumulate(target, tl.sum(weight * d_raw[None, :], 1), r < S.widths[LAYER + 1], False)
        tl.debug_barrier()
        tl.store(d_memory + place, d_weight, mask=inside)


@triton.jit
def _raw_error_backward(record, d, b, row, h, c, begin, LEVEL: tl.constexpr, S: tl.constexpr):
    """Through the slope of e^LEVEL: returns the gradient of the error without it, adds once to that of z."""
    inside = c < S.widths[LEVEL]
    place = level(0, h, S.heads, LEVEL, S) + c
    recorded, present = row * (S.heads * S.activations) + place, b * (S.heads * S.activations) + place
    d_error = tl.load(d.errors + present, mask=inside, other=0)
    z = tl.load(record.written + recorded, mask=inside, other=0)
    if S.nonlinear[LEVEL - 1]:
        raw = tl.load(record.errors + recorded, mask=inside, other=0)
        through_slope = tl.where(begin, -2.0 * z * raw * d_error, 0.0)
        accumulate(d.written + present, through_slope, inside, False)
    return with_slope(d_error, z, LEVEL - 1, S)


@triton.jit
def _last_error_backward(record, d, b, row, S: tl.constexpr):
    """Through e^L = (z^L - v^w) * slope. The gradient of v^w is minus what is left in the errors' place."""
    BLOCK: tl.constexpr = S.value_block
    v = tl.arange(0, BLOCK)
    inside = v < S.value_size
    for h in range(S.heads):
        place = level(b, h, S.heads, S.layers, S) + v
        tl.store(d.written + place, tl.zeros([BLOCK], d.memory.dtype.element_ty), mask=inside)
        tl.debug_barrier()
        d_raw = _raw_error_backward(record, d, b, row, h, v, True, S.layers, S)
        tl.debug_barrier()
        accumulate(d.written + place, d_raw, inside, False)
        tl.store(d.errors + place, d_raw, mask=inside)


@triton.jit
def _written_backward(memory, d_memory, record, d, b, row, now, LAYER: tl.constexpr, S: tl.constexpr):
    """One layer's z for the gradient rule, from the last to the first."""
    for first in range(0, S.widths[LAYER + 1], S.memory_rows[LAYER]):
        r, c, place, inside = tile_at(first, LAYER, S)
        weight = tl.load(memory + place, mask=inside, other=0)
        d_weight = tl.load(d_memory + place, mask=inside, other=0)
        d_weight = _written_tile(weight, d_weight, record, d, b, row, b, now, r, c, LAYER, S)
        tl.debug_barrier()
        tl.store(d_memory + place, d_weight, mask=inside)


@triton.jit
def _vectors_backward(weights, record, d, row, error_row, now, S: tl.constexpr):
    """To the write values and the rate vector, then through the interaction vectors' tanh."""
    d_vectors = d.vectors + now * S.vectors
    for h in range(S.heads):
        d_errors = d.errors + (error_row * S.heads + h) * S.activations
        d_value = d_vectors + S.write_values_at + h * S.value_size
        for first in range(0, S.value_size, S.rows):
            v = first + tl.arange(0, S.rows)
            inside = v < S.value_size
            if S.gradient_rule:
                found = tl.load(d_errors + S.spans[S.layers - 1] + v, mask=inside, other=0)
            else:
                found = transposed_product(
                    weights.feedback, S.activations, d_errors, v, S.value_size, S.columns
                )
            accumulate(d_value + v, -found, inside, False)
    for first in range(0, S.key_size, S.rows):
        c = first + tl.arange(0, S.rows)
        found = transposed_product(weights.rate, S.rates, d.rates + row * S.rates, c, S.key_size, S.columns)
        tl.store(d_vectors + S.rate_vector_at + c, found, mask=c < S.key_size)
    tl.debug_barrier()
    for first in range(0, S.vectors, S.columns):
        u = first + tl.arange(0, S.columns)
        vector = tl.load(record.vectors + now * S.vectors + u, mask=u < S.vectors, other=0)
        d_sum = tl.load(d_vectors + u, mask=u < S.vectors, other=0) * (1.0 - vector * vector)
        tl.debug_barrier()
        tl.store(d_vectors + u, d_sum, mask=u < S.vectors)


@triton.jit
def _controller_backward(weights, record, d, b, row, now, age, batch, S: tl.constexpr):
    """Through the LSTM's step; no gradient passes the start of an episode."""
    d_sums = d.sums + row * (4 * S.hidden)
    for first in range(0, S.hidden, S.rows):
        j = first + tl.arange(0, S.rows)
        d_vectors = d.vectors + now * S.vectors
        d_hidden = transposed_product(weights.interaction, S.vectors, d_vectors, j, S.hidden, S.columns)
        d_hidden += tl.load(d.control + b * S.control + j, mask=j < S.hidden, other=0)
        d_hidden += tl.load(d.controls + row * S.control + j, mask=j < S.hidden, other=0)
        _cell_backward(record, d, d_sums, d_hidden, b, row, age, batch, j, S)
    tl.debug_barrier()
    for first in range(0, S.control, S.rows):
        j = first + tl.arange(0, S.rows)
        found = transposed_product(weights.recurrent, 4 * S.hidden, d_sums, j, S.control, S.columns)
        tl.store(d.control + b * S.control + j, tl.where(is_reset(age), 0.0, found), mask=j < S.control)


@triton.jit
def _cell_backward(record, d, d_sums, d_hidden, b, row, age, batch, j, S: tl.constexpr):
    """From units ``j`` of h to their gates and the cell before."""
    inside = j < S.hidden
    used = tl.where(is_reset(age), 0, S.hidden)
    gates = record.gates + row * (4 * S.hidden) + j
    i = tl.load(gates, mask=inside, other=0)
    f = tl.load(gates + S.hidden, mask=inside, other=0)
    g = tl.load(gates + 2 * S.hidden, mask=inside, other=0)
    o = tl.load(gates + 3 * S.hidden, mask=inside, other=0)
    old = tl.load(record.cell + row * S.hidden + j, mask=j < used, other=0)
    squashed = tanh(tl.load(record.cell + (row + batch) * S.hidden + j, mask=inside, other=0))
    carried = tl.load(d.cell + b * S.hidden + j, mask=inside, other=0)
    d_cell = carried + d_hidden * o * (1.0 - squashed * squashed)
    tl.debug_barrier()
    tl.store(d_sums + j, d_cell * g * i * (1.0 - i), mask=inside)
    tl.store(d_sums + S.hidden + j, d_cell * old * f * (1.0 - f), mask=inside)
    tl.store(d_sums + 2 * S.hidden + j, d_cell * i * (1.0 - g * g), mask=inside)
    tl.store(d_sums + 3 * S.hidden + j, d_hidden * squashed * o * (1.0 - o), mask=inside)
    tl.store(d.cell + b * S.hidden + j, tl.where(is_reset(age), 0.0, d_cell * f), mask=inside)


@triton.jit
def _reset_backward(memories, d_memory, record, b, t, row, batch, S: tl.constexpr):
    """Clear the memory's gradient, and repeat the writes of the episode that ended before step ``t``."""
    LAYERS: tl.constexpr = S.layers
    memory = memories.now + b * S.memory
    clear(d_memory, S.memory, S.columns)
    if t > 0:
        age = tl.load(record.age + row - batch)
        begun = age < t
        if begun:
            copy(memories.initial, memory, S.memory, S.columns)
        else:
            copy(memories.first + b * S.memory, memory, S.memory, S.columns)
        tl.debug_barrier()
        for s in range(tl.where(begun, t - 1 - age, 0), t):
            past = s * batch + b
            for layer in tl.static_range(LAYERS):
                _repeat_write(memory, record, past, past + (S.delays - 1) * batch, layer, S)
            tl.debug_barrier()


@triton.jit
def _repeat_write(memory, record, row, now, LAYER: tl.constexpr, S: tl.constexpr):
    """A recorded write to one layer."""
    rate = rate_of(record, row, LAYER, S)
    for first in range(0, S.widths[LAYER + 1], S.memory_rows[LAYER]):
        r, c, place, inside = tile_at(first, LAYER, S)
        weight = tl.load(memory + place, mask=inside, other=0)
        for h in range(S.heads):
            z = write_input(record, row, now, h, c, LAYER, S)
            error = full_error(record, row, h, r, LAYER, S)
            weight -= scaled(rate * error, z, LAYER, S)[:, None] * z[None, :]
        tl.debug_barrier()
        tl.store(memory + place, weight, mask=inside)

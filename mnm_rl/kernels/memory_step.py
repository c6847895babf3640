"""One step of the neural memory, batched: write and read, and both backwards, with plain torch operations.

The C++ kernel has the same stages for one sequence at a time. Forward changes the weights in place; backward
takes them back, by undoing the write, while it turns the gradient of the new weights into that of the old.

Dimensions: ``B`` batch, ``H`` heads, ``L`` layers, ``D_l`` width of layer l (``D_0`` = d_k, ``D_L`` = d_v),
``N`` recall delays, ``R`` = H (1 + N) reads. Symbols as in the paper: M^l weights, z^l activations at the
write keys in the old weights, a^l activations at all reads in the new weights, e^l errors, c_h scale of the
write.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mnm_rl.kernels.problem import ScanSettings
from mnm_rl.memory import activations, write_scale


class MemoryRecord(NamedTuple):
    """What a step's backward pass needs: vectors only."""

    rates: Tensor
    """beta, ``[B, 1]`` or ``[B, L]``."""
    written: list[Tensor]
    """z^0 ... z^L, ``[B, H, D_l]``."""
    errors: list[Tensor]
    """``[B, H, D_l]`` for l = 1 ... L; the gradient rule's without the slope of their nonlinearity."""
    read: list[Tensor]
    """a^0 ... a^L, ``[B, R, D_l]``; the first H reads are at the read keys, the others at write keys."""


class MemoryGradient(NamedTuple):
    """Gradients with regard to a step's vectors."""

    reads: Tensor
    """a^0, ``[B, R, d_k]``."""
    write_keys: Tensor
    """z^0, ``[B, H, d_k]``."""
    targets: list[Tensor]
    """z'^1 ... z'^L of the local rule, or the write value alone for the gradient rule."""
    rates: Tensor
    """Same shape as the rates."""


def write_and_read(
    weights: list[Tensor],
    write_keys: Tensor,
    targets: list[Tensor],
    rates: Tensor,
    read_keys: Tensor,
    settings: ScanSettings,
) -> MemoryRecord:
    """Write (Eq. 3 or 4) in place, then read.

    Args:
        weights: M^1 ... M^L, each ``[B, D_l, D_{l-1}]``; changed in place.
        write_keys: k^w, ``[B, H, d_k]``.
        targets: z'^1 ... z'^L for the local rule; the write value alone for the gradient rule.
        rates: beta, ``[B, 1]`` or ``[B, L]``.
        read_keys: all keys that are read after the write, ``[B, R, d_k]``.
        settings: of the scan.
    """
    written = activations(weights, write_keys, settings.output_activation)
    errors = [z - target for z, target in zip(written[-len(targets) :], targets, strict=True)]
    if settings.gradient_rule:
        for layer in range(len(weights), 1, -1):
            errors.insert(0, _with_slope(errors[0], written[layer], layer, settings) @ weights[layer - 1])
    record = MemoryRecord(rates, written, errors, [])
    for weight, change, z in zip(weights, _changes(record, settings), written[:-1], strict=True):
        weight.baddbmm_(change.mT, z, alpha=-1)
    return record._replace(read=activations(weights, read_keys, settings.output_activation))


def replay(weights: list[Tensor], record: MemoryRecord, active: Tensor, settings: ScanSettings) -> None:
    """Repeat a recorded write in place, for the examples that are ``active`` ``[B]``."""
    for weight, change, z in zip(weights, _changes(record, settings), record.written[:-1], strict=True):
        weight.baddbmm_((change * active[:, None, None]).mT, z, alpha=-1)


def backward(
    weights: list[Tensor],
    d_weights: list[Tensor],
    record: MemoryRecord,
    d_output: Tensor,
    settings: ScanSettings,
) -> MemoryGradient:
    """Undo a step.

    Args:
        weights: after the step; those before it when this returns.
        d_weights: their gradients; those of the weights before the step when this returns.
        record: of the step.
        d_output: gradient of a^L, ``[B, R, d_v]``.
        settings: of the scan.
    """
    d_reads = _activations_backward(weights, d_weights, record.read, [d_output], settings)
    d_written, d_errors, d_rates = _undo_writes(weights, d_weights, record, settings)
    if settings.gradient_rule:
        _gradient_errors_backward(weights, d_weights, record, d_written, d_errors, settings)
        d_targets = [-d_errors[-1]]
        d_written[-1] = d_written[-1] + d_errors[-1]
    else:
        d_targets = [-d for d in d_errors]
        d_written = [d_written[0], *[a + b for a, b in zip(d_written[1:], d_errors, strict=True)]]
    d_write_keys = _activations_backward(weights, d_weights, record.written, d_written, settings)
    return MemoryGradient(d_reads, d_write_keys, d_targets, d_rates)


def _linear(layer: int, settings: ScanSettings) -> bool:
    return layer == len(settings.widths) - 1 and not settings.tanh_output


def _with_slope(values: Tensor, activation: Tensor, layer: int, settings: ScanSettings) -> Tensor:
    """Times the derivative of the layer's nonlinearity."""
    return values if _linear(layer, settings) else values * (1 - activation.square())


def _full_errors(record: MemoryRecord, settings: ScanSettings) -> list[Tensor]:
    """e^1 ... e^L."""
    if not settings.gradient_rule:
        return record.errors
    pairs = zip(record.errors, record.written[1:], strict=True)
    return [_with_slope(error, z, layer, settings) for layer, (error, z) in enumerate(pairs, 1)]


def _scale(z: Tensor, layer: int, settings: ScanSettings) -> Tensor:
    """c_h of a layer from z^{l-1}, ``[B, H, 1]``."""
    scale = write_scale(z, settings.normalization, *settings.scale_terms(layer))
    return scale if isinstance(scale, Tensor) else z.new_full((*z.shape[:2], 1), scale)


def _layer_rates(rates: Tensor, settings: ScanSettings) -> list[Tensor]:
    """beta^1 ... beta^L, each ``[B, 1, 1]``."""
    return [rate[:, None, None] for rate in rates.expand(-1, len(settings.widths) - 1).unbind(1)]


def _changes(record: MemoryRecord, settings: ScanSettings) -> list[Tensor]:
    """beta^l c_h e^l, so that the write is minus the sum over heads of its outer product with z^{l-1}."""
    rates, errors = _layer_rates(record.rates, settings), _full_errors(record, settings)
    layers = enumerate(zip(rates, errors, record.written[:-1], strict=True), 1)
    return [rate * _scale(z, layer, settings) * error for layer, (rate, error, z) in layers]


def _activations_backward(
    weights: list[Tensor],
    d_weights: list[Tensor],
    layers: list[Tensor],
    d_layers: list[Tensor],
    settings: ScanSettings,
) -> Tensor:
    """Back through z^l = sigma(M^l z^{l-1}); ``d_layers`` are the last layers' gradients. Returns d z^0."""
    d = d_layers[-1]
    for layer in range(len(weights), 0, -1):
        d = _with_slope(d, layers[layer], layer, settings)
        d_weights[layer - 1].baddbmm_(d.mT, layers[layer - 1])
        d = d @ weights[layer - 1]
        if len(d_layers) > 1:
            d = d + d_layers[layer - 1]
    return d


def _undo_writes(
    weights: list[Tensor], d_weights: list[Tensor], record: MemoryRecord, settings: ScanSettings
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Back through M^l = M_old^l - sum_h beta c_h e_h z_h^T; gradients of z^0 ... z^L, of e^l and of beta."""
    d_written, d_errors, d_rates = [], [], []
    errors, changes = _full_errors(record, settings), _changes(record, settings)
    for index, rate in enumerate(_layer_rates(record.rates, settings)):
        z, weight, d_weight = record.written[index], weights[index], d_weights[index]
        scale = _scale(z, index + 1, settings)
        d_change = -(z @ d_weight.mT)
        d_z = -(changes[index] @ d_weight)
        weight.baddbmm_(changes[index].mT, z)
        product = (d_change * errors[index]).sum(2, keepdim=True)
        if settings.normalization == "squared-norm":
            d_z = d_z - 2 * settings.heads * rate * product * scale.square() * z
        d_written.append(d_z)
        d_errors.append(rate * scale * d_change)
        d_rates.append((scale * product).sum((1, 2)))
    total = torch.stack(d_rates, 1)
    d_written.append(torch.zeros_like(record.written[-1]))
    return d_written, d_errors, total if settings.rate_per_layer else total.sum(1, keepdim=True)


def _gradient_errors_backward(
    weights: list[Tensor],
    d_weights: list[Tensor],
    record: MemoryRecord,
    d_written: list[Tensor],
    d_errors: list[Tensor],
    settings: ScanSettings,
) -> None:
    """Back through e^l = ((M^{l+1})^T e^{l+1}) * (1 - z^2), from the first layer to the last, in place."""
    errors = _full_errors(record, settings)
    for index in range(len(weights)):
        z, d = record.written[index + 1], d_errors[index]
        if not _linear(index + 1, settings):
            d_written[index + 1] = d_written[index + 1] - 2 * z * record.errors[index] * d
        d_errors[index] = d = _with_slope(d, z, index + 1, settings)
        if index + 1 < len(weights):
            d_errors[index + 1] = d_errors[index + 1] + d @ weights[index + 1].mT
            d_weights[index + 1].baddbmm_(errors[index + 1].mT, d)

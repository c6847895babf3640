"""The write rules of the memory: a gradient step (Eq. 3) and a learned local update (Eq. 4).

Munkhdalai et al. 2019, sections 3.3 and 3.4. Both change every layer by a sum of outer products, one per
head,

    M^l  <-  M^l - beta^l * sum_h c_h * error_h * (z_h^{l-1})^T,

and differ only in the error. ``c_h`` is the normalisation of the write. The gated rules forget a part of what
was written before, and then write so (:func:`forget`).

:data:`WRITE_RULES` has all rules by name. A new one is a function and a line there; the reference loop of
``MNMCore`` then runs it, until a kernel has it too (``mnm_rl/kernels/__init__.py``).

Dimensions: ``B`` batch, ``H`` heads, ``L`` layers, ``D_l`` width of layer l (``D_0`` = d_k, ``D_L`` = d_v),
``G`` gates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mnm_rl.memory.function import OutputActivation, activations

Normalization = Literal["squared-norm", "width", "none"]
"""How the sum of outer products is scaled.

* ``"squared-norm"``: ``c_h = 1 / (H (|z_h^{l-1}|^2 + 1))``, the normalised least-mean-squares rule. A write
  never goes beyond its target, whatever the size of the activations.
* ``"width"``: ``c_h = 2 / (H D)`` with the width ``D`` of the layer that the error belongs to, as in public
  ports of MNM-p; for the gradient write ``D`` = d_v, so that Eq. 2 is a mean over the value as in Eq. 9.
* ``"none"``: the paper's formulas as printed, averaged over heads: ``1 / H`` for Eq. 4, ``2 / H`` for Eq. 3.
"""


def gradient_write(
    weights: Sequence[Tensor],
    keys: Tensor,
    values: Tensor,
    rates: Tensor,
    normalization: Normalization,
    output_activation: OutputActivation,
) -> list[Tensor]:
    """One step of gradient descent on the memory objective (Eq. 2, 3), written out by hand.

    Args:
        weights: M^1 ... M^L, each ``[B, D_l, D_{l-1}]``.
        keys: write keys ``[B, H, d_k]``.
        values: target values ``[B, H, d_v]``.
        rates: beta in [0, 1], ``[B, 1]`` or one per layer ``[B, L]``.
        normalization: scale of the write.
        output_activation: nonlinearity of the last layer.

    Returns:
        the new weights.
    """
    layers = activations(weights, keys, output_activation)
    error = layers[-1] - values
    if output_activation == "tanh":
        error = error * (1 - layers[-1].square())
    errors = [error]
    for weight, layer in zip(reversed(weights[1:]), reversed(layers[1:-1]), strict=True):
        errors.insert(0, (errors[0] @ weight) * (1 - layer.square()))
    scales = [write_scale(z, normalization, width=values.shape[2], plain=2.0) for z in layers[:-1]]
    return _apply(weights, errors, layers[:-1], scales, rates)


def local_write(
    weights: Sequence[Tensor],
    keys: Tensor,
    targets: Sequence[Tensor],
    rates: Tensor,
    normalization: Normalization,
    output_activation: OutputActivation,
) -> list[Tensor]:
    """The perceptron rule in every layer at once, towards predicted activations (Eq. 4).

    Args:
        weights: M^1 ... M^L, each ``[B, D_l, D_{l-1}]``.
        keys: write keys ``[B, H, d_k]``.
        targets: the activations z'^1 ... z'^L that the feedback prediction q_psi expects, ``[B, H, D_l]``.
        rates: beta in [0, 1], ``[B, 1]`` or one per layer ``[B, L]``.
        normalization: scale of the write.
        output_activation: nonlinearity of the last layer.

    Returns:
        the new weights.
    """
    layers = activations(weights, keys, output_activation)
    errors = [z - target for z, target in zip(layers[1:], targets, strict=True)]
    scales = [
        write_scale(z, normalization, width=error.shape[2], plain=1.0)
        for z, error in zip(layers[:-1], errors, strict=True)
    ]
    return _apply(weights, errors, layers[:-1], scales, rates)


def forget(weights: Sequence[Tensor], start: Sequence[Tensor], factor: Tensor) -> list[Tensor]:
    """Forget a part of all writes: ``M^l <- phi_0^l + alpha (M^l - phi_0^l)``; not in Munkhdalai et al. 2019.

    The gate of the gated delta rule (Yang, Kautz and Hatamizadeh 2024, "Gated Delta Networks"), whose memory
    is one matrix that starts at zero: ``S <- alpha S``. Here the memory is a network that starts at phi_0, so
    it goes back there, and ``alpha = 0`` is the memory after a reset: the writes are lost, the network is
    kept. Zero would be a saddle point: all z^l are zero for every key, so nothing is read, the gradient write
    (Eq. 3) is zero in all layers for good, and Eq. 4 needs L writes until something is read again.

    Args:
        weights: M^1 ... M^L, each ``[B, D_l, D_{l-1}]``.
        start: phi_0, each ``[1, D_l, D_{l-1}]``.
        factor: the forgetting factor alpha in [0, 1], ``[B, 1]``; 1 keeps everything, to the bit.

    Returns:
        the new weights.
    """
    return [torch.lerp(old, now, factor.unsqueeze(2)) for old, now in zip(start, weights, strict=True)]


def write_scale(inputs: Tensor, normalization: Normalization, width: int, plain: float) -> Tensor | float:
    """The scale c_h of a layer's write (:data:`Normalization`).

    Args:
        inputs: z^{l-1} of every head, ``[B, H, D_{l-1}]``.
        normalization: scale of the write.
        width: D of ``"width"``.
        plain: 1 for Eq. 4 and 2 for Eq. 3, which is the derivative of a square.

    Returns:
        ``[B, H, 1]``, or a number where it is the same for all keys.
    """
    heads = inputs.shape[1]
    if normalization == "squared-norm":
        return 1 / (heads * (inputs.square().sum(2, keepdim=True) + 1))
    return constant_scale(normalization, heads, width, plain)


def constant_scale(normalization: Normalization, heads: int, width: int, plain: float) -> float:
    """c_h where it does not depend on the activations; arguments as in :func:`write_scale`."""
    return 2 / (heads * width) if normalization == "width" else plain / heads


def _apply(
    weights: Sequence[Tensor],
    errors: Sequence[Tensor],
    inputs: Sequence[Tensor],
    scales: Sequence[Tensor | float],
    rates: Tensor,
) -> list[Tensor]:
    """``M^l - beta^l * sum_h c_h * error_h * (z_h^{l-1})^T`` for every layer."""
    betas = rates.expand(-1, len(weights)).unbind(1)
    return [
        torch.baddbmm(weight, (beta[:, None, None] * scale * error).mT, z, alpha=-1)
        for weight, error, z, scale, beta in zip(weights, errors, inputs, scales, betas, strict=True)
    ]


class WriteInputs(NamedTuple):
    """What a rule of :data:`WRITE_RULES` gets for one write, besides the weights."""

    keys: Tensor
    """k^w, ``[B, H, d_k]``."""
    values: Tensor
    """v^w, ``[B, H, d_v]``."""
    targets: Sequence[Tensor]
    """z'^1 ... z'^L of the feedback prediction, ``[B, H, D_l]``; empty for a rule that has none."""
    rates: Tensor
    """beta in [0, 1], ``[B, 1]`` or one per layer ``[B, L]``."""
    gates: Tensor
    """The rule's further numbers in [0, 1], ``[B, G]``."""
    start: Sequence[Tensor]
    """phi_0 in layers, each ``[1, D_l, D_{l-1}]``."""
    normalization: Normalization
    output_activation: OutputActivation


@dataclass(frozen=True)
class WriteRule:
    """A way to write, and what it needs of the controller."""

    write: Callable[[Sequence[Tensor], WriteInputs], list[Tensor]]
    """From M^1 ... M^L, each ``[B, D_l, D_{l-1}]``, to the new weights."""
    predicts_activations: bool = False
    """Whether the core has the feedback prediction q_psi (section 3.4)."""
    gates: Mapping[str, float] = field(default_factory=dict)
    """Numbers in (0, 1) that the controller emits besides beta, by name, with the value that each starts
    near. They reach the rule side by side in this order."""


def _gradient(weights: Sequence[Tensor], given: WriteInputs) -> list[Tensor]:
    return gradient_write(
        weights, given.keys, given.values, given.rates, given.normalization, given.output_activation
    )


def _local(weights: Sequence[Tensor], given: WriteInputs) -> list[Tensor]:
    return local_write(
        weights, given.keys, given.targets, given.rates, given.normalization, given.output_activation
    )


def _gated_local(weights: Sequence[Tensor], given: WriteInputs) -> list[Tensor]:
    return _local(forget(weights, given.start, given.gates), given)


def _gated_gradient(weights: Sequence[Tensor], given: WriteInputs) -> list[Tensor]:
    return _gradient(forget(weights, given.start, given.gates), given)


_FORGETTING_FACTOR = {"forgetting_factor": 0.99}

WRITE_RULES: dict[str, WriteRule] = {
    "local": WriteRule(_local, predicts_activations=True),
    "gradient": WriteRule(_gradient),
    "gated-local": WriteRule(_gated_local, predicts_activations=True, gates=_FORGETTING_FACTOR),
    "gated-gradient": WriteRule(_gated_gradient, gates=_FORGETTING_FACTOR),
}
"""Name -> rule: ``local`` is Eq. 4 (MNM-p), ``gradient`` Eq. 3 (MNM-g).

The gated rules first forget (:func:`forget`), then write by Eq. 4 or 3 with the activations of the memory
that is left. So the error is that of what would be recalled, as in the gated delta rule, whose write
``alpha S - beta (alpha S k - v) k^T`` is the same in one layer that starts at zero. Writing first would scale
the new association by alpha, too, and beta = 1 would no longer store the value.
"""
STANDARD_RULES: Mapping[str, WriteRule] = MappingProxyType(dict(WRITE_RULES))
"""The rules that kernels can stand for, whatever is put into :data:`WRITE_RULES` later."""

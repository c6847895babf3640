"""The memory function f_phi: a feed-forward network without biases whose weights are the memory content.

Munkhdalai et al. 2019, section 3.2. Every example of a batch has weights of its own.

Dimensions: ``B`` batch, ``H`` heads, ``L`` layers, ``D_l`` width of layer l; ``D_0`` = d_k is the key size
and ``D_L`` = d_v the value size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

OutputActivation = Literal["identity", "tanh"]
"""Nonlinearity of the last layer; the other layers use tanh."""


def layer_sizes(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Shapes ``(D_l, D_{l-1})`` of the weights M^1 ... M^L, from the widths ``D_0 ... D_L``."""
    return [(rows, columns) for columns, rows in pairwise(widths)]


def random_weights(widths: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
    """Fixed random initial weights phi_0, all layers in one vector ``[sum D_l * D_{l-1}]``.

    Entries of M^l are drawn from N(0, 1 / D_{l-1}), so that activations keep their size from layer to layer.
    """
    layers = [
        torch.randn(rows * columns, generator=generator) / math.sqrt(columns)
        for rows, columns in layer_sizes(widths)
    ]
    return torch.cat(layers)


def split_weights(flat: Tensor, widths: Sequence[int]) -> list[Tensor]:
    """View ``[B, sum D_l * D_{l-1}]`` as the layers' weights M^1 ... M^L, each ``[B, D_l, D_{l-1}]``."""
    sizes = layer_sizes(widths)
    parts = flat.split([rows * columns for rows, columns in sizes], dim=1)
    return [part.view(-1, rows, columns) for part, (rows, columns) in zip(parts, sizes, strict=True)]


def join_weights(weights: Sequence[Tensor]) -> Tensor:
    """The inverse of :func:`split_weights`."""
    return torch.cat([weight.flatten(1) for weight in weights], dim=1)


def activations(weights: Sequence[Tensor], keys: Tensor, output_activation: OutputActivation) -> list[Tensor]:
    """Forward pass z^l = sigma(M^l z^{l-1}) from z^0 = keys.

    Args:
        weights: M^1 ... M^L, each ``[B, D_l, D_{l-1}]``.
        keys: ``[B, H, d_k]``.
        output_activation: nonlinearity of the last layer.

    Returns:
        z^0 ... z^L, each ``[B, H, D_l]``.
    """
    layers = [keys]
    for index, weight in enumerate(weights):
        preactivation = layers[-1] @ weight.mT
        is_linear = index == len(weights) - 1 and output_activation == "identity"
        layers.append(preactivation if is_linear else torch.tanh(preactivation))
    return layers


def recall(weights: Sequence[Tensor], keys: Tensor, output_activation: OutputActivation) -> Tensor:
    """Values ``f_phi(keys)``, ``[B, H, d_v]``; arguments as in :func:`activations`."""
    return activations(weights, keys, output_activation)[-1]

"""What a scan takes: the core's parameters and settings, as tensors and numbers.

Dimensions: ``B`` batch, ``I`` input size, ``H`` heads, ``L`` memory layers of widths ``D_l`` (``D_0`` = d_k,
``D_L`` = d_v), ``N`` recall delays; sizes ``d_h`` controller, ``d_k`` key, ``d_v`` value,
``U`` = H (2 d_k + d_v) + d_k interaction vectors, ``F`` = sum D_l D_{l-1} weights of the memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from torch import Tensor

from mnm_rl.memory import Normalization, OutputActivation


class ScanParameters(NamedTuple):
    """The trained tensors inside the time loop, as the layers of ``MNMCore`` hold them."""

    weight_ih: Tensor
    """Controller, ``[4 d_h, I + d_v]``; gates in the order of ``torch.nn.LSTMCell``."""
    weight_hh: Tensor
    """``[4 d_h, d_h]``."""
    bias_ih: Tensor
    """``[4 d_h]``."""
    bias_hh: Tensor
    """``[4 d_h]``."""
    interaction_weight: Tensor
    """From h to read keys, write keys, write values and the rate vector, ``[U, d_h]``."""
    interaction_bias: Tensor
    """``[U]``."""
    rate_weight: Tensor
    """``[1, d_k]`` or, with one rate per layer, ``[L, d_k]``."""
    rate_bias: Tensor
    """``[1]`` or ``[L]``."""
    feedback_weight: Tensor | None
    """q_psi, ``[sum D_l, d_v]``; none for the gradient rule."""
    feedback_bias: Tensor | None
    """``[sum D_l]``."""


class MNMState(NamedTuple):
    """What an MNM core carries from step to step."""

    hidden: Tensor
    """h, ``[B, d_h]``."""
    cell: Tensor
    """The controller's cell state, ``[B, d_h]``."""
    read_value: Tensor
    """v^r of the last step, ``[B, d_v]``."""
    memory: Tensor
    """phi, the weights of all memory layers, ``[B, F]``."""
    recent_keys: Tensor
    """Write keys of the steps that a recall delay still reaches, the latest first, ``[B, N - 1, H, d_k]``."""
    recent_values: Tensor
    """Their target values, ``[B, N - 1, H, d_v]``."""


@dataclass(frozen=True)
class ScanSettings:
    """The settings of ``MNMConfig`` that the time loop depends on."""

    widths: tuple[int, ...]
    """D_0 ... D_L."""
    heads: int
    """H."""
    write_rule: str
    """A key of :data:`mnm_rl.memory.WRITE_RULES`."""
    rate_per_layer: bool
    normalization: Normalization
    output_activation: OutputActivation
    recall_weights: tuple[float, ...]
    """lambda_tau of Eq. 5."""

    @property
    def gradient_rule(self) -> bool:
        """Write by Eq. 3 instead of Eq. 4."""
        return self.write_rule == "gradient"

    def scale_terms(self, layer: int) -> tuple[int, float]:
        """``width`` and ``plain`` of layer l's :func:`mnm_rl.memory.write_scale`."""
        return (self.widths[-1], 2.0) if self.gradient_rule else (self.widths[layer], 1.0)

    @property
    def rates(self) -> int:
        """Numbers in beta: 1 or L."""
        return len(self.widths) - 1 if self.rate_per_layer else 1

    @property
    def tanh_output(self) -> bool:
        """Whether the memory's last layer has a nonlinearity."""
        return self.output_activation == "tanh"

    @property
    def vector_splits(self) -> tuple[int, int, int]:
        """Where write keys, write values and the rate vector begin in a step's interaction vectors."""
        keys, values = self.heads * self.widths[0], self.heads * self.widths[-1]
        return keys, 2 * keys, 2 * keys + values

    @property
    def layer_spans(self) -> list[tuple[int, int]]:
        """First and last place of z'^1 ... z'^L among the predicted activations."""
        return list(pairwise(accumulate(self.widths[1:], initial=0)))


class ScanResult(NamedTuple):
    """What a scan returns."""

    controls: Tensor
    """h_t and the mean read value v^r_t side by side, ``[T, B, d_h + d_v]``."""
    meta_loss: Tensor
    """Eq. 5 of every step, ``[T, B]``."""
    state: MNMState
    """The state after the last step."""

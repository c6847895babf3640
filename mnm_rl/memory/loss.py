"""How well the memory gives back what was written: the memory objective and the meta objective.

Dimensions: ``B`` batch, ``H`` heads, ``L`` layers, ``N`` remembered writes (recall delays
tau = 0 ... N - 1).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mnm_rl.memory.function import OutputActivation, recall


def memory_objective(
    weights: Sequence[Tensor], keys: Tensor, values: Tensor, output_activation: OutputActivation
) -> Tensor:
    """Squared recall error, summed over the value and averaged over heads (Munkhdalai et al. 2019, Eq. 2).

    What :func:`mnm_rl.memory.gradient_write` descends, in readable form: that function has the gradient
    written out and does not call this one. For tests, and for rules that take the gradient by autograd.

    Args:
        weights: M^1 ... M^L, each ``[B, D_l, D_{l-1}]``.
        keys: ``[B, H, d_k]``.
        values: ``[B, H, d_v]``.
        output_activation: nonlinearity of the memory's last layer.

    Returns:
        ``[B]``.
    """
    error = recall(weights, keys, output_activation) - values
    return error.square().sum(2).mean(1)


def meta_objective(recalled: Tensor, values: Tensor, delay_weights: Tensor) -> Tensor:
    """Recall error of the latest writes in the memory *after* the present write (Eq. 5, one time step).

    Eq. 5 sums over the value; here it is averaged, because the sum outweighs the task loss early on and
    drives the stored values to zero.

    Args:
        recalled: f_{phi_t} at the write keys of the last N steps, the present one first, ``[B, N, H, d_v]``.
        values: the target values that were written there, ``[B, N, H, d_v]``.
        delay_weights: lambda_tau, ``[N]``.

    Returns:
        ``[B]``.
    """
    per_step = (recalled - values).square().mean(dim=(2, 3))
    return per_step @ delay_weights

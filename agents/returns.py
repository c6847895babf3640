"""Advantages and returns of a rollout.

Dimensions: ``T`` time, ``B`` environments.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def advantages_and_returns(
    rewards: NDArray[np.float32],
    values: NDArray[np.float32],
    last_values: NDArray[np.float32],
    ended: NDArray[np.bool_],
    gamma: float,
    gae_lambda: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Generalized advantage estimation (Schulman et al. 2016); ``gae_lambda`` 1 gives Monte-Carlo returns.

    Args:
        rewards: ``[T, B]``.
        values: V of the observation before each step, ``[T, B]``.
        last_values: V of the observation after the last step, ``[B]``; used where the episode goes on.
        ended: whether the episode ended with the step, ``[T, B]``.
        gamma: discount per step.
        gae_lambda: 1 for the whole return, 0 for one-step targets.

    Returns:
        advantages and returns (advantage + value), ``[T, B]`` each.
    """
    discount = np.where(ended, np.float32(0), np.float32(gamma))
    next_values = np.concatenate([values[1:], last_values[None]])
    advantages = rewards + discount * next_values - values
    decay = discount * np.float32(gae_lambda)
    for step in range(len(rewards) - 2, -1, -1):
        advantages[step] += decay[step] * advantages[step + 1]
    return advantages, advantages + values

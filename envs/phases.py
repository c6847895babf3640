"""An episode has two parts: until the goal is found for the first time, and from then on.

Dimensions: ``T`` steps, ``N`` episodes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Phases(NamedTuple):
    """How a player searches, and how fast it returns to a goal that it has seen."""

    never_found: float
    """Share of the episodes without a find."""
    first_find: float
    """Mean number of steps until the first find, of the other episodes."""
    reward_per_step: float
    """Mean reward of the steps after the first find."""


def episode_phases(rewards: NDArray) -> Phases:
    """Tell the two parts of episodes apart.

    Args:
        rewards: of every step, shape ``[T, N]``. Only finding the goal gives a positive one.

    Returns:
        the numbers; nan where there is nothing to average.
    """
    horizon = len(rewards)
    found = rewards > 0
    ever = found.any(0)
    first_find = found.argmax(0)[ever] + 1
    later = np.arange(1, horizon + 1)[:, None] > first_find
    steps_left = int(later.sum())
    return Phases(
        never_found=1 - float(ever.mean()),
        first_find=float(first_find.mean()) if ever.any() else float("nan"),
        reward_per_step=float(rewards[:, ever][later].sum()) / steps_left if steps_left else float("nan"),
    )

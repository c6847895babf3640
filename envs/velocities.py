"""Environments of Gymnasium with the velocities hidden: they have to be remembered from earlier positions.

The same environments as RL Baselines3 Zoo's ``CartPoleNoVel-v1`` and so on, whose scores are published there.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

VELOCITIES: dict[str, tuple[int, ...]] = {
    "CartPole-v1": (1, 3),
    "MountainCar-v0": (1,),
    "MountainCarContinuous-v0": (1,),
    "Pendulum-v1": (2,),
    "LunarLander-v3": (2, 3, 5),
    "LunarLanderContinuous-v3": (2, 3, 5),
}
"""Id of an environment -> which numbers of its observation are velocities, as in RL Baselines3 Zoo."""


class ZeroedObservations(gymnasium.ObservationWrapper, RecordConstructorArgs):
    """Observe zero in place of some numbers of a vector; its size stays.

    Args:
        env: an environment whose observation is a vector.
        zeroed: which numbers, from 0.
    """

    def __init__(self, env: gymnasium.Env, zeroed: tuple[int, ...]):
        RecordConstructorArgs.__init__(self, zeroed=zeroed)
        super().__init__(env)
        self._mask = np.ones(env.observation_space.shape or (), env.observation_space.dtype)
        self._mask[list(zeroed)] = 0

    def observation(self, observation: NDArray[Any]) -> NDArray[Any]:
        """The vector with zeros in it."""
        return observation * self._mask

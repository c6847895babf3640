"""What a rollout stores: whole sequences, and the recurrent state at their start only.

Dimensions: ``T`` time, ``B`` environments.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.preprocessing import get_obs_shape
from torch import Tensor

from mnm_rl.sizes import check_fits

Observations = NDArray[Any] | dict[str, NDArray[Any]]


class RolloutSequence(NamedTuple):
    """A full rollout as tensors."""

    observations: Tensor | dict[str, Tensor]
    """``[T, B, *observation_shape]``."""
    actions: Tensor
    """As the policy chose them, before clipping, ``[T, B, *action_shape]``."""
    episode_starts: Tensor
    """Boolean ``[T, B]``."""
    action_masks: Tensor | None = None
    """Boolean ``[T, B, M]``, true for what was allowed; ``None`` where everything was."""


class SequenceRolloutBuffer(BaseBuffer):
    """Rollout buffer with whole sequences.

    Neither values nor log-probabilities are stored while acting, nor the recurrent state of every step:
    training starts with the parameters that acted, and computes them again in one pass over the sequence.

    Args:
        buffer_size: T.
        observation_space: of one environment; ``Dict`` included.
        action_space: of one environment.
        device: where the sequence goes.
        gae_lambda, gamma: taken because Stable-Baselines3 passes them to every rollout buffer.
        n_envs: B.

    Attributes:
        rewards: float32 ``[T, B]``.
        episode_starts: bool ``[T, B]``.
        state: the recurrent state before the first step.
        action_masks: bool ``[T, B, M]``, ``None`` if everything is allowed.

    Raises:
        ValueError: there is not enough memory.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: torch.device | str = "auto",
        gae_lambda: float = 1.0,
        gamma: float = 0.99,
        n_envs: int = 1,
    ):
        _check_rollout_fits(buffer_size, n_envs, observation_space, action_space)
        super().__init__(buffer_size, observation_space, action_space, device, n_envs)
        self.gae_lambda = gae_lambda
        self.gamma = gamma
        self.state: Any = None
        size = (buffer_size, n_envs)
        self._stored: dict[str, NDArray[Any]] = {
            key: np.zeros((*size, *get_obs_shape(space)), dtype=space.dtype)  # pyright: ignore
            for key, space in _parts(observation_space).items()
        }
        self.actions = np.zeros((*size, *(action_space.shape or ())), dtype=_action_dtype(action_space))
        self.rewards = np.zeros(size, dtype=np.float32)
        self.episode_starts = np.zeros(size, dtype=bool)
        self.action_masks: NDArray[np.bool_] | None = None

    def start(self, state: Any, mask_size: int | None = None) -> None:
        """Begin a new rollout.

        Args:
            state: the recurrent state before it.
            mask_size: M, if there are actions that are not allowed.

        Raises:
            ValueError: there is not enough memory for the masks.
        """
        self.reset()
        self.state = state
        if mask_size is None:
            self.action_masks = None
        elif self.action_masks is None or self.action_masks.shape[-1] != mask_size:
            shape = (self.buffer_size, self.n_envs, mask_size)
            check_fits(math.prod(shape), f"action masks of a rollout of {self.buffer_size} steps")
            self.action_masks = np.ones(shape, dtype=bool)

    def add(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        obs: Observations,
        actions: NDArray[Any],
        rewards: NDArray[Any],
        episode_starts: NDArray[np.bool_],
        action_masks: NDArray[np.bool_] | None = None,
    ) -> None:
        """Append a step of all environments.

        Args:
            obs: what the agent acted on, ``[B, *observation_shape]``.
            actions: ``[B, *action_shape]``.
            rewards: ``[B]``.
            episode_starts: whether an episode starts with ``obs``, ``[B]``.
            action_masks: what was allowed, ``[B, M]``; where :meth:`start` was told of masks, and only there.

        Raises:
            ValueError: there are masks that the rollout does not have, or none where it has them.
        """
        if (action_masks is None) != (self.action_masks is None):
            raise ValueError("A rollout has action masks in all of its steps or in none.")
        for key, stored in self._stored.items():
            part = obs[key] if isinstance(obs, dict) else obs
            stored[self.pos] = part.reshape(stored.shape[1:])
        self.actions[self.pos] = actions
        self.rewards[self.pos] = rewards
        self.episode_starts[self.pos] = episode_starts
        if self.action_masks is not None and action_masks is not None:
            self.action_masks[self.pos] = action_masks
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def sequence(self) -> RolloutSequence:
        """The rollout; on the CPU the tensors share memory with the buffer."""
        tensors = {key: self._tensor(stored) for key, stored in self._stored.items()}
        observations = tensors if isinstance(self.observation_space, spaces.Dict) else tensors[""]
        masks = None if self.action_masks is None else self._tensor(self.action_masks)
        return RolloutSequence(
            observations, self._tensor(self.actions), self._tensor(self.episode_starts), masks
        )

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.as_tensor(array, device=self.device)

    def _get_samples(self, batch_inds: NDArray[Any], env: Any = None) -> Any:
        raise NotImplementedError("A sequence is not sampled from; use sequence().")


def _check_rollout_fits(steps: int, n_envs: int, observations: spaces.Space, actions: spaces.Space) -> None:
    numbers = [
        *((get_obs_shape(space), space.dtype) for space in _parts(observations).values()),
        (actions.shape or (), _action_dtype(actions)),
        ((), np.float32),  # reward
        ((), bool),  # start
    ]
    per_step = sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in numbers)  # pyright: ignore[reportArgumentType]
    check_fits(int(steps) * int(n_envs) * per_step, f"a rollout with n_steps {steps} and n_envs {n_envs}")


def _parts(space: spaces.Space) -> dict[str, spaces.Space]:
    """The named parts of a Dict space; any other space is a single part without a name."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}


def _action_dtype(space: spaces.Space) -> Any:
    """Floating numbers come from the policy as float32, whatever the space holds."""
    return np.int64 if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) else np.float32

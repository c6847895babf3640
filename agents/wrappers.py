"""What the agent did, and what it earned, as part of what it observes."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from mnm_rl.agents.arguments import one_line
from mnm_rl.agents.flattening import LEAVES, flat_box, flatten, flattened

ACTION, REWARD, OBSERVATION = "previous_action", "previous_reward", "observation"
"""Keys of a Dict observation."""


class PreviousActionReward(VecEnvWrapper):
    """Observe the previous action and the reward that it earned, as in RL^2 (Duan et al. 2016).

    Both are zeros at the start of an episode. The last observation of an episode, ``terminal_observation``,
    has the action and the reward that led to it.

    A previous action is one-hot for choices, and numbers or bits otherwise; numbers are clipped to the bounds
    of the space. A previous reward is one number, as the environments give it: put ``VecNormalize`` around
    this wrapper, not inside of it, so that an agent observes the same in training and in evaluation.

    | observations                                        | with this wrapper                                |
    |-----------------------------------------------------|--------------------------------------------------|
    | numbers in up to two dimensions, choices, bits,     | one vector: those numbers, choices one-hot, then |
    | a Tuple of these                                    | the action, then the reward                      |
    | images, and other numbers of 3 dimensions or more   | a Dict: ``observation`` and the keys below       |
    | Dict                                                | the same with the keys ``previous_action`` and   |
    |                                                     | ``previous_reward``                              |

    There is nothing to be saved of it: an observation depends on the step that led to it alone.

    Args:
        venv: the environments.
        action: observe the previous action.
        reward: observe the previous reward.

    Raises:
        ValueError: neither is to be observed, a space cannot be served, or a Dict has such a key already.
    """

    def __init__(self, venv: VecEnv, action: bool = True, reward: bool = True):
        venv = flattened(venv)
        self._parts = _parts(venv.action_space, action, reward)
        super().__init__(venv, _observed_space(venv.observation_space, self._parts))

    def reset(self) -> VecEnvObs:
        """See base class."""
        zeros = {
            key: np.zeros((self.num_envs, size_of(part)), np.float32) for key, part in self._parts.items()
        }
        return self._joined(self.venv.reset(), zeros, (self.num_envs,))

    def step_async(self, actions: NDArray[Any]) -> None:
        """See base class."""
        self._actions = np.asarray(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """See base class."""
        observations, rewards, dones, infos = self.venv.step_wait()
        previous = self._previous(rewards)
        for row in np.flatnonzero(dones):
            last = infos[row].get("terminal_observation")
            if last is not None:
                led_to_it = {key: part[row] for key, part in previous.items()}
                infos[row]["terminal_observation"] = self._joined(last, led_to_it, ())
        for part in previous.values():
            part[dones] = 0
        return self._joined(observations, previous, (self.num_envs,)), rewards, dones, infos

    def _previous(self, rewards: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """``[B, A]`` and ``[B, 1]``."""
        found: dict[str, NDArray[np.float32]] = {}
        if ACTION in self._parts:
            space = self.venv.action_space
            actions = (
                np.clip(self._actions, space.low, space.high)
                if isinstance(space, spaces.Box)
                else self._actions
            )
            found[ACTION] = flatten(space, actions, (self.num_envs,))
        if REWARD in self._parts:
            found[REWARD] = np.array(rewards, np.float32).reshape(-1, 1)
        return found

    def _joined(
        self, observation: Any, previous: dict[str, NDArray[np.float32]], batch: tuple[int, ...]
    ) -> Any:
        """An observation, or one with a leading dimension, with what was before it."""
        space = self.venv.observation_space
        # Copies, because what is given here must not change with the next step.
        if isinstance(space, spaces.Dict):
            return {**observation, **{key: part.copy() for key, part in previous.items()}}
        if _is_kept_whole(space):
            return {OBSERVATION: observation, **{key: part.copy() for key, part in previous.items()}}
        return np.concatenate([flatten(space, observation, batch), *previous.values()], -1)


def size_of(space: spaces.Space) -> int:
    """Numbers in an element of a Box."""
    return int(np.prod(space.shape or ()))


def _parts(action_space: spaces.Space, action: bool, reward: bool) -> dict[str, spaces.Box]:
    """What is added to the observations."""
    parts = {}
    if action:
        if not isinstance(action_space, LEAVES):
            raise ValueError(
                f"The previous action cannot be observed where actions are {one_line(action_space)}."
            )
        box = flat_box(action_space)
        # Zeros stand for no action.
        parts[ACTION] = spaces.Box(np.minimum(box.low, 0), np.maximum(box.high, 0), dtype=np.float32)
    if reward:
        parts[REWARD] = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    if not parts:
        raise ValueError("Observe the previous action, the previous reward or both; neither was asked for.")
    return parts


def _observed_space(space: spaces.Space, parts: dict[str, spaces.Box]) -> spaces.Space:
    if isinstance(space, spaces.Dict):
        if taken := [key for key in parts if key in space.spaces]:
            raise ValueError(f"The observations have {', '.join(taken)} already: {one_line(space)}.")
        return spaces.Dict({**space.spaces, **parts})
    if not isinstance(space, LEAVES):
        raise ValueError(
            f"The previous action and reward cannot be added to observations {one_line(space)}; what can be: "
            "Box, Discrete, MultiDiscrete, MultiBinary, and a Dict."
        )
    if _is_kept_whole(space):
        return spaces.Dict({OBSERVATION: space, **parts})
    return flat_box(spaces.Tuple([space, *parts.values()]))


def _is_kept_whole(space: spaces.Space) -> bool:
    """Whether an observation has a shape that a network may make use of."""
    return isinstance(space, spaces.Box) and len(space.shape) >= 3

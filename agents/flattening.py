"""Tuple and nested spaces as the flat ones that an agent serves, as most environments of POPGym need it.

Observations become one vector: numbers as they are, choices one-hot. Actions become one MultiDiscrete, Box or
MultiBinary space, whichever all of their parts are of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from mnm_rl.agents.arguments import one_line

CHOICES = (spaces.Discrete, spaces.MultiDiscrete)
LEAVES = (*CHOICES, spaces.Box, spaces.MultiBinary)
PARTS = (spaces.Tuple, spaces.Dict)


class FlatSpaces(gymnasium.Wrapper, RecordConstructorArgs):
    """An environment whose Tuple or nested spaces are flat; what is flat already stays as it is.

    Agents wrap environments by themselves. It is for what they are not given: environments for
    ``evaluate_policy``, or for a VecEnv whose observations are nested.

    Args:
        env: the environment.

    Raises:
        ValueError: the parts of its actions are of different kinds.
    """

    def __init__(self, env: gymnasium.Env):
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._flat_observations = has_flat_form(env.observation_space)
        self._flat_actions = isinstance(env.action_space, PARTS)
        if self._flat_observations:
            self.observation_space = flat_box(env.observation_space)
        if self._flat_actions:
            self.action_space = flat_action_space(env.action_space)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """See base class."""
        observation, info = self.env.reset(**kwargs)
        return self._flat(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """See base class."""
        if self._flat_actions:
            action = nested_action(self.env.action_space, action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._flat(observation), reward, terminated, truncated, info

    def _flat(self, observation: Any) -> Any:
        return flatten(self.env.observation_space, observation) if self._flat_observations else observation


class VecFlatSpaces(VecEnvWrapper):
    """The same for a VecEnv whose observations are a Tuple of plain ones, or whose actions have parts.

    Raises:
        ValueError: its observations are nested, which Stable-Baselines3 cannot put together, or the parts of
            its actions are of different kinds.
    """

    def __init__(self, venv: VecEnv):
        space = venv.observation_space
        self._flat_observations = has_flat_form(space)
        if self._flat_observations and not _is_tuple_of_leaves(space):
            raise ValueError(
                f"The observations {one_line(space)} of a VecEnv cannot be made flat any more; wrap each "
                "environment in mnm_rl.agents.FlatSpaces before they are put together."
            )
        self._flat_actions = isinstance(venv.action_space, PARTS)
        super().__init__(
            venv,
            flat_box(space) if self._flat_observations else space,
            flat_action_space(venv.action_space) if self._flat_actions else venv.action_space,
        )

    def reset(self) -> VecEnvObs:
        """See base class."""
        return self._flat(self.venv.reset())

    def step_async(self, actions: NDArray[Any]) -> None:
        """See base class."""
        if self._flat_actions:
            self.venv.step_async([nested_action(self.venv.action_space, action) for action in actions])  # pyright: ignore
        else:
            self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """See base class."""
        observations, rewards, dones, infos = self.venv.step_wait()
        if self._flat_observations:
            for row in np.flatnonzero(dones):
                last = infos[row].get("terminal_observation")
                if last is not None:
                    infos[row]["terminal_observation"] = flatten(self.venv.observation_space, last)
        return self._flat(observations), rewards, dones, infos

    def _flat(self, observations: Any) -> Any:
        if not self._flat_observations:
            return observations
        return flatten(self.venv.observation_space, observations, (self.num_envs,))


def flattened(env: Any) -> Any:
    """An environment or a VecEnv with flat spaces; itself if they are flat, or nothing is known about them.

    Raises:
        ValueError: as :class:`FlatSpaces` and :class:`VecFlatSpaces`.
    """
    if not isinstance(env, gymnasium.Env | VecEnv):
        return env
    if not has_flat_form(env.observation_space) and not isinstance(env.action_space, PARTS):
        return env
    return VecFlatSpaces(env) if isinstance(env, VecEnv) else FlatSpaces(env)


def has_flat_form(space: spaces.Space) -> bool:
    """Whether a space is a Tuple, or a Dict with one or a Dict in it, and made of numbers and choices."""
    nested = isinstance(space, spaces.Tuple) or (
        isinstance(space, spaces.Dict) and any(isinstance(part, PARTS) for part in space.spaces.values())
    )
    leaves = list(_leaves(space))
    return nested and bool(leaves) and all(isinstance(leaf, LEAVES) for leaf in leaves)


def flat_box(space: spaces.Space) -> spaces.Box:
    """The vectors that :func:`flatten` makes, of float32."""
    bounds = [_bounds(leaf) for leaf in _leaves(space)]
    low, high = (np.concatenate(part).astype(np.float32) for part in zip(*bounds, strict=True))
    return spaces.Box(low, high, dtype=np.float32)


def flatten(space: spaces.Space, value: Any, batch: tuple[int, ...] = ()) -> NDArray[np.float32]:
    """An observation as a vector: numbers and bits as they are, a choice one-hot.

    Args:
        space: what it is of.
        value: the observation; each of its arrays has the dimensions ``batch`` first.
        batch: leading dimensions.

    Returns:
        ``[*batch, N]``, the parts in the order of the space.
    """
    if isinstance(space, PARTS):
        parts = _named_parts(space)
        return np.concatenate([flatten(part, value[name], batch) for name, part in parts], -1)
    numbers = np.asarray(value)
    if isinstance(space, spaces.Discrete):
        return one_hot(numbers.reshape(batch) - space.start, int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        chosen = (numbers - space.start).reshape(*batch, -1)
        sizes = space.nvec.ravel()
        return np.concatenate([one_hot(chosen[..., k], int(size)) for k, size in enumerate(sizes)], -1)
    return numbers.reshape(*batch, -1).astype(np.float32)


def one_hot(chosen: NDArray[Any], size: int) -> NDArray[np.float32]:
    """``[*batch]`` choices, from 0, as ``[*batch, size]`` numbers."""
    return (np.arange(size) == chosen[..., None]).astype(np.float32)


def flat_action_space(space: spaces.Space) -> spaces.Space:
    """The one space for actions that have parts; choices count from 0.

    Raises:
        ValueError: the parts are not of one kind.
    """
    leaves = list(_leaves(space))
    if leaves and all(isinstance(leaf, CHOICES) for leaf in leaves):
        return spaces.MultiDiscrete(np.concatenate([_sizes(leaf) for leaf in leaves]))
    if leaves and all(isinstance(leaf, spaces.Box) for leaf in leaves):
        return flat_box(space)
    if leaves and all(isinstance(leaf, spaces.MultiBinary) for leaf in leaves):
        return spaces.MultiBinary(sum(int(np.prod(leaf.shape)) for leaf in leaves if leaf.shape is not None))
    kinds = ", ".join(dict.fromkeys(type(leaf).__name__ for leaf in leaves)) or "nothing"
    raise ValueError(
        f"The action space {one_line(space)} cannot be served: its parts are of {kinds}, and they can be all "
        "of Discrete and MultiDiscrete, all of Box, or all of MultiBinary."
    )


def nested_action(space: spaces.Space, action: NDArray[Any]) -> Any:
    """The inverse: an action ``[A]`` of :func:`flat_action_space` as the environment takes it."""
    return _built(space, iter(np.asarray(action).ravel()))


def _built(space: spaces.Space, numbers: Iterator[Any]) -> Any:
    """Takes as many numbers as the space needs."""
    if isinstance(space, spaces.Tuple):
        return tuple(_built(part, numbers) for part in space.spaces)
    if isinstance(space, spaces.Dict):
        return {name: _built(part, numbers) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Discrete):
        return np.int64(next(numbers)) + space.start
    shape = space.shape or ()
    values = np.array([next(numbers) for _ in range(int(np.prod(shape)))]).reshape(shape)
    if isinstance(space, spaces.MultiDiscrete):
        values = values + space.start
    elif space.dtype is not None and np.issubdtype(space.dtype, np.integer):
        values = np.rint(values)
    return values.astype(space.dtype)


def _leaves(space: spaces.Space) -> Iterator[spaces.Space]:
    if isinstance(space, PARTS):
        for _, part in _named_parts(space):
            yield from _leaves(part)
    else:
        yield space


def _named_parts(space: spaces.Tuple | spaces.Dict) -> list[tuple[Any, spaces.Space]]:
    return list(enumerate(space.spaces) if isinstance(space, spaces.Tuple) else space.spaces.items())


def _is_tuple_of_leaves(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Tuple) and not any(isinstance(part, PARTS) for part in space.spaces)


def _sizes(leaf: Any) -> NDArray[np.int64]:
    """Of the choices of a Discrete or MultiDiscrete."""
    return np.atleast_1d(leaf.n if isinstance(leaf, spaces.Discrete) else leaf.nvec).ravel().astype(np.int64)


def _bounds(leaf: spaces.Space) -> tuple[NDArray[Any], NDArray[Any]]:
    if isinstance(leaf, spaces.Box):
        return leaf.low.ravel(), leaf.high.ravel()
    size = int(_sizes(leaf).sum() if isinstance(leaf, CHOICES) else np.prod(leaf.shape or ()))
    return np.zeros(size), np.ones(size)

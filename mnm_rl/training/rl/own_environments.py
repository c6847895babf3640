"""Environments of users: what goes wrong in them is told by name and place, not as a fault of the program."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from mnm_rl.agents.masks import METHOD, ask_for_masks, offers_masks


class EnvironmentFault(ValueError):
    """An environment failed, or returned what none may."""


class NamedFaults(gymnasium.Wrapper):
    """An environment whose errors say where in it they were raised.

    It also looks at what would fail far from its cause: what ``reset()`` returns, and the shape of a Box
    observation.

    Args:
        env: the environment.
        name: what to call it.
    """

    def __init__(self, env: gymnasium.Env, name: str):
        super().__init__(env)
        self._name = name
        space = env.observation_space
        self._shape = space.shape if isinstance(space, spaces.Box) else None
        if env.has_wrapper_attr(METHOD):
            self.action_masks = self._action_masks

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """See base class."""
        result = self._called("reset", **options)
        if not isinstance(result, tuple) or len(result) != 2:
            got = f"{len(result)} values" if isinstance(result, tuple) else f"one {type(result).__name__}"
            raise EnvironmentFault(f"{self._name}: reset() returned {got}, not an observation and an info.")
        self._check_observation("reset", result[0])
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """See base class."""
        result = self._called("step", action)
        self._check_observation("step", result[0])
        return result

    def _action_masks(self) -> Any:
        try:
            return self.env.get_wrapper_attr(METHOD)()
        except Exception as error:
            raise self._fault(METHOD, error) from error

    def _called(self, method: str, *arguments: Any, **options: Any) -> Any:
        try:
            return getattr(self.env, method)(*arguments, **options)
        except EnvironmentFault:
            raise
        except Exception as error:
            raise self._fault(method, error) from error

    def _fault(self, method: str, error: Exception) -> EnvironmentFault:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}, line {last.lineno}"
        said = f"{type(error).__name__}: {error}".rstrip(".: ")
        return EnvironmentFault(f"{self._name} failed in {method}(): {said} ({where}).")

    def _check_observation(self, method: str, observation: Any) -> None:
        if self._shape is None or getattr(observation, "shape", None) == self._shape:
            return
        if (shape := np.shape(observation)) != self._shape:
            raise EnvironmentFault(
                f"{self._name}: {method}() returned an observation of shape {list(shape)}, its "
                f"observation_space has {list(self._shape)}."
            )


class NamedSubprocVecEnv(SubprocVecEnv):
    """Environments in processes of their own, of which one may end."""

    def reset(self) -> VecEnvObs:
        """See base class."""
        try:
            return super().reset()
        except (EOFError, ConnectionError) as error:
            raise self._fault() from error

    def step_async(self, actions: NDArray[Any]) -> None:
        """See base class."""
        try:
            super().step_async(actions)
        except (EOFError, ConnectionError) as error:
            raise self._fault() from error

    def step_wait(self) -> VecEnvStepReturn:
        """See base class."""
        try:
            return super().step_wait()
        except (EOFError, ConnectionError) as error:
            raise self._fault() from error

    def close(self) -> None:
        """See base class; processes that have ended need not be told to."""
        for process in self.processes:
            if not process.is_alive():
                self.waiting = False
        try:
            super().close()
        except (EOFError, ConnectionError):
            self.closed = True

    def _fault(self) -> EnvironmentFault:
        return EnvironmentFault("The process of an environment has ended; what it said stands above.")


def try_out(env: VecEnv) -> None:
    """Reset environments that are for nothing else, take one step, and close them.

    Raises:
        ValueError: they fail, or what they return cannot be used.
    """
    try:
        env.reset()
        if offers_masks(env):
            ask_for_masks(env)
        else:
            env.action_space.seed(0)
            env.step(np.array([env.action_space.sample() for _ in range(env.num_envs)]))
    finally:
        env.close()

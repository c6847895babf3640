"""The statistics of VecNormalize: an agent is saved with them, and cannot play well without them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from mnm_rl.agents.arguments import one_line
from mnm_rl.agents.spaces import is_finite

STATISTICS = ("obs_rms", "ret_rms")
"""Attributes of VecNormalize that it learns ..."""
SETTINGS = ("norm_obs", "norm_reward", "norm_obs_keys", "clip_obs", "clip_reward", "epsilon", "gamma")
"""... and those that it is made with."""

DEFAULTS = {"norm_obs": True, "norm_reward": True, "norm_obs_keys": None}
"""Of the settings, for agents that were saved without them."""


def saved_normalization(run_state: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Statistics and settings of the VecNormalize that an agent was trained in.

    Args:
        run_state: what the agent was saved with.

    Returns:
        name -> value; ``None`` if there was no VecNormalize.
    """
    states = (run_state or {}).get("env") or [None]
    for kind, attributes in states[:-1]:
        if kind == VecNormalize.__name__:
            return attributes
    return None


def set_statistics(env: VecEnv, saved: Mapping[str, Any] | None, only_if_new: bool = False) -> None:
    """Give the VecNormalize around an environment, if there is one, the statistics that an agent has.

    Args:
        env: with its wrappers.
        saved: by :func:`saved_normalization`; nothing is done without.
        only_if_new: leave a VecNormalize alone that has seen anything.

    Raises:
        ValueError: they do not fit the observations.
    """
    wrapper = unwrap_vec_normalize(env)
    if wrapper is None or saved is None or (only_if_new and not _is_new(wrapper)):
        return
    check_saved(saved, wrapper.venv.observation_space)
    vars(wrapper).update({name: copy.deepcopy(saved[name]) for name in STATISTICS if name in saved})


def normalized(env: VecEnv, saved: Mapping[str, Any] | None) -> VecEnv:
    """An environment whose observations are normalised as an agent knows them, by statistics that stay.

    Args:
        env: as the agent's was before VecNormalize.
        saved: by :func:`saved_normalization`; the environment stays as it is without.

    Raises:
        ValueError: the statistics do not fit the observations.
    """
    if saved is None:
        return env
    settings = {**DEFAULTS, **{name: saved[name] for name in SETTINGS if name in saved}}
    check_saved(saved, env.observation_space)
    wrapper = VecNormalize(env, training=False, **{**settings, "norm_reward": False})
    set_statistics(wrapper, saved)
    return wrapper


def normalized_observation(observation: Any, saved: Mapping[str, Any] | None) -> Any:
    """An observation, or a batch of them, as ``VecNormalize`` would show it to the agent.

    Args:
        observation: an array, or a dictionary of such.
        saved: by :func:`saved_normalization`; the observation stays as it is without.
    """
    settings = {**DEFAULTS, **(saved or {"norm_obs": False})}
    statistics = settings.get("obs_rms")
    if not settings["norm_obs"] or statistics is None:
        return observation

    def scaled(part: Any, running: RunningMeanStd) -> NDArray[np.float32]:
        spread = np.sqrt(running.var + settings["epsilon"])
        numbers = np.clip((part - running.mean) / spread, -settings["clip_obs"], settings["clip_obs"])
        return numbers.astype(np.float32)

    if not isinstance(observation, dict):
        return scaled(observation, statistics)
    return {
        key: scaled(part, statistics[key]) if key in statistics else part for key, part in observation.items()
    }


def check_normalised_rewards(env: VecEnv, rewards: NDArray[Any]) -> None:
    """Hold the rewards of a step ``[B]`` to finite numbers, where VecNormalize has already counted them.

    A reward that is not finite costs an agent one update, but VecNormalize all that come after it.

    Raises:
        ValueError: one is not finite.
    """
    if is_finite(rewards):
        return
    wrapper = unwrap_vec_normalize(env)
    if wrapper is not None and wrapper.norm_reward:
        given = wrapper.get_original_reward()
        number = int(np.flatnonzero(~np.isfinite(rewards))[0])
        raise ValueError(
            f"Environment {number} has returned the reward {given[number]}; only finite rewards can be "
            "normalised."
        )


def normalization_of(wrapper: VecNormalize) -> dict[str, Any]:
    """Its statistics and settings, safe from later changes."""
    names = (*STATISTICS, *SETTINGS)
    return {name: copy.deepcopy(getattr(wrapper, name)) for name in names if hasattr(wrapper, name)}


def check_saved(saved: Mapping[str, Any], space: spaces.Space) -> None:
    """Make sure of statistics and settings, which may come from anybody's file.

    Args:
        saved: by :func:`saved_normalization`.
        space: of the observations.

    Raises:
        ValueError: they are not finite, not of the observations' shape, or of another type.
    """
    for name, holds in KINDS.items():
        if name in saved and not holds(saved[name]):
            raise ValueError(f"VecNormalize cannot have the setting {name} {one_line(repr(saved[name]))}.")
    parts = [("ret_rms", saved["ret_rms"], ())] if "ret_rms" in saved else []
    observations = saved.get("obs_rms")
    if isinstance(observations, dict) and isinstance(space, spaces.Dict):
        if unknown := [str(key) for key in observations if key not in space.spaces]:
            raise ValueError(
                f"The observations have no {', '.join(unknown)}, but VecNormalize has statistics."
            )
        parts += [(f"obs_rms of {key}", part, space[key].shape) for key, part in observations.items()]
    elif observations is not None:
        parts.append(("obs_rms", observations, space.shape))
    for name, part, shape in parts:
        if not isinstance(part, RunningMeanStd) or not _fits(part, shape):
            raise ValueError(
                f"The statistics of VecNormalize, {name}, are not finite ones of the shape {shape}."
            )


def _is_positive(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < value < np.inf


KINDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("norm_obs", "norm_reward"), lambda value: isinstance(value, bool)),
    **dict.fromkeys(("clip_obs", "clip_reward", "epsilon"), _is_positive),
    "gamma": lambda value: isinstance(value, Real) and 0 <= value <= 1,
    "norm_obs_keys": lambda value: value is None or all(isinstance(key, str) for key in value),
}
"""Setting -> which values it may have."""


def _fits(part: RunningMeanStd, shape: tuple[int, ...] | None) -> bool:
    numbers = [getattr(part, name, None) for name in ("mean", "var")]
    for each in numbers:
        array = np.asarray(each)
        if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
            return False
    count = getattr(part, "count", None)
    is_count = isinstance(count, int | float | np.number) and bool(np.isfinite(count)) and count > 0
    return is_count and bool((np.asarray(part.var) >= 0).all())


def _is_new(wrapper: VecNormalize) -> bool:
    """Whether it has never seen an observation or a reward."""
    fresh = RunningMeanStd().count
    return wrapper.ret_rms.count == fresh and not (
        wrapper.norm_obs and any(part.count != fresh for part in _observation_parts(wrapper))
    )


def _observation_parts(wrapper: VecNormalize) -> list[RunningMeanStd]:
    found: Any = wrapper.obs_rms
    return list(found.values()) if isinstance(found, dict) else [found]

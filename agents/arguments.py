"""Checks of what an agent is made from, trained with, saved to and loaded from, beyond its own numbers.

What Stable-Baselines3 takes is allowed here too; what it would stumble over later is named before anything is
built.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import gymnasium
import torch
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from mnm_rl.agents.settings import COUNT, Allowed, check_flag, check_number, check_optional_number

SEED = Allowed("a whole number from 0 to 2^32 - 1", Integral, lambda value: 0 <= value < 2**32)
STEPS = Allowed(
    "a whole number that is not negative", Real, lambda value: value >= 0 and float(value).is_integer()
)
NOT_CHANGED_BY_LOAD = ("self", "policy", "env", "device", "stats_window_size", "_init_setup_model")
"""Arguments of an agent that are not attributes of the same name."""
BY_THE_AGENT = (
    *("buffer_size", "observation_space", "action_space", "device", "gae_lambda", "gamma", "n_envs"),
)
"""Arguments of a rollout buffer that every agent gives itself."""


def check_base_settings(agent: Any) -> None:
    """Settings that every agent of Stable-Baselines3 has, where the agent keeps them.

    Raises:
        ValueError: one has a value that is not allowed.
        TypeError: one is of another type, or the rollout buffer does not take an argument.
    """
    check_number("stats_window_size", agent._stats_window_size, COUNT)
    # A bool is a whole number to Stable-Baselines3, and verbose=True is often written.
    if not isinstance(agent.verbose, Integral) or agent.verbose < 0:
        raise ValueError(f"verbose must be 0, 1 or 2, got {agent.verbose!r}.")
    check_seed(agent.seed)
    folder = agent.tensorboard_log
    if folder is not None and not isinstance(folder, str | os.PathLike):
        raise TypeError(f"tensorboard_log must be a folder or None, got {folder!r}.")
    check_keywords(
        "rollout_buffer_kwargs", agent.rollout_buffer_kwargs, agent.rollout_buffer_class, BY_THE_AGENT
    )


def check_seed(seed: object) -> None:
    """Raise a ValueError unless Python's, numpy's and torch's generators take the seed, or it is None."""
    check_optional_number("seed", seed, SEED)


def check_device(device: Any) -> None:
    """Make sure that a policy can be on a device; without a GPU, "cuda" is Stable-Baselines3's "cpu".

    Raises:
        ValueError: torch does not know it, it is not here, or it holds no numbers.
    """
    allowed = 'device must be "auto", "cpu", "cuda" or another device of torch that is here'
    if isinstance(device, str) and device == "auto":
        return
    try:
        found = torch.device(device)
        if found.type == "cuda" and not torch.cuda.is_available():
            return
        torch.zeros(1, device=found).cpu()
    # torch raises many kinds, which differ from device to device.
    except Exception as error:
        raise ValueError(f"{allowed}, got {device!r}.") from error


def made_env(env: Any, verbose: int) -> GymEnv:
    """The environment itself, made by Gymnasium if it is an id.

    Raises:
        ValueError: there is no such id, or it needs what is not installed.
        TypeError: it is no environment.
    """
    if not isinstance(env, str):
        check_env(env)
        return env
    try:
        return maybe_make_env(env, verbose)
    except (gymnasium.error.Error, ImportError) as error:
        raise ValueError(f"Gymnasium cannot make the env {env!r}: {one_line(error)}") from error


def check_env(env: object) -> None:
    """Raise a TypeError unless it is a single environment or a VecEnv."""
    if isinstance(env, gymnasium.Env | VecEnv):
        return
    # Stable-Baselines3 also takes what has the methods of OpenAI's Gym, if that is installed.
    parts = ("observation_space", "action_space", "reset", "step")
    is_vector = isinstance(env, gymnasium.vector.VectorEnv)
    if isinstance(env, type) or is_vector or not all(hasattr(env, part) for part in parts):
        raise TypeError(
            "env must be an environment of Gymnasium, its id, or a VecEnv of Stable-Baselines3, "
            f"got {one_line(repr(env))}."
        )


def check_learn(
    agent: Any,
    total_timesteps: object,
    callback: object,
    log_interval: object,
    tb_log_name: object,
    reset_num_timesteps: object,
    progress_bar: object,
) -> None:
    """Make sure that an agent can learn, with the arguments of its ``learn()``.

    Raises:
        ValueError: an argument has a value that is not allowed, or the agent has no environment.
        TypeError: an argument is of another type.
    """
    if getattr(agent, "env", None) is None:
        raise ValueError("The agent has no env to learn in; give it one with set_env() or load(path, env).")
    check_number("total_timesteps", total_timesteps, STEPS)
    check_optional_number("log_interval", log_interval, COUNT)
    many = callback if isinstance(callback, list) else []
    fits = callback is None or callable(callback) or isinstance(callback, BaseCallback | list)
    if not fits or not all(isinstance(each, BaseCallback) for each in many):
        raise TypeError(
            f"callback must be a callback of Stable-Baselines3, a list of such, a function or None, "
            f"got {one_line(repr(callback))}."
        )
    if not isinstance(tb_log_name, str):
        raise TypeError(f"tb_log_name must be a text, got {tb_log_name!r}.")
    check_flag("reset_num_timesteps", reset_num_timesteps)
    check_flag("progress_bar", progress_bar)
    if agent.tensorboard_log is not None:
        check_can_hold("tensorboard_log", Path(agent.tensorboard_log))


def check_path(path: object) -> None:
    """Raise a TypeError unless it is the path of a file, or a file that is open."""
    if not isinstance(path, str | os.PathLike) and not hasattr(path, "read") and not hasattr(path, "write"):
        raise TypeError(f"path must be the path of a file or an open file, got {path!r}.")


def check_can_be_saved(path: object) -> None:
    """Make sure that a file can be made under a path, with the folders above it.

    Raises:
        ValueError: a file is in the way.
        TypeError: as :func:`check_path`.
    """
    check_path(path)
    if isinstance(path, str | os.PathLike):
        check_can_hold("path", Path(path).parent)


def check_can_hold(name: str, folder: Path) -> None:
    """Raise a ValueError that begins with the name unless a folder is there or can be made."""
    for part in (folder, *folder.parents):
        if os.path.lexists(part):
            if not part.is_dir():
                raise ValueError(f"{name} cannot be in or below {part}, which is not a folder.")
            return


def check_changed(agent: type, saved: Iterable[str], changes: Mapping[str, object]) -> None:
    """Make sure that what is changed when an agent is loaded is there.

    Args:
        agent: its class.
        saved: names of the attributes in the file.
        changes: attributes to change.

    Raises:
        TypeError: an agent of this class has no such attribute.
    """
    parameters = inspect.signature(agent).parameters.values()
    settings = [
        each.name
        for each in parameters
        if each.kind is not each.VAR_KEYWORD and each.name not in NOT_CHANGED_BY_LOAD
    ]
    known = {*settings, *saved}
    if unknown := [name for name in changes if name not in known]:
        raise TypeError(
            f"load() cannot change {', '.join(unknown)}, which a saved {agent.__name__} does not have; "
            f"its settings: {', '.join(settings)}."
        )


def check_keywords(
    name: str, keywords: object, function: Callable[..., Any], given: Iterable[str] = ()
) -> None:
    """Make sure that a function takes keyword arguments.

    Args:
        name: of the setting that they are.
        keywords: anything; ``None`` is no arguments.
        function: that is called with them.
        given: arguments that it gets anyway.

    Raises:
        TypeError: they are no dictionary, or the function does not take one of them.
    """
    if keywords is None:
        return
    check_dictionary(name, keywords)
    assert isinstance(keywords, Mapping)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some functions written in C do not say what they take
        return
    taken = {*given, "self"}
    named = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    allowed = [each for each in named if each not in taken]
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters)
    if unknown := [key for key in keywords if key in taken or not (takes_any or key in allowed)]:
        owner = getattr(function, "__name__", repr(function))
        known = f"it takes: {', '.join(allowed)}" if allowed else "it takes none"
        raise TypeError(f"{name} has {', '.join(unknown)}, which {owner} does not take; {known}.")


def check_dictionary(name: str, value: object) -> None:
    """Raise a TypeError unless the value is a dictionary whose keys are names."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"{name} must be a dictionary of names and values, got {one_line(repr(value))}.")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Say in one line what Stable-Baselines3 says in several, such as which spaces differ."""
    try:
        yield
    except ValueError as error:
        if "\n" not in str(error):
            raise
        raise ValueError(one_line(error)) from error


def one_line(text: object) -> str:
    """The text without its line breaks, cut where it is too long to be read."""
    words = " ".join(str(text).split())
    return words if len(words) <= 500 else f"{words[:500]} ..."

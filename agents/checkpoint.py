"""What a checkpoint holds beyond parameters, so that a run that was stopped goes on as if it had not been.

All of it is taken at the start of a rollout, when no experience is waiting to be learned from. A checkpoint
written later in the rollout therefore goes on from the rollout's start, with the same outcome.
"""

from __future__ import annotations

import copy
import json
import random
import warnings
import zipfile
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.save_util import json_to_data
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecFrameStack, VecMonitor, VecNormalize

from mnm_rl.agents.normalization import SETTINGS, check_saved, normalization_of
from mnm_rl.agents.safe_loading import (
    AnotherAlgorithmError,
    check_algorithm,
    check_whole,
    read_untrusted,
    with_suffix,
)
from mnm_rl.cores import CoreChoice, core_name

WRAPPER_STATE: dict[type[VecEnvWrapper], tuple[str, ...]] = {
    VecMonitor: ("episode_returns", "episode_lengths", "episode_count"),
    VecNormalize: ("obs_rms", "ret_rms", "returns", "old_obs", "old_reward"),
    VecFrameStack: ("stacked_obs",),
}


def random_state() -> dict[str, Any]:
    """State of the generators of Python, numpy and torch."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002 - the generator that Stable-Baselines3 seeds
        "torch": torch.get_rng_state().numpy(),
        "cuda": [state.numpy() for state in torch.cuda.get_rng_state_all()] if _cuda_in_use() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """The inverse of :func:`random_state`."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(torch.from_numpy(state["torch"]))
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([torch.from_numpy(part) for part in state["cuda"]])


def saves_its_state(env: VecEnv) -> bool:
    """Whether an environment offers ``get_state``, so that a run can go on exactly where it was."""
    return hasattr(env.unwrapped, "get_state")


def env_state(env: VecEnv) -> list[Any]:
    """State of an environment and of its wrappers.

    Returns:
        (class, its attributes) of each wrapper, from outside, then what ``get_state`` says. Without
        ``get_state``: of the wrappers the statistics and settings of VecNormalize only, then ``None``.
    """
    states: list[Any] = []
    whole = saves_its_state(env)
    while isinstance(env, VecEnvWrapper):
        names = _wrapper_attributes(env) if whole else ()
        attributes = {name: copy.deepcopy(getattr(env, name)) for name in names if hasattr(env, name)}
        if isinstance(env, VecNormalize):
            attributes |= normalization_of(env)
        states.append((type(env).__name__, attributes))
        env = env.venv
    return [*states, env.get_state() if whole else None]  # pyright: ignore[reportAttributeAccessIssue]


def set_env_state(env: VecEnv, states: list[Any]) -> None:
    """The inverse of :func:`env_state`; of an environment without ``set_state`` see :func:`set_statistics`.

    Raises:
        ValueError: the environment has other wrappers than the one whose state it is, or wrappers without
            such attributes.
    """
    wrappers = []
    while isinstance(env, VecEnvWrapper):
        wrappers.append(env)
        env = env.venv
    if [name for name, _ in states[:-1]] != [type(wrapper).__name__ for wrapper in wrappers]:
        raise ValueError("The environment has other wrappers than the one that the run was saved with.")
    for wrapper, (_, attributes) in zip(wrappers, states[:-1], strict=True):
        own = _wrapper_attributes(wrapper)
        settings = SETTINGS if isinstance(wrapper, VecNormalize) else ()
        if unknown := sorted(set(attributes) - {*own, *settings}):
            raise ValueError(f"A {type(wrapper).__name__} has no state {', '.join(map(str, unknown))}.")
        if isinstance(wrapper, VecNormalize):
            check_saved(attributes, wrapper.venv.observation_space)
        vars(wrapper).update({name: copy.deepcopy(attributes[name]) for name in own if name in attributes})
    env.set_state(states[-1])  # pyright: ignore[reportAttributeAccessIssue]


def check_checkpoint(
    path: Any, core: CoreChoice | None = None, trusted: bool = False, algorithm: str | None = None
) -> dict[str, Any]:
    """Make sure that a file is a whole checkpoint, and of the expected core.

    Args:
        path: file, or file-like object.
        core: name or class of the core that it should be of; any if not given.
        trusted: unpickle the policy's keyword arguments whatever they are, which may run code.
        algorithm: ``"RecurrentA2C"`` or ``"RecurrentPPO"``, if it has to be of that one.

    Returns:
        the policy's keyword arguments, ``core`` among them.

    Raises:
        ValueError: if not; the message says what is wrong.
    """
    if trusted:
        kwargs = _trusted_policy_kwargs(path, algorithm)
    else:
        kwargs = read_untrusted(path, algorithm=algorithm).policy_kwargs
    return check_core(path, kwargs, core, trusted)


def check_core(path: Any, policy_kwargs: Any, core: CoreChoice | None, trusted: bool) -> dict[str, Any]:
    """The policy's keyword arguments, ``core`` among them.

    Raises:
        ValueError: the core is not the expected one, or one of another package in a file that is not trusted.
    """
    if not isinstance(policy_kwargs, dict):
        raise ValueError(f"The checkpoint {path} is incomplete or damaged: its policy_kwargs are unreadable.")
    policy_kwargs = {"core": "lstm", **policy_kwargs}
    saved = core_name(policy_kwargs["core"])
    module, colon, _ = saved.partition(":")
    if colon and not trusted and module.partition(".")[0] != "mnm_rl":
        raise ValueError(
            f"The core of the checkpoint {path} is {saved}, for which the module {module} would be imported "
            "and run; load it with trusted=True (--trusted) if you trust the file."
        )
    if core is not None and core_name(core) != saved:
        raise ValueError(f"The checkpoint {path} was trained with core {saved!r}, not {core_name(core)!r}.")
    return policy_kwargs


def saved_names(path: Any) -> list[str]:
    """Names of the attributes in a whole checkpoint, a file or a file-like object."""
    return list(saved_values(path))


def saved_values(path: Any) -> dict[str, Any]:
    """The attributes in a whole checkpoint; of those that are not plain values what stands for them."""
    try:
        with zipfile.ZipFile(with_suffix(path)) as archive:
            return json.loads(archive.read("data"))
    finally:
        if hasattr(path, "seek"):
            path.seek(0)


def _trusted_policy_kwargs(path: Any, algorithm: str | None) -> Any:
    try:
        with zipfile.ZipFile(with_suffix(path)) as archive:
            check_whole(archive)
            data = json.loads(archive.read("data"))
            check_algorithm(path, data, algorithm)
            item = data["policy_kwargs"]
            with warnings.catch_warnings():
                # Where Stable-Baselines3 lacks a class it warns, and leaves out what needs it.
                warnings.filterwarnings("error", "Could not deserialize")
                return json_to_data(json.dumps({"policy_kwargs": item})).get("policy_kwargs")
    except FileNotFoundError as error:
        raise ValueError(f"There is no checkpoint at {path}.") from error
    except AnotherAlgorithmError:
        raise
    except (ImportError, UserWarning) as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("Exception: ")
        raise ValueError(
            f"The checkpoint {path} was trained with a class that cannot be imported here: {reason}."
        ) from error
    except OSError as error:
        raise ValueError(f"The checkpoint {path} cannot be read: {error.strerror or error}.") from error
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"The checkpoint {path} is incomplete or damaged: {error}.") from error
    finally:
        if hasattr(path, "seek"):
            path.seek(0)


def _wrapper_attributes(wrapper: VecEnvWrapper) -> tuple[str, ...]:
    for kind, attributes in WRAPPER_STATE.items():
        if isinstance(wrapper, kind):
            return attributes
    return ()


def _cuda_in_use() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_initialized()

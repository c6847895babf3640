"""Settings of the package for RL Zoo: those of :mod:`mnm_rl.training.rl.settings_files` under its keys."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium
from gymnasium import spaces

from mnm_rl.training.folder import RunKind
from mnm_rl.training.rl.agent import ALGORITHMS, policy_name
from mnm_rl.training.rl.config import AgentConfig
from mnm_rl.training.rl.environments import is_maze, is_numbers, maze_arguments
from mnm_rl.training.rl.minigrid import SymbolicVector, is_minigrid
from mnm_rl.training.rl.search import SPACES
from mnm_rl.training.rl.settings_files import config_for, write_entry
from mnm_rl.training.study import Choice, Range, Space, rounded

OF_ZOO = ("n_timesteps", "n_envs", "normalize", "env_kwargs", "env_wrapper")
"""Keys that RL Zoo takes out of an entry; it passes all others to the constructor of the algorithm."""
SYMBOLIC = f"{SymbolicVector.__module__}.{SymbolicVector.__name__}"


def zoo_entry(
    kind: RunKind, env_id: str, core: str | None = None, env_kwargs: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What the package trains an environment with, as an entry of RL Zoo.

    Args:
        kind: of the run, A2C or PPO.
        env_id: an environment that is registered.
        core: name of the core; if not given, the one that the package's file has for the environment, or
            mnm-p.
        env_kwargs: further arguments of the environment, by which its spaces may differ.

    Raises:
        ValueError: there is no such core, or the settings have one that RL Zoo cannot have.
    """
    config = config_for(kind, env_id, core)
    config.check()
    entry = write_entry(config)
    if is_maze(env_id):
        own = maze_arguments(config)
        del own["size"]  # the id has it
        entry["env_kwargs"] = own
    observations, actions, wrapper = _spaces(env_id, {**entry.get("env_kwargs", {}), **(env_kwargs or {})})
    if wrapper:
        entry["env_wrapper"] = wrapper
    entry["policy"] = policy_name(observations)
    entry["entropy_kind"] = config.entropy_kind_for(isinstance(actions, spaces.Box))
    entry["normalize"] = _normalization(entry.get("normalize", False), observations)
    check_keys(config, entry)
    return entry


def check_keys(config: AgentConfig, entry: Mapping[str, Any]) -> None:
    """Raise a ValueError if RL Zoo would not know what to do with a key."""
    own = inspect.signature(ALGORITHMS[config.kind.name].__init__).parameters
    if unknown := [name for name in entry if name not in (*OF_ZOO, *own)]:
        raise ValueError(
            f"RL Zoo cannot have the setting {unknown[0]} that the package has for {config.env}; give "
            "settings of your own with -conf."
        )


def merged_policy_arguments(entry: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """``policy_kwargs`` of an entry with those that a user gave in their place, also one by one in the core.

    Args:
        entry: an entry for the core that the user named.
        given: ``policy_kwargs`` of the command line.
    """
    own = entry.get("policy_kwargs", {})
    inner = {**own.get("core_kwargs", {}), **given.get("core_kwargs", {})}
    return {**own, **given, "core_kwargs": inner}


def draw(kind: RunKind, trial: Any, n_envs: int, bptt_steps: int | None = None) -> dict[str, Any]:
    """Draw a trial of RL Zoo's search from the space of ``mnm-rl tune``.

    Args:
        kind: of the run.
        trial: Optuna's.
        n_envs: environments of the run, which are noted as a parameter: a size of minibatch says nothing
            without.
        bptt_steps: of the run, which n_steps must be a multiple of.

    Returns:
        what :func:`settings_of_draw` understands.
    """
    trial.suggest_int("n_envs", n_envs, n_envs)
    drawn = {"n_envs": n_envs}
    for name, each in zoo_space(kind, n_envs, bptt_steps).items():
        if isinstance(each, Range):
            drawn[name] = trial.suggest_float(name, each.low, each.high, log=each.log)
        else:
            drawn[name] = trial.suggest_categorical(name, list(each.values))
    return drawn


def zoo_space(kind: RunKind, n_envs: int, bptt_steps: int | None = None) -> Space:
    """What is searched: the space of ``mnm-rl tune`` but for ``normalize``, which is a study's."""
    space = {name: each for name, each in SPACES[kind.name].items() if name != "normalize"}
    fits = {
        "minibatches": lambda count: n_envs % count == 0,
        "n_steps": lambda steps: bptt_steps is None or steps % bptt_steps == 0,
    }
    for name in fits.keys() & space.keys():
        each = space[name]
        assert isinstance(each, Choice)
        space[name] = Choice(tuple(filter(fits[name], each.values)))
    return {name: each for name, each in space.items() if not isinstance(each, Choice) or each.values}


def settings_of_draw(drawn: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, under RL Zoo's keys, that a draw stands for; those of the policy are not among them."""
    settings = {name: rounded(value) for name, value in drawn.items()}
    minibatches, schedule = settings.pop("minibatches", None), settings.pop("schedule", "constant")
    if minibatches is not None and "n_steps" in settings:
        settings["batch_size"] = settings["n_steps"] * settings["n_envs"] // minibatches
    if schedule == "linear":
        settings["learning_rate"] = f"lin_{settings['learning_rate']!r}"
    return settings


def _spaces(env_id: str, env_kwargs: Mapping[str, Any]) -> tuple[spaces.Space, spaces.Space, Any]:
    """Spaces of observations and actions, and the wrapper in which MiniGrid's environments are observed."""
    env = gymnasium.make(env_id, **env_kwargs)
    wrapper = None
    if is_minigrid(env):
        arguments = {"mission": None, "direction": False}
        env, wrapper = SymbolicVector(env, **arguments), {SYMBOLIC: arguments}
    found = env.observation_space, env.action_space, wrapper
    env.close()
    return found


def _normalization(wanted: Any, observations: spaces.Space) -> Any:
    """What of it an environment can have: RL Zoo would normalise images, too."""
    if isinstance(observations, spaces.Dict) and wanted is True:
        keys = [key for key, part in observations.spaces.items() if is_numbers(part)]
        return {"norm_obs_keys": keys} if keys else {"norm_obs": False}
    return {"norm_obs": False} if wanted is True and not is_numbers(observations) else wanted

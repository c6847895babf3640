"""An agent as a folder of plain files: parameters, settings and spaces, and a card; nothing is pickled.

What a run needs to go on (optimizer, generators, environments) is not in it; that is what ``save`` writes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import check_for_correct_spaces
from torch import nn

from mnm_rl.agents.arguments import check_device, check_path, made_env, one_line
from mnm_rl.agents.checkpoint import check_core
from mnm_rl.agents.normalization import SETTINGS, STATISTICS, check_saved, set_statistics
from mnm_rl.agents.safe_loading import known_classes
from mnm_rl.agents.settings import COUNT, Allowed, check_number
from mnm_rl.agents.spaces import check_spaces
from mnm_rl.cores import core_config, core_name, core_settings
from mnm_rl.model_files.card import Card, card_text
from mnm_rl.model_files.folder import read_config, read_tensors, write_model
from mnm_rl.model_files.spaces import space_from_plain, space_to_plain
from mnm_rl.state_dicts import state_dict_fault

COUNT_FROM_ZERO = Allowed("a whole number that is not negative", Integral, lambda value: value >= 0)
TASK = "reinforcement-learning"
CLASSES: dict[str, type] = {
    "activation_fn": nn.Module,
    "features_extractor_class": BaseFeaturesExtractor,
    "optimizer_class": torch.optim.Optimizer,
}
"""Settings of a policy that are classes, kept by name, and what they are derived from."""
NUMBERS = (
    *("core_layers", "encoder_arch", "separate_critic", "net_arch", "ortho_init", "log_std_init"),
    *("features_extractor_kwargs", "normalize_images", "optimizer_kwargs"),
)
"""Settings of a policy that are plain values."""
NOT_KEPT = (
    *("self", "policy", "env", "policy_kwargs", "verbose", "device", "seed", "tensorboard_log", "other"),
    *("rollout_buffer_class", "rollout_buffer_kwargs", "stats_window_size", "_init_setup_model"),
)
"""Arguments of an algorithm that say nothing about how it learns, or are no plain values."""


def save_agent(agent: Any, folder: Any, card: Card | None, extra: Mapping[str, Any]) -> None:
    """Write an agent's folder; see :meth:`mnm_rl.agents.resumable.ResumableAlgorithm.save_pretrained`.

    Args:
        agent: of this package.
        folder: where to.
        card: what is known of it.
        extra: further plain values for config.json.

    Raises:
        ValueError: a setting is no plain value, or a class of somebody's own; or the folder cannot be used.
    """
    check_path(folder)
    agent.policy.check_parameters()
    config = {
        "algorithm": agent.algorithm,
        "policy": _policy_name(agent),
        "policy_settings": _policy_settings(agent.policy),
        "settings": _settings(agent),
        "n_envs": agent.n_envs,
        "seed": agent.seed,
        "timesteps": int(agent.num_timesteps),
        "observation_space": space_to_plain(agent.observation_space),
        "action_space": space_to_plain(agent.action_space),
        "normalization": _normalization_to_plain(agent.normalization()),
        **extra,
    }
    tensors = {name: tensor.cpu().numpy() for name, tensor in agent.policy.state_dict().items()}
    card = Card() if card is None else card
    tags = ["stable-baselines3", "recurrent", agent.policy.core_name, *filter(None, [card.data])]
    write_model(folder, config, tensors, card_text(card, TASK, tags, _use(agent, card, folder)))


def _use(agent: Any, card: Card, folder: Any) -> str:
    # The former takes names of models of the package, too, and needs a score.
    module, function = ("mnm_rl", "load_pretrained"), "load_pretrained"
    name = card.name or Path(folder).name
    if not card.scores:
        module, function = ("mnm_rl.agents", agent.algorithm), f"{agent.algorithm}.from_pretrained"
        name = Path(folder).name
    return (
        f"from {module[0]} import {module[1]}\n"
        "from mnm_rl.player import Player\n\n"
        f'agent = {function}("{name}")  # this folder\n'
        "player = Player.from_agent(agent)\n"
        "action = player.step(observation)  # of the environment; keeps the recurrent state\n"
        "player.reset()  # before the next episode"
    )


def _policy_name(agent: Any) -> str:
    for name, kind in agent.policy_aliases.items():
        if type(agent.policy) is kind:
            return name
    raise ValueError(
        f"The policy is of the class {type(agent.policy).__name__}, which cannot be written without a "
        f"pickle; what can: {', '.join(agent.policy_aliases)}."
    )


def _policy_settings(policy: Any) -> dict[str, Any]:
    """All arguments of the policy, those of its core complete."""
    given = policy._get_constructor_parameters()
    _, config = core_config(given["core"], **given["core_kwargs"])
    core = core_name(given["core"])
    settings = {"core": core, "core_kwargs": {name: getattr(config, name) for name in core_settings(core)}}
    settings |= {name: given[name] for name in NUMBERS if given.get(name) is not None}
    for name, base in CLASSES.items():
        kind = given[name]
        if known_classes(base).get(getattr(kind, "__name__", "")) is not kind:
            known, own = ", ".join(sorted(known_classes(base))), getattr(kind, "__name__", kind)
            raise ValueError(
                f"The policy's {name} is {own}, which cannot be written without a pickle; what can: {known}."
            )
        settings[name] = kind.__name__
    return settings


def _settings(agent: Any) -> dict[str, Any]:
    """Arguments of the algorithm; of a schedule what it begins with."""
    names = [name for name in inspect.signature(type(agent).__init__).parameters if name not in NOT_KEPT]
    values: dict[str, Any] = {name: getattr(agent, name) for name in names}
    return {name: _start(value) for name, value in values.items()}


def _start(value: Any) -> Any:
    return float(value(1.0)) if callable(value) else value


def load_agent(
    cls: Any, folder: Any, env: Any, device: torch.device | str, trusted: bool, changes: Mapping[str, Any]
) -> Any:
    """Read an agent's folder; see :meth:`mnm_rl.agents.resumable.ResumableAlgorithm.from_pretrained`.

    Raises:
        ValueError: there is no such agent, its files are damaged or do not fit each other, it is of another
            algorithm, or the environment has other spaces.
    """
    check_path(folder)
    check_device(device)
    if env is not None:
        env = made_env(env, 0)
    config = read_config(folder)
    if config.get("algorithm") != cls.algorithm:
        found = one_line(config.get("algorithm"))
        raise ValueError(f"The model in {folder} is one of {found}, not of {cls.algorithm}.")
    tensors = {name: torch.from_numpy(array) for name, array in read_tensors(folder, config).items()}
    with _one_sentence_errors(folder):
        observation_space, action_space = (
            space_from_plain(config[name]) for name in ("observation_space", "action_space")
        )
        kwargs = _policy_kwargs(folder, config["policy_settings"], trusted)
        settings = _known_settings(cls, config["settings"])
        timesteps = config["timesteps"]
        check_number("timesteps", timesteps, COUNT_FROM_ZERO)
        check_number("n_envs", config["n_envs"], COUNT)
        normalization = _normalization_from_plain(config["normalization"], observation_space)
        bare = cls(
            config["policy"],
            None,
            device=device,
            policy_kwargs=kwargs,
            **{**settings, **({} if env is not None else changes)},
            _init_setup_model=False,
        )
        bare.observation_space, bare.action_space, bare.n_envs = (
            observation_space,
            action_space,
            config["n_envs"],
        )
        check_spaces(observation_space, action_space)
    if env is None:
        agent = bare
        with _one_sentence_errors(folder):
            agent._setup_model()
    else:
        agent = cls(config["policy"], env, device=device, policy_kwargs=kwargs, **{**settings, **changes})
        check_for_correct_spaces(agent.env, observation_space, action_space)
    if fault := state_dict_fault(agent.policy, tensors):
        raise ValueError(f"The parameters of the model in {folder} do not fit its config: {fault}.")
    agent.policy.load_state_dict(tensors)
    agent.num_timesteps = timesteps
    if normalization is not None:
        agent._run_state = {"env": [("VecNormalize", normalization), None]}
        if agent.env is not None:
            set_statistics(agent.env, normalization, only_if_new=True)
    return agent


def _policy_kwargs(folder: Any, saved: Mapping[str, Any], trusted: bool) -> dict[str, Any]:
    """Arguments of the policy; nothing is imported that the file names."""
    kwargs = check_core(folder, dict(saved), None, trusted)
    for name, base in CLASSES.items():
        kind = known_classes(base).get(kwargs[name])
        if kind is None:
            raise ValueError(f"its {name} is {one_line(kwargs[name])}, which is not known here.")
        kwargs[name] = kind
    return kwargs


def _known_settings(cls: Any, saved: Mapping[str, Any]) -> dict[str, Any]:
    known = [name for name in inspect.signature(cls.__init__).parameters if name not in NOT_KEPT]
    if unknown := sorted(saved.keys() - set(known)):
        raise ValueError(f"it has a setting that this version does not know: {one_line(unknown[0])}.")
    return dict(saved)


@contextmanager
def _one_sentence_errors(folder: Any) -> Iterator[None]:
    """What is wrong with the values in a file, which may be of any type, in one sentence."""
    try:
        yield
    # Anything can go wrong with values of the wrong type.
    except Exception as error:
        lines = str(error).splitlines() or [""]
        what = f"it lacks {lines[0]}" if isinstance(error, KeyError) else lines[0] or type(error).__name__
        raise ValueError(f"The model in {folder} cannot be used: {what.rstrip('.')}.") from error


def _normalization_to_plain(saved: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if saved is None:
        return None
    plain = {name: saved[name] for name in SETTINGS if name in saved}
    for name in STATISTICS:
        part = saved.get(name)
        if isinstance(part, dict):
            plain[name] = {"parts": {key: _statistics(each) for key, each in part.items()}}
        elif part is not None:
            plain[name] = _statistics(part)
    return plain


def _statistics(part: RunningMeanStd) -> dict[str, Any]:
    return {
        "mean": np.asarray(part.mean).tolist(),
        "var": np.asarray(part.var).tolist(),
        "count": float(part.count),
    }


def _normalization_from_plain(plain: Any, space: Any) -> dict[str, Any] | None:
    if plain is None:
        return None
    saved = {name: plain[name] for name in SETTINGS if name in plain}
    for name in STATISTICS:
        part = plain.get(name)
        if part is not None:
            parts = part.get("parts")
            saved[name] = (
                _running(part) if parts is None else {key: _running(each) for key, each in parts.items()}
            )
    check_saved(saved, space)
    return saved


def _running(part: Mapping[str, Any]) -> RunningMeanStd:
    running = RunningMeanStd()
    running.mean, running.var = (np.asarray(part[name], np.float64) for name in ("mean", "var"))
    running.count = float(part["count"])
    return running

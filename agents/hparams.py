"""All settings of an agent as a flat dictionary, for TensorBoard's HPARAMS and for other trackers of runs."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import HParam
from stable_baselines3.common.utils import safe_mean

from mnm_rl.agents.on_policy import RecurrentOnPolicyAlgorithm

Setting = bool | int | float | str | None
METRICS = ("rollout/ep_rew_mean", "rollout/ep_len_mean", "train/value_loss")
NO_SETTINGS = ("self", "policy", "env", "policy_kwargs", "rollout_buffer_class", "rollout_buffer_kwargs")
NO_SETTINGS += ("tensorboard_log", "verbose", "stats_window_size", "device", "other", "_init_setup_model")
"""Arguments of an algorithm that do not change what is learned, or that stand in another form."""
OF_THE_CORE = ("core", "core_kwargs")
OF_SPACES = ("observation_space", "action_space", "lr_schedule", "use_sde")
"""Arguments of a policy that are no settings of its own."""
OUTPUTS = ("stdout", "log", "json", "csv")
"""Outputs of Stable-Baselines3's logger that cannot show such a dictionary."""


def agent_settings(agent: RecurrentOnPolicyAlgorithm) -> dict[str, Setting]:
    """What an agent is trained with, for ``wandb.init(config=agent_settings(agent))`` and the like.

    Settings of the core have names such as ``core.hidden_size``, those of the policy ``policy.net_arch``. A
    schedule is its value at the start of the training and, where that is another, at its end
    (``learning_rate_end``); lists and classes are texts.

    Args:
        agent: with or without an environment.

    Returns:
        name -> number, text, True, False or None.
    """
    policy = agent.policy
    settings: dict[str, Setting] = {"algorithm": type(agent).__name__, "core": policy.core_name}
    settings |= _flat("core", _fields(policy.memory.config))
    for name in inspect.signature(type(agent).__init__).parameters:
        if name not in NO_SETTINGS:
            settings |= _value(name, agent.lr_schedule if name == "learning_rate" else getattr(agent, name))
    own = policy._get_constructor_parameters()
    settings |= _flat("policy", {name: own[name] for name in own if name not in (*OF_THE_CORE, *OF_SPACES)})
    settings["n_envs"] = agent.n_envs
    settings["parameters"] = sum(each.numel() for each in policy.parameters())
    normalization = agent.get_vec_normalize_env()
    settings["normalize_observations"] = normalization is not None and normalization.norm_obs
    settings["normalize_rewards"] = normalization is not None and normalization.norm_reward
    return settings


class HParamCallback(BaseCallback):
    """Enter a run with all its settings into TensorBoard's HPARAMS, with the numbers that it ended with.

    ``agent.learn(100_000, callback=HParamCallback())`` of an agent with a ``tensorboard_log``. What
    Stable-Baselines3 leaves out, the numbers of the last update and the mean of the last episodes, is written
    when the training ends.

    Args:
        metrics: tags of the numbers to be shown beside the settings, as they are logged.
        more: further settings, such as the environment's, by their names.

    Raises:
        ValueError: there is no tag.
    """

    def __init__(self, metrics: Sequence[str] = METRICS, more: Mapping[str, Setting] | None = None):
        super().__init__()
        if isinstance(metrics, str) or not metrics:
            raise ValueError(f"metrics must be tags such as {', '.join(METRICS)}, got {metrics!r}.")
        self.metrics, self.more = tuple(metrics), dict(more or {})

    def _on_training_start(self) -> None:
        assert isinstance(self.model, RecurrentOnPolicyAlgorithm)
        settings = {**agent_settings(self.model), **self.more}
        # The values of the metrics say nothing; TensorBoard shows what is logged last under their tags.
        self.logger.record("hparams", HParam(settings, dict.fromkeys(self.metrics, 0.0)), exclude=OUTPUTS)

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        if episodes := self.model.ep_info_buffer:
            self.logger.record("rollout/ep_rew_mean", safe_mean([each["r"] for each in episodes]))
            self.logger.record("rollout/ep_len_mean", safe_mean([each["l"] for each in episodes]))
        self.logger.dump(self.num_timesteps)


def _fields(config: Any) -> Mapping[str, Any]:
    return {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}


def _flat(prefix: str, values: Mapping[str, Any]) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for name, value in values.items():
        dotted = f"{prefix}.{name}"
        found |= _flat(dotted, value) if isinstance(value, Mapping) else _value(dotted, value)
    return found


def _value(name: str, value: Any) -> dict[str, Setting]:
    """A setting that trackers can show; two for a schedule that moves."""
    if isinstance(value, type):
        return {name: value.__name__}
    if callable(value):
        return _schedule(name, value)
    if isinstance(value, Setting):
        return {name: value}
    return {name: str(list(value) if isinstance(value, tuple) else value)}


def _schedule(name: str, schedule: Callable[[float], Any]) -> dict[str, Setting]:
    try:
        start, end = float(schedule(1.0)), float(schedule(0.0))
    except (TypeError, ValueError):  # another function, such as one that makes an activation
        return {name: getattr(schedule, "__name__", str(schedule))}
    return {name: start} if start == end else {name: start, f"{name}_end": end}

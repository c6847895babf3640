"""Everything that defines a run of ``mnm-rl train-a2c`` or ``mnm-rl train-ppo``."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from tyro.conf import Suppress, arg

from mnm_rl.agents.minibatches import find_cuts
from mnm_rl.agents.policy_core import CoreSettings
from mnm_rl.agents.policy_settings import check_net_arch
from mnm_rl.training.folder import A2C_AGENT, PPO_AGENT, RunKind
from mnm_rl.training.options import (
    check_numbers,
    core_help,
    field_texts,
    from_plain,
    full_core_settings,
    plain,
    upgraded_core_settings,
)
from mnm_rl.training.rl.defaults import A2C, CORE_SIZES, FORMER, FORMER_LENGTH, PPO, Defaults
from mnm_rl.training.rl.environments import EnvConfig, is_maze, maze_rules

OF_ENVIRONMENT: Any = None
"""Marks a field that has a default in the maze and one elsewhere, see ``defaults.py``; every config that has
been built has a value there."""
LATER = ("episodes", "timesteps", "n_steps", "watch_every")
"""Fields that stay ``None``: their defaults depend on more than which environment it is."""
OF_A_RUN = {"seed", "vf_coef", "checkpoint_minutes"}
"""Fields that every run has saved, whatever its age; what is given for a new one hardly has them all."""
ConfigT = TypeVar("ConfigT", bound="AgentConfig")


@dataclass(frozen=True)
class AgentConfig(EnvConfig):
    """A run. What is not given depends on the environment; see the text of the option."""

    kind: ClassVar[RunKind]
    defaults: ClassVar[Defaults]
    default_entropy_kind: ClassVar[Literal["concentration", "entropy"]]

    core: Annotated[str, arg(help=core_help())] = "mnm-p"
    core_settings: Annotated[Mapping[str, Any], Suppress] = field(default_factory=dict)
    """Settings of the core that differ from its own defaults."""
    core_layers: int = 1
    """So many cores on top of each other."""
    encoder: tuple[int, ...] = ()
    """Sizes of layers between the observation and the core, such as 64 64."""
    separate_critic: bool = False
    """Give the values an encoder and a core of their own, so that their error does not change what the policy
    remembers."""
    net_arch: tuple[int, ...] = ()
    """Sizes of layers between the core and the heads, such as 64."""
    seed: int = 0
    """Of the parameters, the environments and the actions."""

    n_envs: int = OF_ENVIRONMENT
    """Environments that are played at once."""
    episodes: int | None = None
    """Length of the whole run in episodes, the maze only."""
    timesteps: int | None = None
    """Length of the whole run in steps, instead of episodes."""
    n_steps: int | None = None
    """Steps per environment and update; gradients reach back no further."""

    learning_rate: float = OF_ENVIRONMENT
    """Of Adam."""
    schedule: Literal["constant", "linear"] = OF_ENVIRONMENT
    """linear: the learning rate falls to zero over the run."""
    gamma: float | None = OF_ENVIRONMENT
    """Discount per step."""
    gamma_end: float | None = None
    """Discount at the end of the run, to which it goes in a straight line; it stays if not given."""
    gae_lambda: float = OF_ENVIRONMENT
    """1 for Monte-Carlo returns, less for generalized advantage estimation."""
    vf_coef: float = OF_ENVIRONMENT
    """Weight of the squared error of the values."""
    ent_coef: float = OF_ENVIRONMENT
    """Weight of the term that keeps the policy exploring."""
    ent_coef_end: float | None = None
    """That weight at the end of the run, to which it goes in a straight line; it stays if not given."""
    entropy_kind: Literal["concentration", "entropy"] | None = None
    """That term: sum of squared probabilities, or minus the entropy. Continuous actions: entropy; others:
    concentration."""
    max_grad_norm: float = OF_ENVIRONMENT
    """Gradients are scaled down to this norm."""
    meta_coef: float = OF_ENVIRONMENT
    """Weight of the core's own loss."""
    adam_epsilon: float = OF_ENVIRONMENT
    """Of Adam."""
    normalize_advantage: bool = OF_ENVIRONMENT
    """Bring the advantages of each update, for PPO of each minibatch, to mean 0 and standard deviation 1."""
    use_sde: bool = False
    """Noise of continuous actions that depends on the state and lasts for several steps."""
    sde_sample_freq: int = -1
    """For so many steps; -1: for all of an update."""
    bootstrap_time_limit: bool | None = OF_ENVIRONMENT
    """Count the value of the last observation where a time limit ends an episode."""

    log_every: int = 5
    """Updates per row of progress.csv."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; a killed run loses no more."""
    watch_every: int | None = None
    """The maze only: updates between two episodes that TensorBoard shows, with what the memory does in them;
    0: none."""

    def __post_init__(self) -> None:
        if not isinstance(self.env, str):
            raise ValueError(f"env must be a text, the id of an environment, got {self.env!r}.")
        for name, value in self._defaults.items():
            if name not in LATER and getattr(self, name) is None:
                object.__setattr__(self, name, value)

    @property
    def _defaults(self) -> Mapping[str, Any]:
        return self.defaults.of(is_maze(self.env))

    def default(self, name: str) -> Any:
        """What a field is if nothing is given, in this environment."""
        of_class = {each.name: each.default for each in dataclasses.fields(self)}
        return self._defaults.get(name, of_class[name])

    def check(self) -> None:
        """Make sure that the options fit each other and the environment; cheap, nothing is built.

        Raises:
            ValueError: an option that is not allowed.
            TypeError: a setting that the core does not have.
        """
        check_numbers(
            self,
            at_least_one=("n_envs", "episodes", "timesteps", "n_steps", "log_every", "core_layers"),
            positive=(
                *("learning_rate", "max_grad_norm", "checkpoint_minutes", "adam_epsilon", "reward_scale"),
            ),
            not_negative=("vf_coef", "ent_coef", "ent_coef_end", "meta_coef", "seed", "watch_every"),
            fractions=("gamma", "gamma_end", "gae_lambda"),
        )
        if self.sde_sample_freq != -1 and self.sde_sample_freq < 1:
            raise ValueError(f"sde_sample_freq must be at least 1, or -1, got {self.sde_sample_freq}.")
        if self.use_sde and is_maze(self.env):
            raise ValueError("use_sde is for continuous actions, which the maze does not have.")
        self.check_environment()
        CoreSettings(
            self.core, self.all_core_settings(), self.core_layers, self.encoder, self.separate_critic
        )
        check_net_arch(list(self.net_arch))
        if self.episodes is not None and self.timesteps is not None:
            raise ValueError("Give either episodes or timesteps, not both.")
        if self.episodes is not None and not is_maze(self.env):
            raise ValueError("episodes is for the maze, whose episodes have a fixed length; use timesteps.")
        if self.watch_every and not is_maze(self.env):
            raise ValueError(f"watch_every is for the maze (MNMMaze-9x9), not for {self.env}.")

    def own_settings(self) -> dict[str, Any]:
        """Settings of the agent that only its algorithm has."""
        return {}

    def layers(self) -> dict[str, Any]:
        """Arguments of the policy that say what is around the core."""
        return {
            "core_layers": self.core_layers,
            "encoder_arch": list(self.encoder),
            "separate_critic": self.separate_critic,
            "net_arch": list(self.net_arch),
        }

    def entropy_kind_for(self, continuous: bool) -> Literal["concentration", "entropy"]:
        """entropy_kind, or its default for continuous or other actions."""
        return self.entropy_kind or ("entropy" if continuous else self.default_entropy_kind)

    def all_core_settings(self) -> dict[str, Any]:
        """Every setting of the core: what is given, then the sizes for its environment, then its defaults."""
        sizes = {} if is_maze(self.env) else CORE_SIZES
        return full_core_settings(self.core, self.core_settings, sizes)

    @property
    def total_timesteps(self) -> int:
        """Length of the run in steps of single environments."""
        if self.timesteps is not None:
            return self.timesteps
        if is_maze(self.env):
            return (self.episodes or self.default("episodes")) * maze_rules(self).horizon
        return self.default("timesteps")

    @property
    def rollout_steps(self) -> int:
        """Steps per environment and update."""
        if self.n_steps is not None:
            return self.n_steps
        return self.default("n_steps") or maze_rules(self).horizon

    @property
    def discount(self) -> float:
        """Gamma."""
        assert self.gamma is not None  # there is always a default
        return self.gamma

    @property
    def linear_settings(self) -> dict[str, tuple[float, float]]:
        """Settings of the agent that change during the run: name -> (value at the start, at the end)."""
        ends = {"gamma": (self.discount, self.gamma_end), "ent_coef": (self.ent_coef, self.ent_coef_end)}
        return {name: (start, end) for name, (start, end) in ends.items() if end is not None}

    @property
    def updates_between_watches(self) -> int:
        """watch_every, or its default for the environment; 0 for no watching."""
        if self.watch_every is not None:
            return self.watch_every
        return self.default("watch_every")

    @property
    def bootstraps(self) -> bool:
        """bootstrap_time_limit."""
        return bool(self.bootstrap_time_limit)


def tells_defaults(config_class: type[ConfigT]) -> type[ConfigT]:
    """Add to the help texts of a run's fields what they are in the maze and elsewhere."""
    hints = typing.get_type_hints(config_class, include_extras=True)
    texts: dict[str, str] = {}
    for each in reversed(config_class.__mro__[:-1]):
        texts |= field_texts(each)
    for name, text in texts.items():
        if told := config_class.defaults.told(name):
            config_class.__annotations__[name] = Annotated[hints[name], arg(help=f"{text} {told}")]
    return config_class


@tells_defaults
@dataclass(frozen=True)
class A2CConfig(AgentConfig):
    """A run of A2C."""

    kind = A2C_AGENT
    defaults = A2C
    default_entropy_kind = "concentration"


@tells_defaults
@dataclass(frozen=True)
class PPOConfig(AgentConfig):
    """A run of PPO."""

    kind = PPO_AGENT
    defaults = PPO
    default_entropy_kind = "entropy"

    entropy_kind: Literal["concentration", "entropy"] | None = None
    """That term: sum of squared probabilities, or minus the entropy, which it is if nothing is given."""

    n_epochs: int = OF_ENVIRONMENT
    """How often each rollout is learned from."""
    batch_size: int | None = None
    """Steps in a minibatch, of whole sequences; about a quarter of the rollout if not given."""
    bptt_steps: int | None = None
    """Cut the rollout into sequences of so many steps; gradients reach back no further. All of it if not
    given."""
    clip_range: float = OF_ENVIRONMENT
    """How far a probability may move in learning from one rollout, as a ratio."""
    clip_range_vf: float | None = None
    """The same for the values, in their own unit; no limit if not given."""
    target_kl: float | None = None
    """End learning from a rollout when the policy has moved by 1.5 times this divergence."""

    def check(self) -> None:
        """See base class; also that a rollout can be cut as is asked for."""
        super().check()
        check_numbers(
            self,
            at_least_one=("n_epochs", "batch_size", "bptt_steps"),
            positive=("clip_range", "clip_range_vf", "target_kl"),
        )
        find_cuts(self.rollout_steps, self.n_envs, self.bptt_steps, self.batch_size)

    def own_settings(self) -> dict[str, Any]:
        """See base class."""
        names = ("n_epochs", "batch_size", "bptt_steps", "clip_range", "clip_range_vf", "target_kl")
        return {name: getattr(self, name) for name in names}


CONFIGS: dict[str, type[AgentConfig]] = {each.kind.name: each for each in (A2CConfig, PPOConfig)}
"""Kind of run -> its settings."""

CHANGEABLE = (
    *("episodes", "timesteps", "learning_rate", "schedule"),
    *("gamma", "gamma_end", "gae_lambda", "ent_coef", "ent_coef_end"),
)
"""What a run that goes on may be given anew."""


def config_to_dict(config: AgentConfig) -> dict[str, Any]:
    """Plain values for JSON, with all settings of the core and what depends on the environment."""
    values = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
    values |= {"n_steps": config.rollout_steps, "core_settings": config.all_core_settings()}
    if config.episodes is None and config.timesteps is None:
        length = "episodes" if is_maze(config.env) else "timesteps"
        values[length] = config.default(length)
    return plain(values)


def config_from_dict(values: Mapping[str, Any], kind: RunKind = A2C_AGENT) -> AgentConfig:
    """The inverse of :func:`config_to_dict`; runs from before ``core_settings`` load too.

    Args:
        values: plain ones.
        kind: of the run.

    Raises:
        ValueError: if there is an option that this version does not know, or does not allow.
        TypeError: a setting that the core does not have.
    """
    config = from_plain(CONFIGS[kind.name], _upgraded(values))
    config.check()
    return config


def _upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of a former run, with what its ``null`` and its core's defaults stood for then."""
    upgraded = upgraded_core_settings(values)
    elsewhere = not is_maze(str(upgraded.get("env", EnvConfig.env)))
    if "core_kwargs" in values and "core_settings" not in values:
        core = upgraded.get("core", AgentConfig.core)
        upgraded["core_settings"] = full_core_settings(core, upgraded["core_settings"], {})
    if upgraded.keys() >= OF_A_RUN and upgraded.get("normalize") is None:
        upgraded["normalize"] = "none"  # the run is from before there was another default
    for name, former in FORMER.items():
        if name in upgraded and upgraded[name] is None:
            upgraded[name] = former[elsewhere]
    if {"episodes", "timesteps"} <= upgraded.keys() and upgraded["episodes"] is upgraded["timesteps"] is None:
        upgraded |= FORMER_LENGTH[elsewhere]
    return upgraded

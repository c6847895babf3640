"""Everything that defines a run of ``mnm-rl train-a2c`` or ``mnm-rl train-ppo``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import Suppress, arg

from mnm_rl.agents.minibatches import find_cuts
from mnm_rl.agents.policy_core import CoreSettings
from mnm_rl.agents.policy_settings import check_net_arch
from mnm_rl.training.folder import AGENT, PPO_AGENT, RunKind
from mnm_rl.training.options import (
    check_numbers,
    core_help,
    from_plain,
    full_core_settings,
    plain,
    upgraded_core_settings,
)
from mnm_rl.training.rl.environments import EnvConfig, is_maze, maze_rules

MAZE_EPISODES = 60_000
OTHER_TIMESTEPS = 500_000
OTHER_N_STEPS = 128
WATCH_EVERY = 500


@dataclass(frozen=True)
class AgentConfig(EnvConfig):
    """A run. What is ``None`` depends on the environment; see the text of the option."""

    kind: ClassVar[RunKind]
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

    n_envs: int = 16
    """Environments that are played at once."""
    episodes: int | None = None
    """Length of the whole run in episodes, the maze only (60000 if nothing is given)."""
    timesteps: int | None = None
    """Length of the whole run in steps, instead of episodes (other environments: 500000)."""
    n_steps: int | None = None
    """Steps per environment and update; gradients reach back no further. Maze: its horizon; others: 128."""

    learning_rate: float = 1e-3
    """Of Adam."""
    schedule: Literal["constant", "linear"] = "linear"
    """linear: the learning rate falls to zero over the run."""
    gamma: float | None = None
    """Discount per step. The maze: 0.9; others: 0.99."""
    gamma_end: float | None = None
    """Discount at the end of the run, to which it goes in a straight line; it stays if not given."""
    gae_lambda: float = 0.95
    """1 for Monte-Carlo returns, less for generalized advantage estimation."""
    vf_coef: float = 0.1
    """Weight of the squared error of the values."""
    ent_coef: float = 0.03
    """Weight of the term that keeps the policy exploring."""
    ent_coef_end: float | None = None
    """That weight at the end of the run, to which it goes in a straight line; it stays if not given."""
    entropy_kind: Literal["concentration", "entropy"] | None = None
    """That term: sum of squared probabilities, or minus the entropy. Continuous actions: entropy; others:
    concentration."""
    max_grad_norm: float = 4.0
    """Gradients are scaled down to this norm."""
    meta_coef: float = 1.0
    """Weight of the core's own loss."""
    adam_epsilon: float = 1e-5
    """Of Adam."""
    normalize_advantage: bool = False
    """Bring the advantages of each update to mean 0 and standard deviation 1."""
    bootstrap_time_limit: bool | None = None
    """Count the value of the last observation where a time limit ends an episode. Maze: no; others: yes."""

    log_every: int = 5
    """Updates per row of progress.csv."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; a killed run loses no more."""
    watch_every: int | None = None
    """The maze only: updates between two episodes that TensorBoard shows, with what the memory does in them;
    500 if not given, 0: none."""

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
        """Every setting of the core: what is given, then the core's defaults."""
        return full_core_settings(self.core, self.core_settings, {})

    @property
    def total_timesteps(self) -> int:
        """Length of the run in steps of single environments."""
        if self.timesteps is not None:
            return self.timesteps
        if is_maze(self.env):
            return (self.episodes or MAZE_EPISODES) * maze_rules(self).horizon
        return OTHER_TIMESTEPS

    @property
    def rollout_steps(self) -> int:
        """Steps per environment and update."""
        if self.n_steps is not None:
            return self.n_steps
        return maze_rules(self).horizon if is_maze(self.env) else OTHER_N_STEPS

    @property
    def discount(self) -> float:
        """gamma, or its default for the environment."""
        if self.gamma is not None:
            return self.gamma
        return 0.9 if is_maze(self.env) else 0.99

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
        return WATCH_EVERY if is_maze(self.env) else 0

    @property
    def bootstraps(self) -> bool:
        """bootstrap_time_limit, or its default for the environment."""
        return not is_maze(self.env) if self.bootstrap_time_limit is None else self.bootstrap_time_limit


@dataclass(frozen=True)
class A2CConfig(AgentConfig):
    """A run of A2C."""

    kind = AGENT
    default_entropy_kind = "concentration"


@dataclass(frozen=True)
class PPOConfig(AgentConfig):
    """A run of PPO."""

    kind = PPO_AGENT
    default_entropy_kind = "entropy"

    schedule: Literal["constant", "linear"] = "constant"
    """linear: the learning rate falls to zero over the run."""
    vf_coef: float = 0.5
    """Weight of the squared error of the values."""
    ent_coef: float = 0.003
    """Weight of the term that keeps the policy exploring."""
    entropy_kind: Literal["concentration", "entropy"] | None = None
    """That term: sum of squared probabilities, or minus the entropy, which it is if nothing is given."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this norm."""
    normalize_advantage: bool = True
    """Bring the advantages of each minibatch to mean 0 and standard deviation 1."""

    n_epochs: int = 4
    """How often each rollout is learned from."""
    batch_size: int | None = None
    """Steps in a minibatch, of whole sequences; about a quarter of the rollout if not given."""
    bptt_steps: int | None = None
    """Cut the rollout into sequences of so many steps; gradients reach back no further. All of it if not
    given."""
    clip_range: float = 0.2
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
    """Plain values for JSON, with all settings of the core."""
    values = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
    return plain({**values, "core_settings": config.all_core_settings()})


def config_from_dict(values: Mapping[str, Any], kind: RunKind = AGENT) -> AgentConfig:
    """The inverse of :func:`config_to_dict`; runs from before ``core_settings`` load too.

    Args:
        values: plain ones.
        kind: of the run.

    Raises:
        ValueError: if there is an option that this version does not know, or does not allow.
        TypeError: a setting that the core does not have.
    """
    config = from_plain(CONFIGS[kind.name], upgraded_core_settings(values))
    config.check()
    return config

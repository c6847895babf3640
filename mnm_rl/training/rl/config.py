"""Everything that defines a run of `scripts/train_a2c.py`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from mnm_rl.cores import core_config
from mnm_rl.training.options import parse_json_object
from mnm_rl.training.rl.environments import EnvConfig, is_maze, maze_rules

MAZE_EPISODES = 60_000
OTHER_TIMESTEPS = 500_000
OTHER_N_STEPS = 128
WATCH_EVERY = 500


@dataclass(frozen=True)
class A2CConfig(EnvConfig):
    """A run. What is ``None`` depends on the environment; see the text of the option."""

    core: str = "mnm-p"
    """The memory: mnm-p, mnm-g, lstm, gru, lstm-salu, plastic or plastic-homogenous."""
    core_kwargs: str = "{}"
    """More settings of the core, as JSON: '{"normalization": "width"}'."""
    hidden_size: int | None = None
    """Width of the controller or of the recurrent layer; the core's own default (200) if not given."""
    heads: int | None = None
    """Interaction heads H, where the core has them; the core's own default (1) if not given."""
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
        _check_numbers(self)
        self.check_environment()
        core_config(self.core, **self.core_settings())
        if self.episodes is not None and self.timesteps is not None:
            raise ValueError("Give either episodes or timesteps, not both.")
        if self.episodes is not None and not is_maze(self.env):
            raise ValueError("episodes is for the maze, whose episodes have a fixed length; use timesteps.")
        if self.watch_every and not is_maze(self.env):
            raise ValueError(f"watch_every is for the maze (MNMMaze-9x9), not for {self.env}.")

    def core_settings(self) -> dict[str, Any]:
        """All settings of the core that differ from its defaults."""
        given = {"hidden_size": self.hidden_size, "heads": self.heads}
        settings = {name: value for name, value in given.items() if value is not None}
        return {**settings, **parse_json_object(self.core_kwargs, "core_kwargs")}

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


def config_to_dict(config: A2CConfig) -> dict[str, Any]:
    """Plain values, for JSON."""
    return dataclasses.asdict(config)


def config_from_dict(values: dict[str, Any]) -> A2CConfig:
    """The inverse of `config_to_dict`.

    Raises:
        ValueError: if there is an option that this version does not know, or does not allow.
    """
    known = {field.name for field in dataclasses.fields(A2CConfig)}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise ValueError(f"The run has an option that this version does not know: {', '.join(unknown)}.")
    config = A2CConfig(**values)
    config.check()
    return config


def _check_numbers(config: A2CConfig) -> None:
    for name in ("n_envs", "episodes", "timesteps", "n_steps", "log_every", "hidden_size", "heads"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    for name in ("learning_rate", "max_grad_norm", "checkpoint_minutes", "adam_epsilon", "reward_scale"):
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be positive, got {getattr(config, name)}.")
    for name in ("vf_coef", "ent_coef", "ent_coef_end", "meta_coef", "seed", "watch_every"):
        if not (getattr(config, name) or 0) >= 0:
            raise ValueError(f"{name} must not be negative, got {getattr(config, name)}.")
    for name in ("gamma", "gamma_end", "gae_lambda"):
        value = getattr(config, name)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name} must be between 0 and 1, got {value}.")

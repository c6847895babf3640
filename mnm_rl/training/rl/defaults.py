"""What a run's settings are where nothing is given: in the maze, and in all other environments.

The maze's are those of the runs under ``results/maze``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Defaults:
    """Values of the fields of a run's config, by their names."""

    maze: Mapping[str, Any]
    others: Mapping[str, Any]

    def of(self, maze: bool) -> Mapping[str, Any]:
        """Those of the maze or those of other environments."""
        return self.maze if maze else self.others

    def told(self, name: str) -> str:
        """What a help text says about the default of a field; nothing if it is always the same."""
        maze = self.maze.get(name, OTHERWISE.get(name))
        if name not in self.maze.keys() | self.others.keys() or maze == self.others.get(name):
            return ""
        parts = [("the maze", maze), ("others", self.others.get(name))]
        words = [
            f"{where}: {'yes' if value is True else 'no' if value is False else value}"
            for where, value in parts
            if value is not None
        ]
        return f"If nothing is given, {'; '.join(words)}."


OTHERWISE = {"n_steps": "its horizon"}
"""What fields without a value in the table are in the maze."""

A2C = Defaults(
    maze={
        "episodes": 60_000,
        "watch_every": 500,
        "normalize": "none",
        "n_envs": 16,
        "learning_rate": 1e-3,
        "schedule": "linear",
        "gamma": 0.9,
        "gae_lambda": 0.95,
        "vf_coef": 0.1,
        "ent_coef": 0.03,
        "max_grad_norm": 4.0,
        "meta_coef": 1.0,
        "adam_epsilon": 1e-5,
        "normalize_advantage": False,
        "bootstrap_time_limit": False,
    },
    others={
        "timesteps": 500_000,
        "watch_every": 0,
        "normalize": "both",
        "n_envs": 4,
        "n_steps": 16,
        "learning_rate": 3e-3,
        "schedule": "linear",
        "gamma": 0.95,
        "gae_lambda": 0.9,
        "vf_coef": 0.25,
        "ent_coef": 0.01,
        "max_grad_norm": 4.0,
        "meta_coef": 1.0,
        "adam_epsilon": 1e-5,
        "normalize_advantage": False,
        "bootstrap_time_limit": True,
    },
)

PPO = Defaults(
    maze={
        "episodes": 40_000,
        "watch_every": 500,
        "normalize": "none",
        "n_envs": 16,
        "learning_rate": 1e-3,
        "schedule": "linear",
        "gamma": 0.9,
        "gae_lambda": 0.95,
        "vf_coef": 0.01,  # returns are tens: with 0.5 their error drowns the policy
        "ent_coef": 0.01,
        "max_grad_norm": 0.5,
        "meta_coef": 1.0,
        "adam_epsilon": 1e-5,
        "normalize_advantage": True,
        "bootstrap_time_limit": False,
        "n_epochs": 4,
        "clip_range": 0.2,
    },
    others={
        "timesteps": 500_000,
        "watch_every": 0,
        "normalize": "both",
        "n_envs": 16,
        "n_steps": 128,
        "learning_rate": 5e-3,
        "schedule": "linear",
        "gamma": 0.98,
        "gae_lambda": 0.95,
        "vf_coef": 0.25,
        "ent_coef": 1e-4,
        "max_grad_norm": 3.0,
        "meta_coef": 1.0,
        "adam_epsilon": 1e-5,
        "normalize_advantage": True,
        "bootstrap_time_limit": True,
        "n_epochs": 8,
        "clip_range": 0.3,
    },
)

CORE_SIZES: Mapping[str, Any] = {
    "hidden_size": 64,
    "key_size": 32,
    "value_size": 32,
    "memory_widths": (32, 32),
}
"""Of cores outside the maze, as far as they have them; in the maze a core has its own defaults."""

FORMER: Mapping[str, tuple[Any, Any]] = {
    "gamma": (0.9, 0.99),
    "bootstrap_time_limit": (False, True),
    "n_steps": (None, 128),
}
"""What a ``null`` in the config.json of a former run stands for, in the maze and elsewhere; today's have
values."""
FORMER_LENGTH = ({"episodes": 60_000}, {"timesteps": 500_000})
"""The same for a run without a length."""

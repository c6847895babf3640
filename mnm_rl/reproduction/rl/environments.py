"""The environments of the comparison: settings, budgets, bounds of the score, and published numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MILLION = 1_000_000


@dataclass(frozen=True)
class Published:
    """A number of others, drawn as a mark; it was made with another budget, which stands beside it."""

    who: str
    score: float
    timesteps: int
    source: str


@dataclass(frozen=True)
class Environment:
    """A row of the comparison."""

    name: str
    """In folders, tables and options of the command line."""
    id: str
    """Of Gymnasium's."""
    timesteps: int
    """Budget of every run ..."""
    paper_timesteps: int
    """... and at the scale of the published numbers."""
    low: float
    """The score that counts as 0 in means over environments ..."""
    high: float
    """... and as 1."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of PPO and of the environment, where they are not the defaults; the same for every core."""
    published: tuple[Published, ...] = ()


ZOO = "RL Zoo, benchmark.md, ppo_lstm"
POPGYM = "Morad et al. 2023, table 3, taken from a public transcription of it"

IMMEDIATE: Mapping[str, Any] = {
    **{"n_envs": 32, "batch_size": 832, "n_epochs": 6, "learning_rate": 3e-3, "schedule": "linear"},
    **{"gamma": 0.5, "gae_lambda": 0.5, "vf_coef": 0.25, "ent_coef": 1e-4, "clip_range": 0.2},
    **{"normalize": "both"},
}
"""For games in which an action changes nothing of what comes later, so that a reward says most about the step
that it is of. Chosen by hand with seed 0 of MNM-p."""

LASTING_NOISE: Mapping[str, Any] = {
    **{"use_sde": True, "sde_sample_freq": 8, "gamma": 0.9999},
    **{"learning_rate": 1e-3, "schedule": "linear"},
}
"""Where nothing is earned unless the same is done for long. Noise and discount are RL Zoo's; the rate was
chosen with seed 0 of a GRU."""


def _no_velocities(
    name: str, id: str, timesteps: int, bounds: tuple[float, float], score: float, **settings: Any
) -> Environment:
    mark = Published("RecurrentPPO", score, timesteps, ZOO)
    return Environment(name, id, timesteps, timesteps, *bounds, settings, (mark,))


def _popgym(
    game: str, timesteps: int, steps: int, scores: Mapping[str, float], **settings: Any
) -> Environment:
    """A game whose rewards add up to between -1 and 1; ``steps``: of one or two of its episodes."""
    marks = tuple(Published(who, score, 15 * MILLION, POPGYM) for who, score in scores.items())
    settings = {"n_steps": steps, "normalize": "none", **settings}
    return Environment(game, f"POPGym{game}-v0", timesteps, 15 * MILLION, -1, 1, settings, marks)


def _minigrid(name: str, **settings: Any) -> Environment:
    # From tables the episodes are the same, and a step takes a fraction of the time. With rollouts of 128
    # steps there are too few updates before the rate has fallen.
    settings = {
        **{"n_steps": 64, "schedule": "linear"},
        **{"n_epochs": 4, "learning_rate": 1e-3, "gamma": 0.99, "ent_coef": 0.005, "normalize": "none"},
        **{"vf_coef": 0.5, "max_grad_norm": 0.5, "clip_range": 0.2},
        **{"tabulated": True, **settings},
    }
    return Environment(name, f"MiniGrid-{name}-v0", MILLION, 5 * MILLION, 0, 1, settings)


def _maze(size: int, timesteps: int, paper_timesteps: int, high: float) -> Environment:
    """The invisible goal; ``high`` is what a player that is told the goal can expect."""
    return Environment(
        f"MNMMaze-{size}x{size}", f"MNMMaze-{size}x{size}", timesteps, paper_timesteps, 0, high
    )


ENVIRONMENTS = {
    row.name: row
    for row in (
        _no_velocities(
            *("CartPoleNoVel", "CartPoleNoVel-v1", 100_000, (0, 500), 500.0),
        ),
        _no_velocities(
            *("PendulumNoVel", "PendulumNoVel-v1", 100_000, (-1500, 0), -217.9),
            gamma=0.9,
        ),
        _no_velocities(
            *("MountainCarContinuousNoVel", "MountainCarContinuousNoVel-v0", 300_000, (0, 100), 91.5),
            **LASTING_NOISE,
        ),
        _popgym("RepeatPreviousEasy", 120_000, 104, {"GRU, best of 13": 1.0}),
        _popgym(
            *("RepeatPreviousMedium", 3 * MILLION, 104, {"GRU": -0.315, "best of 13 (LMU)": 0.789}),
            **IMMEDIATE,
        ),
        _popgym(
            *("RepeatPreviousHard", 3 * MILLION, 156, {"GRU": -0.428, "best of 13 (LMU)": 0.191}),
            **{**IMMEDIATE, "batch_size": 8 * 156},
        ),
        _popgym("AutoencodeEasy", 3 * MILLION, 104, {"GRU, best of 13": -0.283}, **IMMEDIATE),
        _popgym("CountRecallEasy", MILLION, 104, {"GRU": 0.177, "best of 13 (LSTM)": 0.509}),
        _popgym("ConcentrationEasy", MILLION, 208, {}),
        _popgym("RepeatFirstMedium", MILLION, 416, {"GRU, best of 13": 1.0}, normalize="both"),
        _minigrid("MemoryS7"),
        _minigrid("MemoryS13Random"),
        _maze(5, MILLION, 10 * MILLION, 580.0),
        _maze(9, 3 * MILLION, 30 * MILLION, 329.9),
        _maze(13, 3 * MILLION, 30 * MILLION, 230.0),
    )
}
"""Name -> environment."""
CONTRIB_ENVIRONMENTS = ("CartPoleNoVel", "RepeatPreviousEasy", "PendulumNoVel", "MemoryS7")
"""Where sb3-contrib's RecurrentPPO runs, too."""
SMOKE_SETTINGS: dict[str, Any] = {"n_envs": 2, "n_steps": 64, "n_epochs": 1}
SMOKE_TIMESTEPS = 1024

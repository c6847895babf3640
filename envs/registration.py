"""Make our environments known to Gymnasium: mazes, POPGym's games, control tasks with hidden velocities."""

from __future__ import annotations

import copy
import dataclasses

import gymnasium
from gymnasium.envs.registration import EnvSpec, WrapperSpec

from mnm_rl.envs.popgym_games import register_games
from mnm_rl.envs.velocities import VELOCITIES

SIZES = (3, 5, 7, 9, 11, 13)


def env_id(size: int) -> str:
    """The Gymnasium id of the maze with ``size`` x ``size`` interior cells, such as ``MNMMaze-9x9-v0``.

    The id without the version, ``MNMMaze-9x9``, is an alias that stays.
    """
    return f"MNMMaze-{size}x{size}-v0"


def id_without_velocities(base: str) -> str:
    """The id that RL Baselines3 Zoo gives to an environment without its velocities: ``CartPoleNoVel-v1``."""
    name, _, version = base.rpartition("-")
    return f"{name}NoVel-{version}"


def register_envs() -> None:
    """Register a maze of every size in ``SIZES``, POPGym's games, and ``VELOCITIES`` without these.

    What has been registered under the same id, such as by RL Baselines3 Zoo, stays. Safe to call again;
    ``import mnm_rl`` calls it.
    """
    register_games()
    for size in SIZES:
        if env_id(size) not in gymnasium.registry:
            _register_maze(size)
    for base, velocities in VELOCITIES.items():
        hidden = id_without_velocities(base)
        if base in gymnasium.registry and hidden not in gymnasium.registry:
            _register_without_velocities(gymnasium.registry[base], hidden, velocities)


def _register_maze(size: int) -> None:
    # Entry points as text: nothing of the environments is imported before it is used.
    alias = env_id(size).removesuffix("-v0")
    gymnasium.register(
        id=alias,
        entry_point="mnm_rl.envs.maze:MazeEnv",
        vector_entry_point="mnm_rl.envs.vector:MazeVectorEnv",
        kwargs={"size": size},
    )
    # Gymnasium registers an id with a version or one without, and warns of the latter where there is the
    # former. The alias is no old version, so its twin is put there by hand, and Gymnasium, which looks at
    # this field, not at the id, finds nothing newer. The environment's own spec has the version.
    versioned = dataclasses.replace(gymnasium.registry[alias], id=env_id(size))
    versioned.version = None
    gymnasium.registry[env_id(size)] = versioned


def _register_without_velocities(base: EnvSpec, hidden: str, velocities: tuple[int, ...]) -> None:
    """The same environment, time limit and arguments under another id, in a wrapper."""
    gymnasium.register(
        id=hidden,
        entry_point=base.entry_point,
        reward_threshold=base.reward_threshold,
        max_episode_steps=base.max_episode_steps,
        kwargs=copy.deepcopy(base.kwargs),
        additional_wrappers=(
            WrapperSpec(
                "ZeroedObservations", "mnm_rl.envs.velocities:ZeroedObservations", {"zeroed": velocities}
            ),
        ),
    )

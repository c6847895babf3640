"""Make the mazes known to Gymnasium under their ids, ``MNMMaze-3x3`` to ``MNMMaze-13x13``, and the games."""

from __future__ import annotations

import gymnasium

from mnm_rl.envs.popgym_games import register_games

SIZES = (3, 5, 7, 9, 11, 13)


def env_id(size: int) -> str:
    """The Gymnasium id of the maze with ``size`` x ``size`` interior cells."""
    return f"MNMMaze-{size}x{size}"


def register_envs() -> None:
    """Register a maze of every size in ``SIZES`` and POPGym's games; safe to call again.

    ``import mnm_rl`` calls it.
    """
    register_games()
    for size in SIZES:
        if env_id(size) not in gymnasium.registry:
            # Entry points as text: nothing of the environments is imported before it is used.
            gymnasium.register(
                id=env_id(size),
                entry_point="mnm_rl.envs.maze:MazeEnv",
                vector_entry_point="mnm_rl.envs.vector:MazeVectorEnv",
                kwargs={"size": size},
            )

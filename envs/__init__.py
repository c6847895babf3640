"""The invisible-goal maze: single, batched for Gymnasium and for Stable-Baselines3, and reference players.

    MazeEnv          one maze, a :class:`gymnasium.Env`; its docstring is the complete rule book
    MazeVectorEnv    N mazes, a :class:`gymnasium.vector.VectorEnv`
    MazeVecEnv       N mazes, a Stable-Baselines3 :class:`VecEnv`
    MazeRules, Mazes the rules themselves, played in N mazes by plain numpy

Each name is imported when it is first used, because Stable-Baselines3 and pygame are slow to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnm_rl.envs.maze import MazeEnv
    from mnm_rl.envs.players import evaluate_player, reference_scores
    from mnm_rl.envs.registration import register_envs
    from mnm_rl.envs.rendering import render_frame
    from mnm_rl.envs.rules import MazeRules, Mazes
    from mnm_rl.envs.sb3 import MazeVecEnv
    from mnm_rl.envs.vector import MazeVectorEnv

_MODULES = {
    "MazeEnv": "maze",
    "MazeRules": "rules",
    "MazeVecEnv": "sb3",
    "MazeVectorEnv": "vector",
    "Mazes": "rules",
    "evaluate_player": "players",
    "reference_scores": "players",
    "register_envs": "registration",
    "render_frame": "rendering",
}

__all__ = [
    "MazeEnv",
    "MazeRules",
    "MazeVecEnv",
    "MazeVectorEnv",
    "Mazes",
    "evaluate_player",
    "reference_scores",
    "register_envs",
    "render_frame",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

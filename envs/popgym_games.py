"""POPGym's games as its published scores were made, ``POPGymRepeatPreviousEasy-v0`` and so on.

Morad et al. 2023 show the previous action and whether an episode has just begun beside each observation
(``popgym.wrappers``: ``Antialias(PreviousAction(env))``). Here Gymnasium makes one vector of it, one-hot.
POPGym is imported when a game is made.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import DtypeObservation, FlattenObservation

GAMES = (
    *(f"{game}{level}" for game in ("RepeatPrevious", "RepeatFirst") for level in ("Easy", "Medium", "Hard")),
    *(f"{game}{level}" for game in ("Autoencode", "CountRecall") for level in ("Easy", "Medium", "Hard")),
    *(f"{game}{level}" for game in ("Concentration", "HigherLower") for level in ("Easy", "Medium", "Hard")),
)
"""Those whose observations and actions are discrete."""


def game_id(game: str) -> str:
    """The Gymnasium id of a game of :data:`GAMES`."""
    return f"POPGym{game}-v0"


def register_games() -> None:
    """Register every game of :data:`GAMES`; safe to call again."""
    for game in GAMES:
        if game_id(game) not in gymnasium.registry:
            gymnasium.register(
                id=game_id(game),
                entry_point="mnm_rl.envs.popgym_games:make_game",
                kwargs={"game": game},
                # They may end with the same dictionary as info twice, about which the checker warns.
                disable_env_checker=True,
            )


def make_game(game: str, **settings: Any) -> gymnasium.Env:
    """A game of POPGym's in the published setting.

    CountRecall has a method that draws from numpy's global generator, which its episodes do not use: in
    popgym 1.0.7 the seed decides all of them.

    Args:
        game: one of :data:`GAMES`.
        settings: arguments of POPGym's class.

    Raises:
        ValueError: POPGym is not installed.
    """
    if find_spec("popgym") is None:
        raise ValueError(f"{game_id(game)} needs popgym: pip install 'mnm-rl[rl]'.")
    from popgym import envs, wrappers  # pyright: ignore[reportMissingImports]

    published = wrappers.Antialias(wrappers.PreviousAction(getattr(envs, game)(**settings)))
    return DtypeObservation(FlattenObservation(published), np.float32)

"""POPGym's games as its published scores were made, ``POPGymRepeatPreviousEasy-v0`` and so on.

Morad et al. 2023 show the previous action and whether an episode has just begun beside each observation
(``popgym.wrappers``: ``Antialias(PreviousAction(env))``). Here all of it is one vector, one-hot, made in a
few microseconds. POPGym is imported when a game is made.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

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


def make_game(game: str, **settings: Any) -> OneHotGame:
    """A game of POPGym's in the published setting.

    Args:
        game: one of :data:`GAMES`.
        settings: arguments of POPGym's class.

    Raises:
        ValueError: POPGym is not installed.
    """
    if find_spec("popgym") is None:
        raise ValueError(f"{game_id(game)} needs popgym: pip install 'mnm-rl[rl]'.")
    from popgym import envs  # pyright: ignore[reportMissingImports]

    return OneHotGame(getattr(envs, game)(**settings))


class OneHotGame(gymnasium.Wrapper):
    """Observation, previous action and a flag of the first step as one vector, one-hot.

    It is what Gymnasium's ``flatten`` makes of ``Antialias(PreviousAction(env))``; before the first action of
    an episode the previous one counts as 0.

    Args:
        env: observes Discrete, MultiDiscrete or a Tuple of Discrete, and takes Discrete actions.

    Raises:
        ValueError: it does not.
    """

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        if not isinstance(env.action_space, spaces.Discrete):
            raise ValueError(f"OneHotGame needs Discrete actions, not {env.action_space}.")
        sizes = [*_sizes(env.observation_space), int(env.action_space.n), 2]
        self._offsets = np.cumsum([0, *sizes[:-1]])
        self._length = sum(sizes)
        self.observation_space = spaces.Box(0.0, 1.0, (self._length,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode.

        CountRecall has a method that draws from numpy's global generator, which its episodes do not use: in
        popgym 1.0.7 the seed decides all of them.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        return self._one_hot(observation, 0, True), info

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take an action."""
        action = int(action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._one_hot(observation, action, False), float(reward), bool(terminated), truncated, info

    def _one_hot(self, observation: Any, action: int, first: bool) -> NDArray[np.float32]:
        found = np.zeros(self._length, np.float32)
        numbers = np.array([*np.ravel(observation), action, first], dtype=np.intp)
        found[self._offsets + numbers] = 1
        return found


def _sizes(space: spaces.Space) -> list[int]:
    """How many values each number of an observation has."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return space.nvec.ravel().tolist()
    if isinstance(space, spaces.Tuple):
        return [size for part in space for size in _sizes(part)]
    raise ValueError(f"OneHotGame needs discrete observations, not {space}.")

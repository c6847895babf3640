"""MiniGrid's observations as vectors: what is in view, and where asked for the direction and the mission."""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Mission = Literal["words", "drop"]
MOST_MISSIONS = 100_000
"""A mission space with more of them is not looked through for its words."""
DIRECTIONS = 4


def is_minigrid(env: gymnasium.Env) -> bool:
    """Whether an environment observes as MiniGrid does: an image of symbols, a direction and a mission."""
    space = env.observation_space
    return isinstance(space, spaces.Dict) and {"image", "mission"} <= set(space.spaces)


class SymbolicVector(gymnasium.ObservationWrapper):
    """MiniGrid's symbolic view as one vector, one-hot: object, colour and state of every visible cell.

    Behind them stand the direction (4 numbers), if asked for, and the words of the mission, where it differs
    from episode to episode: for every place in the longest mission, one number for every word that any
    mission has.

    Args:
        env: an environment of MiniGrid.
        mission: ``"words"`` to observe it, ``"drop"`` to hide it; ``None`` for words where it varies.
        direction: observe which way the agent looks; the view turns with it.

    Raises:
        ValueError: the mission varies, and its words are not known beforehand, as in BabyAI's levels.
    """

    def __init__(self, env: gymnasium.Env, mission: Mission | None = None, direction: bool = False):
        super().__init__(env)
        from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX

        self._codes = [
            np.eye(len(codes), dtype=np.float32) for codes in (OBJECT_TO_IDX, COLOR_TO_IDX, STATE_TO_IDX)
        ]
        self._direction = direction
        missions = [] if mission == "drop" else _missions(env)
        varies = len(missions) > 1 or mission == "words"
        self._places = max((len(text.split()) for text in missions), default=0) if varies else 0
        words = sorted({word for text in missions for word in text.split()}) if varies else []
        self._words = {word: number for number, word in enumerate(words)}
        image = env.observation_space["image"]  # pyright: ignore[reportIndexIssue]
        size = image.shape[0] * image.shape[1] * sum(len(codes) for codes in self._codes)
        size += DIRECTIONS * direction + self._places * len(self._words)
        self.observation_space = spaces.Box(0.0, 1.0, (size,), np.float32)

    def observation(self, observation: dict[str, Any]) -> NDArray[np.float32]:
        """The vector of an observation.

        Raises:
            ValueError: a mission that the environment's space does not have.
        """
        image = observation["image"]
        parts = [codes[image[..., channel]].ravel() for channel, codes in enumerate(self._codes)]
        if self._direction:
            parts.append(np.eye(DIRECTIONS, dtype=np.float32)[int(observation["direction"])])
        if self._words:
            parts.append(self._one_hot(observation["mission"]))
        return np.concatenate(parts)

    def _one_hot(self, mission: str) -> NDArray[np.float32]:
        words = mission.split()
        if len(words) > self._places or not set(words) <= self._words.keys():
            raise ValueError(
                f"The mission {mission!r} is not in the environment's space of missions; give --mission drop."
            )
        found = np.zeros((self._places, len(self._words)), np.float32)
        found[range(len(words)), [self._words[word] for word in words]] = 1
        return found.ravel()


def _missions(env: gymnasium.Env) -> list[str]:
    """All missions that an environment may have."""
    space: Any = env.observation_space["mission"]  # pyright: ignore[reportIndexIssue]
    choices = getattr(space, "ordered_placeholders", None) or []
    name = env.spec.id if env.spec is not None else str(env)
    if "BabyAI" in type(space).__name__ or math.prod(map(len, choices)) > MOST_MISSIONS:
        raise ValueError(
            f"The mission of {name} varies, and its words are not known beforehand; give --mission drop."
        )
    return sorted({space.mission_func(*chosen) for chosen in itertools.product(*choices)})

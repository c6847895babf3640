"""What a player of the maze sees and does.

Dimensions: ``N`` mazes, ``O`` observation size.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Turn(NamedTuple):
    """What a player may look at before it moves; only the oracle uses the last two."""

    observations: NDArray[np.float32]
    """What the agents see, shape ``[N, O]``."""
    cells: NDArray[np.intp]
    """Where the agents are, shape ``[N]``."""
    goals: NDArray[np.intp]
    """Where the goals are, shape ``[N]``."""


class Player(Protocol):
    """Plays N mazes at once."""

    def reset(self, num_mazes: int, generator: np.random.Generator) -> None:
        """Get ready for new episodes in ``num_mazes`` mazes, with random numbers from ``generator``."""
        ...

    def act(self, turn: Turn) -> NDArray[np.intp]:
        """An action for each maze, shape ``[N]``."""
        ...


class ReferencePlayer(Player, Protocol):
    """A player whose score is also known exactly."""

    def exact_score(self) -> float:
        """The expected return of an episode."""
        ...

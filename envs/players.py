"""Reference players, which give every score in the maze a meaning.

    random   takes each action with the same probability
    belief   is told the map only; close to the best that is possible without being told the goal
    oracle   is told the goal and its own position; nobody can score more

Dimensions: ``N`` mazes, ``O`` observation size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnm_rl.envs.belief import BeliefPlayer
from mnm_rl.envs.oracle import OraclePlayer, RandomPlayer
from mnm_rl.envs.phases import Phases, episode_phases
from mnm_rl.envs.rules import MazeRules, Mazes
from mnm_rl.envs.turn import Player, ReferencePlayer, Turn

PLAYERS: dict[str, Callable[[MazeRules], ReferencePlayer]] = {
    "random": RandomPlayer,
    "belief": BeliefPlayer,
    "oracle": OraclePlayer,
}


class EpisodeScores(NamedTuple):
    """How a player did."""

    mean: float
    """Mean return of an episode."""
    confidence: float
    """Half the width of the 95% confidence interval of the mean: the score is mean +- confidence."""
    returns: NDArray[np.float64]
    """The return of each episode, shape ``[episodes]``."""
    exact: float | None
    """The expected return, where it is known exactly."""
    phases: Phases
    """Its search for the goal, and its returns to it."""


def make_player(name: str, rules: MazeRules) -> ReferencePlayer:
    """Build a player of ``PLAYERS`` by its name.

    Raises:
        ValueError: there is no such player, or it cannot play by these rules.
    """
    if name not in PLAYERS:
        raise ValueError(f"there is no player {name!r}: choose one of {', '.join(PLAYERS)}.")
    return PLAYERS[name](rules)


def evaluate_player(
    player: str | Player, episodes: int = 1000, seed: int = 0, **maze_kwargs: Any
) -> EpisodeScores:
    """Let a player play whole episodes.

    Args:
        player: a name in ``PLAYERS`` or a player.
        episodes: how many; all are played side by side.
        seed: episode i is the first one of a maze seeded with seed + i.
        **maze_kwargs: arguments of the maze, as for :class:`MazeEnv`.

    Returns:
        the scores.

    Raises:
        ValueError: an argument is not allowed; the message says what is.
    """
    rules = MazeRules(**maze_kwargs)
    chosen = make_player(player, rules) if isinstance(player, str) else player
    mazes = Mazes(rules, episodes)
    mazes.seed(range(seed, seed + episodes))
    mazes.begin_episodes()
    chosen.reset(episodes, np.random.default_rng(seed))
    returns_so_far = [np.zeros(episodes)]
    for _ in range(rules.horizon):
        mazes.step(chosen.act(Turn(mazes.observations(), mazes.cell, mazes.goal)))
        returns_so_far.append(mazes.episode_return.copy())
    returns = mazes.episode_return.copy()
    spread = float(returns.std(ddof=1)) if episodes > 1 else float("nan")
    exact = chosen.exact_score() if hasattr(chosen, "exact_score") else None  # type: ignore[attr-defined]
    phases = episode_phases(np.diff(returns_so_far, axis=0))
    return EpisodeScores(float(returns.mean()), 1.96 * spread / episodes**0.5, returns, exact, phases)


def reference_scores(maze_kwargs: dict[str, Any], episodes: int, seed: int) -> dict[str, EpisodeScores]:
    """Evaluate all players of ``PLAYERS`` on the same mazes.

    Args:
        maze_kwargs: arguments of the maze, as for :class:`MazeEnv`.
        episodes: how many for each player.
        seed: see :func:`evaluate_player`.

    Returns:
        the scores under the keys "random", "belief" and "oracle". "belief" is left out where that player
        cannot play: see the errors of :class:`BeliefPlayer`.
    """
    names = [name for name in PLAYERS if name != "belief" or BeliefPlayer.can_play(MazeRules(**maze_kwargs))]
    return {name: evaluate_player(name, episodes, seed, **maze_kwargs) for name in names}

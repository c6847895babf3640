"""The numbers behind the pictures of an agent in the maze, as text.

Dimensions: ``T`` time, ``B`` mazes, ``L`` layers of the memory, ``N`` steps of one kind.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mnm_rl.analysis.maze.episodes import MazeEpisodes
from mnm_rl.analysis.maze.figures import COLUMNS, CURVES
from mnm_rl.analysis.maze.goal_similarity import by_distance, goal_similarities
from mnm_rl.text_tables import format_table

OF_THE_MEMORY = {"rates": "rate", "write_sizes": "write size", "memory_distances": "distance"}
"""Tensors of a trace with a number for every step (and layer), and their headings."""
DISTANCES = (0, 1, 2, 5, 10, 14)


def describe_finds(episodes: MazeEpisodes) -> str:
    """Means over the steps before the first find, those that see a reward, and all others.

    Only episodes with a find before their last step count. Several layers are separated by slashes.
    """
    chosen = np.asarray(episodes.found[:-1].any(0))
    lines = [
        f"{len(chosen)} episodes, mean reward {episodes.returns.mean():.1f}; "
        f"{chosen.sum()} with a find before the last step, {(~episodes.found.any(0)).sum()} without any"
    ]
    if not chosen.any():
        return lines[0]
    series = _series(episodes, chosen)
    rows = [("", *series)]
    for name, steps in _phases(episodes.found[:, chosen]).items():
        rows.append((name, *(_mean_text(values[steps]) for values in series.values())))
    lines.append(format_table(rows))
    first = episodes.found[:, chosen].argmax(0) + 1
    for name in ("write size", "rate"):
        if name in series:
            peaks = (series[name].mean(2).argmax(0) == first).sum()
            lines.append(
                f"largest {name} of the episode at the first reward: {peaks} of {chosen.sum()} episodes"
            )
    return "\n".join(lines)


def describe_similarities(episodes: MazeEpisodes) -> str:
    """Mean cosine similarities by the agent's distance to the goal: the curves of the picture.

    Raises:
        ValueError: the core reads or writes no values.
    """
    lines = []
    for column in COLUMNS:
        similarities = goal_similarities(episodes, column.comparison)
        rows = [("  steps from the goal", *map(str, DISTANCES))]
        for name, (label, _) in CURVES.items():
            means, _ = by_distance(episodes, getattr(similarities, name))
            known = [means[distance] if distance < len(means) else np.nan for distance in DISTANCES]
            rows.append((f"  {label}", *("-" if np.isnan(mean) else f"{mean:.2f}" for mean in known)))
        lines += [column.title.replace("\n", " "), format_table(rows)]
    return "\n".join(lines)


def _series(episodes: MazeEpisodes, chosen: NDArray[np.bool_]) -> dict[str, NDArray[np.floating]]:
    """Heading -> numbers ``[T, B, L]`` of the chosen episodes."""
    present = {heading: name for name, heading in OF_THE_MEMORY.items() if name in episodes.trace}
    memory = {heading: episodes.trace[name].numpy()[:, chosen] for heading, name in present.items()}
    return {"value": episodes.values[:, chosen, None], **memory}


def _mean_text(values: NDArray[np.floating]) -> str:
    """Over all steps ``[N, L]``, layer by layer."""
    return "/".join(f"{mean:.2f}" for mean in values.mean(0)) if len(values) else "-"


def _phases(found: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """Name -> which steps, ``[T, B]``; every step is in one of them."""
    rewarded = np.concatenate([np.zeros_like(found[:1]), found[:-1]])
    finds = np.cumsum(rewarded, axis=0)
    return {
        "before the first find": finds == 0,
        "at the first reward": rewarded & (finds == 1),
        "at later rewards": rewarded & (finds > 1),
        "at other steps after the first find": ~rewarded & (finds > 0),
    }

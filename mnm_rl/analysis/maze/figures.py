"""Still pictures of agents in the maze: untrained beside trained, and where the memory knows of the goal.

Dimensions: ``T`` time, ``B`` mazes; pictures are uint8 ``[height, width, 3]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from mnm_rl.analysis.maze.episodes import MazeEpisodes
from mnm_rl.analysis.maze.goal_similarity import (
    Comparison,
    GoalSimilarities,
    by_distance,
    by_place,
    goal_similarities,
)
from mnm_rl.envs import render_frame

FONT = 9
PATH_CAPTION = (
    "Yellow: the goal, drawn for us; the agent (green) cannot see it. After each find it is put somewhere at "
    "random:\nthere the next line begins with a ring. Blue lines are early, pink ones late."
)
TILE_SIZE = 40
"""Pixels per cell of the maze, before it is scaled to the figure."""


class Column(NamedTuple):
    """A comparison, and what stands above its pictures."""

    comparison: Comparison
    title: str


COLUMNS = (
    Column(
        Comparison("read_values", "write_values", 1),
        "read values, compared with what was\nwritten when the reward was seen",
    ),
    Column(
        Comparison("write_values", "write_values", 0),
        "written values, compared with what was\nwritten at the step on to the goal",
    ),
    Column(
        Comparison("read_values", "read_values", 0),
        "read values, compared with what was\nread at the step on to the goal",
    ),
)
CURVES = {
    "later": ("with earlier visits of this goal", "tab:red"),
    "other_goal": ("with visits of another goal, another episode", "tab:blue"),
    "before": ("with later visits, before the first find", "0.5"),
}
MAPS = ("later", "other_goal")


def draw_paths(agents: Mapping[str, MazeEpisodes], first: int, last: int) -> Figure:
    """The paths of several agents side by side, in the same steps.

    Args:
        agents: an episode of a single maze for each name that is to stand above a picture.
        first: the first step that is drawn.
        last: the last.
    """
    width, height = 4.2 * len(agents), 4.95
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(1, len(agents), squeeze=False)[0]
    figure.subplots_adjust(0.1 / width, 0.45 / height, 1 - 0.1 / width, 1 - 0.5 / height, 0.05)
    for axes, (name, episode) in zip(grid, agents.items(), strict=True):
        path = episode.cells[first : last + 1, 0].tolist()
        frame = render_frame(episode.rules.layout, path[-1], int(episode.goals[0]), path, TILE_SIZE)
        axes.imshow(frame, interpolation="antialiased")
        axes.set_axis_off()
        found = int(episode.found[first:last].sum())
        finds = {0: "goal not found", 1: "goal found once"}.get(found, f"goal found {found} times")
        axes.set_title(
            f"{name}: reward {episode.returns[0]:.1f} in this episode\nsteps {first} to {last}: {finds}",
            fontsize=FONT + 1,
        )
    figure.text(0.1 / width, 0.05 / height, PATH_CAPTION, fontsize=FONT, va="bottom")
    return figure


def draw_goal_similarity(episodes: MazeEpisodes) -> Figure:
    """How like the visits of the goal the memory's values are elsewhere: maps around the goal, and curves.

    Raises:
        ValueError: the core reads or writes no values.
    """
    figure = Figure(figsize=(3.5 * len(COLUMNS) + 0.8, 9.6), layout="constrained")
    grid = figure.subplots(3, len(COLUMNS), sharey="row")
    values = [goal_similarities(episodes, column.comparison) for column in COLUMNS]
    limit = _limit(episodes, values)
    for place, (column, similarities) in enumerate(zip(COLUMNS, values, strict=True)):
        for row, name in enumerate(MAPS):
            _draw_map(grid[row, place], by_place(episodes, getattr(similarities, name)), limit)
        _draw_curves(grid[2, place], episodes, similarities)
        grid[0, place].set_title(column.title, fontsize=FONT + 1, pad=10)
    for row, name in enumerate(MAPS):
        grid[row, 0].set_ylabel(f"{CURVES[name][0]}\n\ncells below the goal", fontsize=FONT)
    grid[2, 0].set_ylabel("cosine similarity", fontsize=FONT)
    grid[2, 0].legend(fontsize=FONT - 1, frameon=False, loc="upper left")
    # Beside all rows, so that the columns stay above each other.
    bar = figure.colorbar(grid[0, 0].images[0], ax=grid, shrink=0.25, anchor=(0, 0.9), pad=0.01)
    bar.set_label("mean cosine similarity", fontsize=FONT)
    return figure


def _limit(episodes: MazeEpisodes, values: list[GoalSimilarities]) -> float:
    """The strongest similarity of all maps."""
    maps = [by_place(episodes, getattr(value, name)) for value in values for name in MAPS]
    strengths = [float(np.nanmax(np.abs(one))) for one in maps if not np.isnan(one).all()]
    return max(strengths, default=1.0)


def _draw_map(axes: Axes, means: NDArray[np.float64], limit: float) -> None:
    """Means by place, with a ring at the goal in the middle."""
    edge = len(means) / 2
    axes.imshow(
        means, cmap="RdBu_r", vmin=-limit, vmax=limit, extent=(-edge, edge, edge, -edge), interpolation="none"
    )
    axes.plot(0, 0, "o", markerfacecolor="none", markeredgecolor="black", markersize=8)
    axes.xaxis.set_major_locator(MultipleLocator(4))
    axes.yaxis.set_major_locator(MultipleLocator(4))
    axes.set_xlabel("cells right of the goal", fontsize=FONT)
    axes.tick_params(labelsize=FONT - 1)
    axes.set_facecolor("0.85")


def _draw_curves(axes: Axes, episodes: MazeEpisodes, values: GoalSimilarities) -> None:
    """Means by walking distance; the band is one standard deviation of steps."""
    for name, (label, colour) in CURVES.items():
        means, deviations = by_distance(episodes, getattr(values, name))
        distances = np.arange(len(means))
        axes.plot(distances, means, color=colour, label=label, linewidth=1.6)
        if name == "later":
            axes.fill_between(distances, means - deviations, means + deviations, color=colour, alpha=0.15)
    axes.axhline(0, color="0.7", linewidth=0.8)
    axes.set_xlabel("steps from the goal", fontsize=FONT)
    axes.tick_params(labelsize=FONT - 1)
    axes.spines[["top", "right"]].set_visible(False)

"""Figures of the comparison: learning curves, and intervals of the scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mnm_rl.files import atomic_write
from mnm_rl.reproduction.collect import Run
from mnm_rl.reproduction.draw import core_colour
from mnm_rl.reproduction.rl.cores import CONTRIB
from mnm_rl.reproduction.rl.environments import Environment
from mnm_rl.reproduction.rl.experiment import PARAMETERS, WIDTH
from mnm_rl.reproduction.rl.scores import (
    Group,
    Interval,
    aggregated,
    final_score,
    group_label,
    grouped,
    interval_of,
    ordered_environments,
    rewards,
)

COLUMNS = 4
PLACES = 100
SMOOTHED = 0.05
"""Curves are means over this fraction of the steps."""
CONTRIB_COLOUR = "0.25"


def draw_curves(runs: Sequence[Run], path: Path) -> None:
    """Reward against steps in every environment: means and standard deviations over seeds."""
    groups = grouped(runs)
    environments = ordered_environments(groups)
    figure, panels = _panels(len(environments), 3.4, 2.7)
    for axes, environment in zip(panels, environments, strict=True):
        own = [group for group in groups if group.environment is environment]
        for group in own:
            _draw_curve(axes, group)
        _draw_published(axes, environment)
        axes.set(title=environment.name, xlim=(0, None))
        axes.xaxis.set_major_formatter(_steps)
    figure.supxlabel("steps", fontsize=10)
    figure.supylabel("reward per episode in training", fontsize=10)
    lines = [
        Line2D([], [], color=_colour(group), linestyle=_style(group), label=group.label)
        for group in _kinds(groups)
    ]
    columns = 2 if len(environments) < 3 else 4
    figure.legend(handles=lines, loc="outside upper center", ncols=min(len(lines), columns), frameon=False)
    _save(figure, path)


def draw_intervals(runs: Sequence[Run], path: Path) -> None:
    """Interquartile means of the scores with their 95% intervals, for each environment and over all."""
    groups = grouped(runs)
    environments = ordered_environments(groups)
    kinds = _kinds(groups)
    labels = [group.label for group in kinds]
    figure, panels = _panels(len(environments) + 1, 3.4, 0.9 + 0.24 * len(kinds))
    for axes, environment in zip(panels, environments, strict=False):
        own = [group for group in groups if group.environment is environment]
        found = {group.label: (interval_of(group, final_score), _colour(group)) for group in own}
        _draw_intervals(axes, labels, found)
        axes.set(title=environment.name)
    whole = {}
    for equal in (WIDTH, PARAMETERS):
        for core, (interval, _, _) in aggregated(groups, equal).items():
            whole.setdefault(group_label(core, equal), (interval, core_colour(core)))
    _draw_intervals(panels[-1], labels, whole)
    panels[-1].set(title="all, normalised")
    panels[-1].set_facecolor("0.96")
    for number, axes in enumerate(panels):
        if number % COLUMNS:
            axes.set_yticklabels([])
    figure.supxlabel("score: interquartile mean over seeds, 95% interval", fontsize=10)
    _save(figure, path)


def _draw_curve(axes: Axes, group: Group) -> None:
    length = max(run.trial.length for run in group.runs)
    places = np.linspace(length / PLACES, length, PLACES)
    curves = np.array([rewards(run, places, SMOOTHED * length) for run in group.runs])
    there = np.isfinite(curves).any(0)
    if not there.any():
        return
    places, curves = places[there], curves[:, there]
    mean, spread = np.nanmean(curves, 0), np.nanstd(curves, 0)
    axes.plot(places, mean, color=_colour(group), linestyle=_style(group), linewidth=1.4)
    axes.fill_between(places, mean - spread, mean + spread, color=_colour(group), alpha=0.12, linewidth=0)


def _draw_published(axes: Axes, environment: Environment) -> None:
    for mark in environment.published:
        axes.axhline(mark.score, color="0.55", linewidth=0.9, linestyle=(0, (1, 1.5)))
        axes.annotate(
            f"{mark.who}, {_steps(mark.timesteps)}",
            (0.02, mark.score),
            xycoords=("axes fraction", "data"),
            xytext=(0, 1.5),
            textcoords="offset points",
            fontsize=6.5,
            color="0.35",
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7},
        )


def _draw_intervals(axes: Axes, labels: Sequence[str], found: dict[str, tuple[Interval | None, str]]) -> None:
    for row, label in enumerate(labels):
        interval, colour = found.get(label, (None, ""))
        if interval is None:
            continue
        axes.plot([interval.low, interval.high], [row, row], color=colour, linewidth=5, alpha=0.35)
        axes.plot([interval.mean], [row], "|", color=colour, markersize=11, markeredgewidth=2)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="x", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)


def _kinds(groups: Sequence[Group]) -> list[Group]:
    """One group for every label; those that differ only in what they are equal in stand together."""
    kinds = {group.label: group for group in groups}
    cores = list(dict.fromkeys(group.core for group in groups))
    return sorted(kinds.values(), key=lambda group: (group.variant == CONTRIB, cores.index(group.core)))


def _colour(group: Group) -> str:
    return CONTRIB_COLOUR if group.variant == CONTRIB else core_colour(group.core)


def _style(group: Group) -> Literal["-", "--", ":"]:
    if group.variant == CONTRIB:
        return ":"
    return "--" if group.variant == PARAMETERS else "-"


def _steps(value: float, _: float = 0) -> str:
    """100k, 1.5M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _panels(number: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels in rows; what is left of the last row is empty."""
    columns = min(number, COLUMNS)
    rows = math.ceil(number / columns)
    figure = Figure(figsize=(max(width * columns, 6.5), height * rows + 1), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes in grid[number:]:
        axes.remove()
    for axes in grid[:number]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.title.set_fontsize(9)
    return figure, grid[:number]


def _save(figure: Figure, path: Path) -> None:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, bbox_inches="tight")

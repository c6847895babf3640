"""The figures: means over seeds, bands of one standard deviation, the paper's numbers as marks."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnm_rl.files import atomic_write
from mnm_rl.reproduction.collect import Run, chosen, mean_curve, ordered
from mnm_rl.reproduction.paper import (
    AFTER_62K,
    COMPARED_AT,
    MAZE_EPISODES,
    MAZE_REWARD,
    MEMORY_WIDTH,
    core_label,
)

COLOURS = {
    "mnm-p": "tab:blue",
    "mnm-g": "tab:cyan",
    "lstm-salu": "tab:orange",
    "lstm": "tab:green",
    "plastic": "tab:red",
    "plastic-homogenous": "tab:purple",
    "gru": "tab:brown",
    "mnm-p-gated": "navy",
    "ntm": "tab:pink",
    "dnc": "tab:olive",
    "sdnc": "darkgoldenrod",
    "sam": "limegreen",
    "fwm": "black",
    "delta-net": "deeppink",
    "fast-weights": "slategray",
    "tpr-rnn": "teal",
    "entnet": "indigo",
}
"""The same for a model in every figure."""
OTHER_COLOURS = (
    *("tomato", "saddlebrown", "gold", "darkgreen", "mediumpurple", "lightsalmon"),
    *("darkred", "turquoise", "plum", "yellowgreen", "steelblue", "peru"),
)
"""For cores that have no colour of their own."""
MAZE_WINDOW = 3200
"""Episodes of the moving average of maze rewards."""


@dataclass(frozen=True)
class Axis:
    """A column of a curve file, how it is written at the axis, and what its numbers are multiplied by."""

    column: str
    label: str
    scale: float = 1.0


def core_colour(core: str) -> str:
    """The colour of a core; that of a core not in :data:`COLOURS` depends on its name alone."""
    return COLOURS.get(core, OTHER_COLOURS[zlib.crc32(core.encode()) % len(OTHER_COLOURS)])


def draw_errors(runs: Sequence[Run], path: Path) -> None:
    """Figures 2 and 4: validation error against iterations, one panel for each task."""
    x, y = Axis("iteration", "iteration"), Axis("symbol_error", "wrong symbols, validation (%)", 100)
    _draw_panels(runs, path, "valid.csv", x, y)


def draw_babi(runs: Sequence[Run], path: Path) -> None:
    """Validation error against iterations, with the paper's errors after 62,000."""

    def marks(axes: Axes) -> None:
        for core, error in AFTER_62K.items():
            model = "MNM" if core == "mnm-p" else core_label(core)
            label = f"paper, {model} after {COMPARED_AT:,}"
            axes.axhline(error, color=core_colour(core), linewidth=1, linestyle="--", label=label)
        axes.set_ylim(bottom=0)

    x, y = Axis("iteration", "iteration"), Axis("answer_error", "wrong answers, validation (%)", 100)
    _draw_panels(runs, path, "valid.csv", x, y, marks=marks)


def draw_maze(runs: Sequence[Run], path: Path) -> None:
    """Figure 6: mean reward of the last episodes against episodes."""

    def marks(axes: Axes) -> None:
        label = f"paper: MNM after {MAZE_EPISODES:,} episodes, plastic agents after 1M"
        axes.axhline(MAZE_REWARD, color="0.55", linewidth=1, linestyle="--", label=label)
        if axes.get_xlim()[1] >= MAZE_EPISODES:
            axes.plot(MAZE_EPISODES, MAZE_REWARD, "x", color=core_colour("mnm-p"), markersize=8)

    x, y = Axis("episodes", "episodes"), Axis("reward", "reward per episode")
    _draw_panels(runs, path, "progress.csv", x, y, MAZE_WINDOW, marks)


def draw_measurements(runs: Sequence[Run], path: Path) -> None:
    """Figure 3: seconds and memory of a training step against the length of the input."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, column, label in zip(
        figure.subplots(1, 2),
        ("seconds", "peak_mebibytes"),
        ("seconds, forward and backward", "growth of memory (MiB)"),
        strict=True,
    ):
        for core in ordered([run.trial.core for run in runs]):
            lengths, values = measured(runs, core, column)
            axes.plot(lengths, values, "o-", markersize=4, color=core_colour(core), label=core_label(core))
        scale = "log" if any((line.get_ydata() > 0).any() for line in axes.lines) else "linear"
        axes.set(xlabel="length of the input", ylabel=label, xscale="log", yscale=scale)
        lengths = sorted({int(run.trial.settings["sequence_length"]) for run in runs})
        axes.set_xticks(lengths, [str(length) for length in lengths])
        axes.minorticks_off()
        if axes.get_xlim()[1] >= MEMORY_WIDTH:
            axes.axvline(MEMORY_WIDTH, color="0.55", linewidth=1, linestyle="--")
            place = {"xy": (MEMORY_WIDTH, 0.01), "xycoords": ("data", "axes fraction")}
            axes.annotate("width of MNM's memory", **place, rotation=90, ha="right", va="bottom", fontsize=8)
        _finish(axes)
    _save(figure, path)


def measured(runs: Sequence[Run], core: str, column: str) -> tuple[list[int], list[float]]:
    """Lengths, and the best round's time or the largest round's memory, the mean over seeds.

    Lengths of which it was not measured, as memory is off Linux, are left out.
    """
    best: Callable = np.min if column == "seconds" else np.max
    values: dict[int, list[float]] = {}
    for run in runs:
        if run.trial.core == core:
            length = int(run.trial.settings["sequence_length"])
            measurements = run.curve("measurement.csv")[column]
            if len(measurements := measurements[~np.isnan(measurements)]):
                values.setdefault(length, []).append(float(best(measurements)))
    return sorted(values), [float(np.mean(values[length])) for length in sorted(values)]


def _draw_panels(
    runs: Sequence[Run],
    path: Path,
    file: str,
    x: Axis,
    y: Axis,
    width: float = 0,
    marks: Callable[[Axes], None] = lambda axes: None,
) -> None:
    panels = ordered([run.trial.panel for run in runs])
    size = (7.5, 4.5) if len(panels) == 1 else (3.6 * len(panels), 3.6)
    figure = Figure(figsize=size, layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for core in ordered([run.trial.core for run in runs]):
            places, means, spread = mean_curve(chosen(runs, panel, core), file, x.column, y.column, width)
            if not len(places):
                continue
            places, means, spread = places * x.scale, means * y.scale, spread * y.scale
            marker = "o" if len(places) == 1 else None
            axes.plot(
                places, means, marker=marker, color=core_colour(core), linewidth=1.5, label=core_label(core)
            )
            axes.fill_between(
                places, means - spread, means + spread, color=core_colour(core), alpha=0.2, linewidth=0
            )
        marks(axes)
        axes.set(xlabel=x.label, ylabel=y.label, title=panel.replace("-", " "))
        _finish(axes)
    _save(figure, path)


def _finish(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)


def _save(figure: Figure, path: Path) -> None:
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150)

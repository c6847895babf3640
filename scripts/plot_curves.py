"""Draw training curves of several runs in one picture.

    python scripts/plot_curves.py results/maze/mnm-p results/maze/lstm --out docs/images/maze.png --mark 175

Every run gives its folder's name as label, unless --labels says otherwise.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import matplotlib
import numpy as np
import tyro

from mnm_rl.training.curves import read_curve

matplotlib.use("Agg")
from matplotlib import pyplot


@dataclass(frozen=True)
class Args:
    """What to draw."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs, or CSV files."""
    out: Path = Path("curves.png")
    """The picture."""
    file: str = "progress.csv"
    """The curve inside a run's folder; train.csv for supervised runs."""
    x: str = "episodes"
    """Column of the horizontal axis."""
    y: str = "reward"
    """Column of the vertical axis."""
    smooth: int = 100
    """Rows that are averaged; 1 for none."""
    labels: tuple[str, ...] = ()
    """Names in the legend."""
    mark: tuple[float, ...] = ()
    """Heights of horizontal reference lines."""
    mark_labels: tuple[str, ...] = ()
    """What stands at the reference lines."""
    title: str = ""
    """Above the picture."""
    max_x: float | None = None
    """Right end of the horizontal axis."""


def main(args: Args) -> None:
    """Read, average and draw."""
    if args.labels and len(args.labels) != len(args.runs):
        raise ValueError(f"There are {len(args.runs)} runs and {len(args.labels)} labels.")
    figure, axes = pyplot.subplots(figsize=(7.5, 4.5), layout="constrained")
    for run, label in zip(args.runs, args.labels or [run.name for run in args.runs], strict=True):
        curve = read_curve(run / args.file if run.is_dir() else run)
        for name in (args.x, args.y):
            if name not in curve:
                raise ValueError(f"{run} has no column {name}; its columns: {', '.join(curve)}.")
        smoothed = moving_average(np.array(curve[args.y]), args.smooth)
        axes.plot(curve[args.x], smoothed, label=label, linewidth=1.6)
    for height, text in zip(args.mark, [*args.mark_labels, *[""] * len(args.mark)], strict=False):
        axes.axhline(height, color="0.55", linewidth=1, linestyle="--")
        axes.annotate(text, (0.995, height), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    axes.set(xlabel=args.x.replace("_", " "), ylabel=args.y.replace("_", " "), title=args.title)
    axes.set_xlim(0, args.max_x)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=150)
    print(args.out)


def moving_average(values: np.ndarray, width: int) -> np.ndarray:
    """The mean of every value and the ``width - 1`` before it (fewer at the start)."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    return (sums[ends] - sums[starts]) / (ends - starts)


if __name__ == "__main__":
    try:
        main(tyro.cli(Args, description=__doc__))
    except (ValueError, OSError) as error:
        print(f"plot_curves.py: {error}", file=sys.stderr)
        sys.exit(2)

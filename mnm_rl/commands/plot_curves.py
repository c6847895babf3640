"""Draw training curves of several runs in one picture.

    mnm-rl plot-curves results/maze/mnm-p results/maze/lstm --out docs/images/maze.png --mark 175

Every run gives its folder's name as label, unless --labels says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import matplotlib
import numpy as np
import tyro

from mnm_rl.commands.parsing import parse_all
from mnm_rl.files import atomic_write
from mnm_rl.reproduction.collect import moving_average
from mnm_rl.training.command_line import one_sentence_errors
from mnm_rl.training.curves import check_curve, read_curve
from mnm_rl.training.files import check_output_file

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.mathtext import MathTextParser

LARGEST = 1e15
"""Beyond it, neighbouring numbers are too close to each other to be drawn."""


STYLES = ("-", "--", ":", "-.")


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
    window: float = 3200
    """Width of the moving average, in units of the horizontal axis; 0 for none. 3200 episodes are 100 updates
    of 32."""
    at: tuple[float, ...] = ()
    """Places of the horizontal axis at which the averaged curves are printed."""
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
    _check(args)
    curves = [_read(run, args) for run in args.runs]
    figure, axes = pyplot.subplots(figsize=(7.5, 4.5), layout="constrained")
    labels = args.labels or [run.name for run in args.runs]
    for number, ((x, values), label) in enumerate(zip(curves, labels, strict=True)):
        # Colors come back after ten; the lines are of another style then.
        style = STYLES[number // 10 % len(STYLES)]
        y = moving_average(x, values, args.window)
        axes.plot(x, y, label=label, linewidth=1.6, linestyle=style)
        print(f"{label:35} {describe(x, y, args)}")
    for height, text in zip(args.mark, [*args.mark_labels, *[""] * len(args.mark)], strict=False):
        axes.axhline(height, color="0.55", linewidth=1, linestyle="--")
        axes.annotate(text, (0.01, height), xycoords=("axes fraction", "data"), va="bottom")
    axes.set(xlabel=args.x.replace("_", " "), ylabel=args.y.replace("_", " "), title=args.title)
    axes.set_xlim(0, args.max_x)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(args.out) as temporary:
        figure.savefig(temporary, dpi=150)
    print(args.out)


def _check(args: Args) -> None:
    """Before anything is read."""
    if not args.runs:
        raise ValueError("Name at least one folder of a run, or a CSV file, as runs.")
    for name, texts, things in (
        ("labels", args.labels, args.runs),
        ("mark_labels", args.mark_labels, args.mark),
    ):
        if texts and len(texts) != len(things):
            raise ValueError(
                f"{name} must be as many as {'runs' if name == 'labels' else 'marks'}: "
                f"there are {len(things)}, and {len(texts)} {name}."
            )
    numbers = {"window": [args.window], "at": args.at, "mark": args.mark, "max_x": [args.max_x or 1.0]}
    for name, values in numbers.items():
        if not all(abs(value) <= LARGEST for value in values):
            raise ValueError(f"{name} must be a finite number of at most {LARGEST:g}, got {list(values)}.")
    if args.window < 0:
        raise ValueError(f"window must not be negative, got {args.window:g}.")
    if args.max_x is not None and args.max_x <= 0:
        raise ValueError(f"max_x must be positive, got {args.max_x:g}.")
    for name, texts in (("title", [args.title]), ("labels", args.labels), ("mark_labels", args.mark_labels)):
        for text in texts:
            _check_formula(name, text)
    check_output_file(args.out, [f".{ending}" for ending in pyplot.figure().canvas.get_supported_filetypes()])


def _check_formula(name: str, text: str) -> None:
    """Between dollar signs stands TeX, which may be wrong."""
    try:
        MathTextParser("path").parse(text)
    except ValueError as error:
        raise ValueError(f"{name} {text!r} holds a formula that cannot be read.") from error


def _read(run: Path, args: Args) -> tuple[np.ndarray, np.ndarray]:
    """Both columns of a curve."""
    path = run / args.file if run.is_dir() else run
    curve = read_curve(path)
    if not curve:
        raise ValueError(f"The curve {path} has no rows of numbers.")
    for name in (args.x, args.y):
        check_curve(path, name)
    x, y = np.array(curve[args.x]), np.array(curve[args.y])
    known = ~(np.isnan(x) | np.isnan(y))
    if not known.any():
        raise ValueError(f"{path} has no row with numbers in both {args.x} and {args.y}.")
    for name, values in ((args.x, x[known]), (args.y, y[known])):
        if not (np.abs(values) <= LARGEST).all():
            raise ValueError(f"The curve {path} has a number in {name} that is beyond {LARGEST:g}.")
    if falls := np.flatnonzero(np.diff(x[known]) < 0).tolist():
        one, other = x[known][falls[0] : falls[0] + 2]
        raise ValueError(
            f"The curve {path} cannot be drawn over {args.x}, which goes from {one:g} back to {other:g}."
        )
    return x[known], y[known]


def describe(x: np.ndarray, y: np.ndarray, args: Args) -> str:
    """The averaged curve at the asked places, where it passes the marks, and its end."""
    decimals = 1 if np.abs(y).max() >= 10 else 3
    parts = [f"{y[np.searchsorted(x, at)]:.{decimals}f} at {at:g}" for at in args.at if x[0] <= at <= x[-1]]
    for mark in args.mark:
        passed = np.flatnonzero((y > mark) & (x >= args.window))
        parts += [f"passes {mark:g} at {x[passed[0]]:g}"] if len(passed) else []
    return ", ".join([*parts, f"ends with {y[-1]:.{decimals}f} at {x[-1]:g}"])


def run_from_command_line() -> None:
    """Turn bad input into one sentence and exit status 2."""
    with one_sentence_errors("plot_curves.py"):
        main(parse_all(Args, __doc__))

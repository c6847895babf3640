"""What the runs of an experiment have come to, and means over their seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnm_rl.reproduction.testing import HeldOutErrors, read_test_errors
from mnm_rl.reproduction.trials import Job, Trial, has_run, is_trained, progress
from mnm_rl.training.curves import read_curve

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """A trial of which there is something to see."""

    trial: Trial
    folder: Path
    trained: bool
    """Whether it has reached its length or the error at which it stops."""
    progress: float
    """How far it is, in units of its length."""

    def curve(self, file: str) -> dict[str, Array]:
        """The columns of a curve file; none if it is not there."""
        return _read(self.folder / file)

    def test_errors(self) -> HeldOutErrors | None:
        """Errors on the test set, once the run was tested."""
        return read_test_errors(self.folder)


def collect(jobs: Sequence[Job]) -> list[Run]:
    """The runs of which there is at least one row of numbers, in the order of the trials.

    Raises:
        ValueError: a folder holds another run than the trial's.
    """
    _read.cache_clear()
    return [
        Run(job.trial, job.folder, is_trained(job), progress(job))
        for job in jobs
        if has_run(job) and progress(job) > 0
    ]


def chosen(runs: Sequence[Run], panel: str, core: str) -> list[Run]:
    """The runs of a panel and a core, one for each seed."""
    return [run for run in runs if run.trial.panel == panel and run.trial.core == core]


def ordered(names: Sequence[str]) -> list[str]:
    """The names without repetition, in the order of their first appearance."""
    return list(dict.fromkeys(names))


def mean_curve(
    runs: Sequence[Run], file: str, x: str, y: str, width: float = 0
) -> tuple[Array, Array, Array]:
    """Mean and standard deviation over seeds, at every place where one of the runs has a value.

    A run that ended early because it had solved its task keeps its last value; one that is not finished
    counts as far as it is.

    Args:
        runs: of the same panel and core.
        file: the curve file.
        x: column of the horizontal axis.
        y: column of the vertical axis.
        width: each value is first averaged with those before it, within this distance on the horizontal axis.

    Returns:
        places, means and standard deviations; empty if there are no values.
    """
    curves = [(run, run.curve(file)) for run in runs]
    curves = [(run, curve) for run, curve in curves if x in curve and y in curve]
    if not curves:
        return np.empty(0), np.empty(0), np.empty(0)
    grid = np.unique(np.concatenate([curve[x] for _, curve in curves]))
    rows = []
    for run, curve in curves:
        values = moving_average(curve[x], curve[y], width)
        after = values[-1] if run.trained else np.nan
        rows.append(np.interp(grid, curve[x], values, left=np.nan, right=after))
    # Where no seed has begun or all have ended there is nothing to average.
    present = ~np.isnan(rows).all(0)
    values = np.array(rows)[:, present]
    return grid[present], np.nanmean(values, 0), np.nanstd(values, 0)


def moving_average(x: Array, y: Array, width: float) -> Array:
    """The mean of every value of ``y`` and those before it within ``width`` of its ``x``."""
    sums = np.cumsum(np.concatenate([[0.0], y]))
    ends = np.arange(1, len(y) + 1)
    starts = np.minimum(np.searchsorted(x, x - width, side="right"), ends - 1)
    return (sums[ends] - sums[starts]) / (ends - starts)


def read_document(run: Run) -> dict:
    """The run's config document, with the versions and the hardware that made it."""
    return json.loads((run.folder / "config.json").read_text())


@cache
def _read(path: Path) -> dict[str, Array]:
    if not path.exists():
        return {}
    return {name: np.array(column) for name, column in read_curve(path).items()}

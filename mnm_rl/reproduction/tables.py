"""Numbers beside the paper's, as tables in Markdown and CSV; those of bAbI are in ``babi.py``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mnm_rl.files import atomic_write
from mnm_rl.reproduction.collect import Run, chosen, mean_curve, ordered
from mnm_rl.reproduction.draw import MAZE_WINDOW, measured
from mnm_rl.reproduction.experiments import SOLVED
from mnm_rl.reproduction.paper import ALGORITHMIC, MAZE, MAZE_REWARD, core_label

SPREAD = "± is the standard deviation over runs (that of the numbers themselves, as in the paper's Table 4)."


@dataclass(frozen=True)
class Table:
    """A heading, rows of text, and what must be said beside them."""

    name: str
    columns: Sequence[str]
    rows: list[Sequence[str]]
    notes: list[str] = field(default_factory=list)

    def write(self, directory: Path) -> list[Path]:
        """Write NAME.md and NAME.csv."""
        with atomic_write(directory / f"{self.name}.md") as temporary:
            temporary.write_text(self.markdown())
        with (
            atomic_write(directory / f"{self.name}.csv") as temporary,
            temporary.open("w", newline="") as file,
        ):
            csv.writer(file).writerows([self.columns, *self.rows])
        return [directory / f"{self.name}.md", directory / f"{self.name}.csv"]

    def markdown(self) -> str:
        """The table, and the notes below it."""
        head = [self.columns, ["---"] * len(self.columns)]
        lines = ["| " + " | ".join(row) + " |" for row in [*head, *self.rows]]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)]) + "\n"


def algorithmic_table(name: str, runs: Sequence[Run]) -> Table:
    """Figures 2 and 4 in numbers, for each task and model."""
    columns = [
        "task",
        "model",
        "runs",
        "iterations",
        f"at most {SOLVED:.2%} wrong after",
        "test error (%)",
        "paper",
    ]
    rows = []
    for panel, core, group in groups(runs):
        tests = [100 * test.symbol_error for run in group if (test := run.test_errors()) is not None]
        row = [
            panel.replace("-", " "),
            core_label(core),
            _count(group),
            spread([run.progress for run in group], 0),
        ]
        rows.append([*row, _solved_after(group), spread(tests, 3), ALGORITHMIC.get((panel, core), "")])
    return Table(name, columns, rows, [SPREAD, "Errors are of symbols (priority sort: bits)."])


def maze_table(name: str, runs: Sequence[Run]) -> Table:
    """Figure 6 in numbers."""
    columns = [
        "model",
        "runs",
        "episodes",
        f"reward, last {MAZE_WINDOW:,} episodes",
        f"passes {MAZE_REWARD} after",
    ]
    rows = []
    for _, core, group in groups(runs):
        averages = [mean_curve([run], "progress.csv", "episodes", "reward", MAZE_WINDOW)[:2] for run in group]
        passed = [x[(y > MAZE_REWARD) & (x >= MAZE_WINDOW)][:1] for x, y in averages]
        rows.append(
            [
                core_label(core),
                _count(group),
                spread([run.progress for run in group], 0),
                spread([float(y[-1]) for _, y in averages], 1),
                _some([float(first[0]) for first in passed if len(first)], len(group)),
                MAZE.get(core, ""),
            ]
        )
    return Table(name, [*columns, "paper"], rows, [SPREAD])


def measurement_table(name: str, runs: Sequence[Run]) -> Table:
    """Figure 3 in numbers: milliseconds and MiB of a training step, for each length and model."""
    lengths = sorted({int(run.trial.settings["sequence_length"]) for run in runs})
    columns, rows = ["length of the input"], [[str(length)] for length in lengths]
    for column, unit, scale in (("seconds", "ms", 1e3), ("peak_mebibytes", "MiB", 1)):
        for core in ordered([run.trial.core for run in runs]):
            columns.append(f"{core_label(core)}, {unit}")
            found = dict(zip(*measured(runs, core, column), strict=True))
            for length, row in zip(lengths, rows, strict=True):
                row.append(f"{scale * found[length]:.1f}" if length in found else "")
    note = "Forward and backward pass, one thread: the fastest round, and the largest growth of memory."
    return Table(name, columns, [*rows], [note])


def groups(runs: Sequence[Run]) -> list[tuple[str, str, list[Run]]]:
    """Panel, core and the runs of all seeds, in the order of the trials."""
    pairs = dict.fromkeys((run.trial.panel, run.trial.core) for run in runs)
    return [(panel, core, chosen(runs, panel, core)) for panel, core in pairs]


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation; the number itself if there is one, nothing if there is none."""
    if not values:
        return ""
    mean = f"{np.mean(values):,.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values):,.{digits}f}"


def _count(group: Sequence[Run]) -> str:
    unfinished = sum(not run.trained for run in group)
    return f"{len(group)}" + (f" ({unfinished} not finished)" if unfinished else "")


def _solved_after(group: Sequence[Run]) -> str:
    """The iteration of the first validation with hardly an error."""
    first = []
    for run in group:
        curve = run.curve("valid.csv")
        first += list(curve["iteration"][curve["symbol_error"] <= SOLVED][:1])
    return _some(first, len(group))


def _some(values: Sequence[float], total: int) -> str:
    """Mean of the runs that got there, and how many did if not all."""
    if not values:
        return "never"
    return spread(values, 0) + (f" ({len(values)} of {total} runs)" if len(values) < total else "")

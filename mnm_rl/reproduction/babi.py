"""Tables 1, 3 and 4: test errors on the bAbI tasks beside the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mnm_rl.reproduction.collect import Run, ordered
from mnm_rl.reproduction.paper import AFTER_62K, COMPARED_AT, TABLE_1, TABLE_4, core_label
from mnm_rl.reproduction.tables import SPREAD, Table, groups, spread
from mnm_rl.tasks.babi.table import FAILURE, PAPER_ERRORS, PAPER_MODELS

MEAN, FAILED = "mean error (%)", f"failed tasks (> {FAILURE:g}%)"


def babi_tables(runs: Sequence[Run]) -> list[Table]:
    """Tables 1, 3 and 4."""
    return [means(runs), best_runs(runs), all_runs(runs)]


def means(runs: Sequence[Run]) -> Table:
    """Table 1: mean error and failed tasks over runs, and the mean error after 62,000 iterations."""
    columns = ["model", "tested runs", MEAN, FAILED, f"mean error after {COMPARED_AT:,} iterations (%)"]
    rows: list[Sequence[str]] = []
    for _, core, group in groups(runs):
        errors = _tested(group)
        failed = [_failures(error) for error in errors]
        cells = [spread([_mean(error) for error in errors], 2), spread(failed, 2 if len(failed) > 1 else 0)]
        rows.append([core_label(core), str(len(errors)), *cells, spread(_when_compared(group), 1)])
    for model, published in TABLE_1.items():
        rows.append([f"paper, {model}", "", *(f"{mean} ± {deviation}" for mean, deviation in published), ""])
    rows.append(["paper, MNM", "", "", "", str(AFTER_62K["mnm-p"])])
    rows.append(["paper, LSTM+SALU", "", "", "", str(AFTER_62K["lstm-salu"])])
    note = "The last column has validation errors for our runs; the paper does not say which errors it means."
    return Table("table1", columns, rows, [SPREAD, note, *_notes(runs)])


def best_runs(runs: Sequence[Run]) -> Table:
    """Table 3: errors on each task, of each model's best run by test error."""
    tested = {core_label(core): errors for _, core, group in groups(runs) if (errors := _tested(group))}
    columns = {label: min(errors, key=_mean) for label, errors in tested.items()}
    for number, model in enumerate(PAPER_MODELS):
        columns[f"paper, {model}"] = {task: row[1][number] for task, row in PAPER_ERRORS.items()}
    rows: list[Sequence[str]] = [
        [f"{task}: {name}", *(_cell(errors.get(task)) for errors in columns.values())]
        for task, (name, _) in PAPER_ERRORS.items()
    ]
    rows.append([MEAN, *(f"{_mean(errors):.3f}" for errors in columns.values())])
    rows.append([FAILED, *(str(_failures(errors)) for errors in columns.values())])
    return Table("table3", ["task", *columns], rows, _notes(runs))


def all_runs(runs: Sequence[Run]) -> Table:
    """Table 4: errors on each task, of every run of MNM-p; the best is that of each task."""
    group = [run for run in runs if run.trial.core == "mnm-p" and run.test_errors() is not None]
    errors = _tested(group)
    rows: list[Sequence[str]] = []
    for task, (name, _) in PAPER_ERRORS.items():
        own = [error[task] for error in errors if task in error]
        mean, deviation, best = TABLE_4[task]
        paper = [f"{mean:g} ± {deviation:g}", f"{best:g}"]
        cells = [_cell(error.get(task)) for error in errors]
        rows.append([f"{task}: {name}", *cells, spread(own, 2), _cell(min(own, default=None)), *paper])
    seeds = [f"seed {run.trial.seed}" for run in group]
    columns = ["task", *seeds, "mean", "best", "paper, mean of 12", "paper, best"]
    return Table("table4", columns, rows, [SPREAD, *_notes(runs)])


def _tested(group: Sequence[Run]) -> list[dict[int, float]]:
    """Task -> test error in %, for each run that was tested."""
    tests = [test for run in group if (test := run.test_errors()) is not None]
    return [{task: 100 * error for task, error in test.by_task.items()} for test in tests]


def _mean(errors: Mapping[int, float]) -> float:
    return float(np.mean(list(errors.values())))


def _failures(errors: Mapping[int, float]) -> int:
    return sum(error > FAILURE for error in errors.values())


def _when_compared(group: Sequence[Run]) -> list[float]:
    found = []
    for run in group:
        curve = run.curve("valid.csv")
        found += list(100 * curve["answer_error"][curve["iteration"] == COMPARED_AT])
    return found


def _cell(error: float | None) -> str:
    return "" if error is None else f"{error:.2f}"


def _notes(runs: Sequence[Run]) -> list[str]:
    """What must be said about the data and the tasks of the runs, without repetition."""
    tests = [test for run in runs if (test := run.test_errors()) is not None]
    notes = ordered([f"Data: {note}." for test in tests for note in test.notes])
    tasks = sorted({task for test in tests for task in test.by_task})
    if tests and len(tasks) < len(PAPER_ERRORS):
        notes.append(f"Trained and tested on tasks {', '.join(map(str, tasks))} only.")
    return notes

"""From the runs of an experiment to its figure, its tables, and a note on how they were made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from mnm_rl.files import atomic_write
from mnm_rl.reproduction import draw, tables
from mnm_rl.reproduction.babi import babi_tables
from mnm_rl.reproduction.collect import Run, collect, read_document
from mnm_rl.reproduction.experiments import COMPARISON, Experiment
from mnm_rl.reproduction.rl.figures import draw_curves, draw_intervals
from mnm_rl.reproduction.rl.scores import comparison_tables
from mnm_rl.reproduction.trials import Job
from mnm_rl.training.folder import hardware, versions

DRAW = {
    "figure2": draw.draw_errors,
    "figure3": draw.draw_measurements,
    "figure4": draw.draw_errors,
    "figure6": draw.draw_maze,
    "table1": draw.draw_babi,
    COMPARISON: draw_curves,
}


def write_results(
    experiment: Experiment, jobs: Sequence[Job], directory: Path, command: Sequence[str]
) -> list[Path]:
    """Draw and tabulate what there is.

    Args:
        experiment: what it is.
        jobs: its trials.
        directory: where the files go.
        command: the command line that asked for it.

    Returns:
        the files.

    Raises:
        ValueError: there is nothing yet, or a folder holds another run.
    """
    runs = collect(jobs)
    if not runs:
        raise ValueError(f"There are no runs with any numbers in {directory} yet.")
    # All that can go wrong with what is in the folders goes wrong before anything is written.
    made, document = make_tables(experiment.name, runs), _about(experiment, runs, command)
    picture = directory / f"{experiment.name}.png"
    DRAW[experiment.name](runs, picture)
    files = [picture]
    if experiment.name == COMPARISON:
        files.append(directory / "rl-intervals.png")
        draw_intervals(runs, files[-1])
    for table in made:
        files += table.write(directory)
    about = directory / "about.json"
    with atomic_write(about) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n")
    return [*files, about]


def make_tables(name: str, runs: Sequence[Run]) -> list[tables.Table]:
    """The tables of an experiment."""
    if name == COMPARISON:
        return comparison_tables(runs)
    if name == "table1":
        return babi_tables(runs)
    if name == "figure3":
        return [tables.measurement_table(name, runs)]
    return [(tables.maze_table if name == "figure6" else tables.algorithmic_table)(name, runs)]


def _about(experiment: Experiment, runs: Sequence[Run], command: Sequence[str]) -> dict[str, Any]:
    """The command, software and hardware of the drawing, and those of every run."""
    made_by = {run.trial.name: read_document(run) for run in runs}
    return {
        "command": list(command),
        "name": experiment.name,
        "scale": experiment.scale,
        "seeds": experiment.seeds,
        "versions": {**versions(), "matplotlib": metadata.version("matplotlib")},
        "hardware": hardware(),
        "missing": [trial.name for trial in experiment.trials if trial.name not in made_by],
        "runs": {
            run.trial.name: {
                "finished": run.trained,
                "length": run.progress,
                "versions": made_by[run.trial.name].get("versions"),
                "hardware": made_by[run.trial.name].get("hardware"),
            }
            for run in runs
        },
    }

"""One training run of a figure or table: its settings, its command line, and how far its folder is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mnm_rl.training.curves import read_curve
from mnm_rl.training.folder import CONFIG_FILE, read_run

ProgramName = Literal["supervised", "a2c", "measurement"]

FREE_SETTINGS = (
    *("iterations", "episodes", "timesteps", "rounds", "data", "babi_supplement"),
    *("checkpoint_minutes", "log_every", "analyze_every", "watch_every"),
)
"""What may differ in a run that was made by hand: its length, the data at hand (the tables say which they
were), and what its numbers do not depend on."""


@dataclass(frozen=True)
class Trial:
    """A run, by what makes it different from a run with all the defaults."""

    name: str
    """Of its folder."""
    program: ProgramName
    """What trains it."""
    panel: str
    """The part of the figure that it belongs to."""
    core: str
    """The memory."""
    seed: int
    """Of the run."""
    length: int
    """Iterations, episodes or rounds."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """More options of the program, by their names in its config."""


@dataclass(frozen=True)
class Program:
    """A command that makes runs, and where their folders tell how far they are."""

    kind: str
    """As in the run's config.json."""
    command: tuple[str, ...]
    """Without options."""
    flags: tuple[str, ...]
    """Options for every run."""
    defaults: Mapping[str, Any]
    """The settings of a run without options."""
    length_option: str
    """The setting that says how long a run is."""
    curve_file: str
    """Its last row says how far a run is ..."""
    curve_column: str
    """... in this column."""
    checkpoint_file: str | None
    """What a run goes on from; ``None`` if it always begins anew."""
    tested: bool = False
    """Whether the errors on the test set are wanted after training."""


@dataclass(frozen=True)
class Job:
    """A trial with the program that trains it and the folder of its experiment."""

    trial: Trial
    program: Program
    directory: Path

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.directory / self.trial.name

    @property
    def log(self) -> Path:
        """What the run printed, with the commands that made it; outside the run's folder."""
        return self.directory / "logs" / f"{self.trial.name}.log"

    @property
    def settings(self) -> dict[str, Any]:
        """All settings of the run, other than its length."""
        given = {"core": self.trial.core, "seed": self.trial.seed, **self.trial.settings}
        return {**self.program.defaults, **given}


def programs(defaults: Mapping[str, Mapping[str, Any]]) -> dict[str, Program]:
    """All programs that make runs.

    Args:
        defaults: for each program the settings of a run without options.
    """
    quiet = ("--quiet", "--no-tensorboard")
    mnm_rl = (sys.executable, "-m", "mnm_rl")
    return {
        "supervised": Program(
            kind="supervised",
            command=(*mnm_rl, "train-supervised"),
            flags=quiet,
            defaults=defaults["supervised"],
            length_option="iterations",
            curve_file="valid.csv",
            curve_column="iteration",
            checkpoint_file="checkpoint.pt",
            tested=True,
        ),
        "a2c": Program(
            kind="a2c",
            command=(*mnm_rl, "train-a2c"),
            flags=quiet,
            defaults=defaults["a2c"],
            length_option="episodes",
            curve_file="progress.csv",
            curve_column="episodes",
            checkpoint_file="checkpoint.zip",
        ),
        "measurement": Program(
            kind="measurement",
            command=(sys.executable, "-m", "mnm_rl.reproduction.measure"),
            flags=(),
            defaults=defaults["measurement"],
            length_option="rounds",
            curve_file="measurement.csv",
            curve_column="round",
            checkpoint_file=None,
        ),
    }


def start_command(job: Job) -> list[str]:
    """The command line that makes the run from its start."""
    trial, options = job.trial, []
    for name, value in {"core": trial.core, "seed": trial.seed, **trial.settings}.items():
        is_flag = value is True and job.program.defaults[name] is False
        options += [_option(name)] if is_flag else [_option(name), str(value)]
    return [*job.program.command, *options, *_length(job), "--log-dir", str(job.folder), *job.program.flags]


def resume_command(job: Job) -> list[str]:
    """The command line that goes on with the run from its checkpoint."""
    return [*job.program.command, "--resume", str(job.folder), *_length(job), *job.program.flags]


def has_run(job: Job) -> bool:
    """Whether there is a run in the trial's folder, which is then one with the trial's settings.

    Raises:
        ValueError: what is there is another run, or none.
    """
    if not job.folder.exists() or _was_interrupted_at_once(job):
        return False
    document = read_run(job.folder)
    if document["kind"] != job.program.kind:
        raise ValueError(
            f"{job.folder} holds a run of kind {document['kind']}, not {job.program.kind}; move it away, "
            "or give another --out."
        )
    found, wanted = {**job.program.defaults, **document["config"]}, job.settings
    for name in sorted(found.keys() | wanted.keys()):
        if name not in FREE_SETTINGS and found.get(name) != wanted.get(name):
            raise ValueError(
                f"{job.folder} holds a run with {name} {found.get(name)}, not {wanted.get(name)}; move it "
                "away, or give another --out."
            )
    return True


def progress(job: Job) -> float:
    """How far the run is, in units of its length."""
    return max(_curve(job).get(job.program.curve_column, []), default=0)


def is_trained(job: Job) -> bool:
    """Whether the run has reached its length, or the error at which it stops.

    Raises:
        ValueError: see :func:`has_run`.
    """
    if not has_run(job):
        return False
    stop = job.settings.get("stop_error")
    column = "answer_error" if job.settings.get("task") == "babi" else "symbol_error"
    solved = stop is not None and min(_curve(job).get(column, []), default=1) <= stop
    return solved or progress(job) >= job.trial.length


def can_go_on(job: Job) -> bool:
    """Whether an unfinished run has a checkpoint; if not, it has to begin anew.

    Raises:
        ValueError: it has none, but was made elsewhere, so that nobody expects it to be thrown away.
    """
    name = job.program.checkpoint_file
    if name is not None and (job.folder / name).exists():
        return True
    if name is not None and not _was_made_here(job):
        raise ValueError(
            f"The run in {job.folder} is not finished and has no {name} to go on from; add it, or move the "
            "run away."
        )
    return False


def check(job: Job) -> None:
    """Make sure that what is in the trial's folder can be used.

    Raises:
        ValueError: see :func:`has_run` and :func:`can_go_on`.
    """
    if has_run(job) and not is_trained(job):
        can_go_on(job)


def _was_interrupted_at_once(job: Job) -> bool:
    """An empty folder, or one that a killed process of ours had no time to describe."""
    described = (job.folder / CONFIG_FILE).exists()
    return not described and (_was_made_here(job) or not any(job.folder.iterdir()))


def _was_made_here(job: Job) -> bool:
    """Whether the run was started by :func:`start_command`, so that it can be made again."""
    return job.log.exists() and f"--log-dir {job.folder}" in job.log.read_text(errors="replace")


def _curve(job: Job) -> dict[str, list[float]]:
    path = job.folder / job.program.curve_file
    return read_curve(path) if path.exists() else {}


def _length(job: Job) -> list[str]:
    return [_option(job.program.length_option), str(job.trial.length)]


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")

"""One training run of a figure or table: its settings, its command line, and how far its folder is."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mnm_rl.reproduction.testing import read_any_test_errors
from mnm_rl.training.curves import check_curve, read_curve
from mnm_rl.training.folder import CONFIG_FILE, TEST_FILE, RunKind, read_run

ProgramName = Literal["supervised", "a2c", "ppo", "measurement", "sb3-contrib"]

FREE_SETTINGS = (
    *("iterations", "episodes", "timesteps", "rounds"),
    *("checkpoint_minutes", "log_every", "analyze_every", "watch_every"),
)
"""What may differ in a run that was made by hand, beside what its task says: its length, and what its numbers
do not depend on."""


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
    """Iterations, episodes, timesteps or rounds."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """More options of the program, by their names in its config."""
    variant: str = ""
    """Tells trials of the same panel, core and seed apart."""


@dataclass(frozen=True)
class Program:
    """A command that makes runs."""

    kind: RunKind
    """What the folders of its runs hold."""
    command: tuple[str, ...]
    """Without options."""
    flags: tuple[str, ...]
    """Options for every run."""
    complete: Callable[[Mapping[str, Any]], dict[str, Any]]
    """All settings of a run, plain and flat, from those that it was given or that its config.json has."""
    words: Callable[[Mapping[str, Any]], list[str]]
    """Options of the command line for settings."""
    length_option: str
    """The setting that says how long a run is."""
    error: Callable[[Mapping[str, Any]], str] = lambda settings: "symbol_error"
    """The column of the curve with the error at which a run stops, by the run's settings."""
    free: Callable[[Mapping[str, Any]], Collection[str]] = lambda settings: ()
    """Settings that may differ in a run made by hand, by the run's settings, beside :data:`FREE_SETTINGS`."""
    tested: bool = False
    """Whether the errors on the test set are wanted after training."""
    test_kinds: Callable[[Mapping[str, Any]], bool] = lambda settings: False
    """Whether these are wanted for each kind of sequence, by the run's settings."""
    counted: str | None = None
    """The column of the curve that the length is counted in, if it is not the kind's."""
    shown: Callable[[Mapping[str, Any]], Collection[str]] = lambda settings: ()
    """Columns of the curve that are drawn or tabulated, by the run's settings: a number in every row."""
    gaps: Collection[str] = ()
    """Further ones, in which a number may be missing."""


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
        return self.program.complete(self.given)

    @property
    def given(self) -> dict[str, Any]:
        """What makes the run different from one with all the defaults, other than its length."""
        return {"core": self.trial.core, "seed": self.trial.seed, **self.trial.settings}


def start_command(job: Job) -> list[str]:
    """The command line that makes the run from its start."""
    program, where = job.program, ("--log-dir", str(job.folder))
    return [*program.command, *program.words(job.given), *_length(job), *where, *program.flags]


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
    document, kind = read_run(job.folder), job.program.kind
    if document["kind"] != kind.name:
        raise ValueError(
            f"{job.folder} holds a run of kind {document['kind']}, not {kind.name}; move it away, "
            "or give another --out."
        )
    found, wanted = _found_settings(job, document["config"]), job.settings
    free = {*FREE_SETTINGS, *job.program.free(wanted)}
    for name in sorted(found.keys() | wanted.keys()):
        if name not in free and found.get(name) != wanted.get(name):
            option = name.rpartition(".")[2]
            raise ValueError(
                f"{job.folder} holds a run with {option} {found.get(name)}, not {wanted.get(name)}; move it "
                "away, or give another --out."
            )
    return True


def _found_settings(job: Job, config: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return job.program.complete(config)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The run in {job.folder} has settings that cannot be used: {error}") from error


def progress(job: Job) -> float:
    """How far the run is, in units of its length."""
    return max(_curve(job).get(_counted(job), []), default=0)


def _counted(job: Job) -> str:
    return job.program.counted or job.program.kind.counted


def is_trained(job: Job) -> bool:
    """Whether the run has reached its length, or the error at which it stops.

    Raises:
        ValueError: see :func:`has_run`.
    """
    if not has_run(job):
        return False
    settings = job.settings
    stop, column = settings.get("stop_error"), job.program.error(settings)
    solved = stop is not None and min(_curve(job).get(column, []), default=1) <= stop
    return solved or progress(job) >= job.trial.length


def can_go_on(job: Job) -> bool:
    """Whether an unfinished run has a checkpoint; if not, it has to begin anew.

    Raises:
        ValueError: it has none, but was made elsewhere, so that nobody expects it to be thrown away.
    """
    name = job.program.kind.checkpoint
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
        ValueError: see :func:`has_run` and :func:`can_go_on`; or a curve or the errors on the test set are
            damaged, or lack something that is drawn or tabulated.
    """
    if not has_run(job):
        return
    _check_curve(job)
    _check_test_errors(job)
    if not is_trained(job):
        can_go_on(job)


def _check_curve(job: Job) -> None:
    path, curve = job.folder / job.program.kind.curve, _curve(job)
    if not curve:  # a heading, at most
        return
    counted, shown, gaps = _counted(job), job.program.shown(job.settings), job.program.gaps
    for name in (counted, *shown, *gaps):
        check_curve(path, name)
        may_lack = name in gaps
        if bad := [x for x in curve[name] if not (math.isfinite(x) or (may_lack and math.isnan(x)))]:
            raise ValueError(f"The curve {path} is damaged: its {name} has {bad[0]}, not a finite number.")
    steps = zip([0.0, *curve[counted]], curve[counted], strict=False)
    if falls := next(((one, other) for one, other in steps if other < one), None):
        raise ValueError(
            f"The curve {path} is damaged: its {counted} goes from {falls[0]:g} back to {falls[1]:g}."
        )


def _check_test_errors(job: Job) -> None:
    errors = read_any_test_errors(job.folder) if job.program.tested else None
    if errors is not None and not errors.by_task and job.program.test_kinds(job.settings):
        raise ValueError(
            f"{job.folder / TEST_FILE} is damaged: its by_task has no task; remove it, and the run is tested "
            "again."
        )


def _was_interrupted_at_once(job: Job) -> bool:
    """An empty folder, or one that a killed process of ours had no time to describe."""
    described = (job.folder / CONFIG_FILE).exists()
    return not described and (_was_made_here(job) or not any(job.folder.iterdir()))


def _was_made_here(job: Job) -> bool:
    """Whether the run was started by :func:`start_command`, so that it can be made again."""
    return job.log.exists() and f"--log-dir {job.folder}" in job.log.read_text(errors="replace")


def _curve(job: Job) -> dict[str, list[float]]:
    path = job.folder / job.program.kind.curve
    return read_curve(path) if path.exists() else {}


def _length(job: Job) -> list[str]:
    return [f"--{job.program.length_option.replace('_', '-')}", str(job.trial.length)]

"""Reproduce a figure or table of the paper, or compare cores: train what is missing, then draw and tabulate.

$ mnm-rl reproduce figure2 --scale smoke
$ mnm-rl reproduce figure6 --seeds 3 --workers 2
$ mnm-rl reproduce table1 --scale paper --ray-address auto
$ mnm-rl reproduce figure2 --panels instance-1,instance-2 --seeds 5
$ mnm-rl reproduce figure6 --draw-only
$ mnm-rl reproduce rl --environments RepeatPreviousEasy,MemoryS7 --cores mnm-p,lstm

Names: figure2 (dictionary inference), figure3 (time and memory), figure4 (double copy, priority sort),
figure6 (maze), table1, table3 and table4 (bAbI; the same runs give all three), and rl, which is not in the
paper: cores in reinforcement learning. Stop it at any time: the same command goes on from the checkpoints.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mnm_rl.commands.parsing import parse_all
from mnm_rl.reproduction.experiments import COMPARISON, Experiment, make_experiment
from mnm_rl.reproduction.processes import Outcome
from mnm_rl.reproduction.programs import programs
from mnm_rl.reproduction.results import write_results
from mnm_rl.reproduction.rl.experiment import make_comparison
from mnm_rl.reproduction.sweep import check_ray, default_workers, run_locally, run_on_ray
from mnm_rl.reproduction.testing import has_gone_on
from mnm_rl.reproduction.trials import Job, check, has_run, is_trained
from mnm_rl.training.command_line import one_sentence_errors
from mnm_rl.training.files import check_writable_directory


@dataclass(frozen=True)
class Args:
    """What to reproduce, and where."""

    name: Annotated[str, tyro.conf.Positional]
    """figure2, figure3, figure4, figure6, table1, table3, table4 or rl."""
    scale: str = "laptop"
    """smoke: minutes, shows that it runs; laptop: a night on two cores; paper: the paper's own size."""
    seeds: int | None = None
    """Runs of every model; one, or at the scale paper the paper's number, if not given (rl: 1, 3 and 5)."""
    environments: tuple[str, ...] | None = None
    """rl only: some of its environments, separated by commas or spaces; all if not given."""
    panels: tuple[str, ...] | None = None
    """Some parts of a figure, such as instance-1,instance-2 of figure2; all if not given. Not for rl."""
    cores: tuple[str, ...] | None = None
    """What is compared, such as mnm-p,ntm,dnc; the paper's models if not given. rl: some of its cores,
    sb3-contrib among them; all if not given."""
    out: Path = Path("runs/reproduce")
    """Runs and results go to OUT/NAME-SCALE."""
    workers: int | None = None
    """Trials that run at once, one thread each; one per processor core if not given."""
    ray_address: str | None = None
    """Run the trials on this Ray cluster instead: auto, ray://HOST:PORT or local."""
    draw_only: bool = False
    """Train nothing; draw what is there."""


def main(args: Args) -> int:
    """Run, collect, draw; returns the exit status."""
    experiment = _experiment(args)
    _check_options(args, experiment)
    directory = (args.out / f"{experiment.name}-{experiment.scale}").absolute()
    check_writable_directory(directory)
    jobs = _jobs(experiment, directory)
    for job in jobs:
        check(job)
    if args.draw_only:
        _name_untested(jobs)
    failures = [] if args.draw_only else _run(args, experiment, jobs)
    for path in write_results(experiment, jobs, directory, sys.argv) if len(failures) < len(jobs) else []:
        print(path)
    for failure in failures:
        print(f"\n{failure.name} failed: {failure.error}", file=sys.stderr)
    return 1 if failures else 0


def _name_untested(jobs: Sequence[Job]) -> None:
    """Say which runs have gone on since they were tested: tables leave out such errors."""
    for job in jobs:
        if job.program.tested and has_run(job) and has_gone_on(job.folder):
            print(
                f"{job.trial.name} has other parameters than those that were tested; without --draw-only it "
                "is tested again.",
                file=sys.stderr,
            )


def _experiment(args: Args) -> Experiment:
    environments, cores = _names("environments", args.environments), _names("cores", args.cores)
    panels = _names("panels", args.panels)
    if args.name == COMPARISON:
        if panels:
            raise ValueError("panels are the parts of a figure of the paper; rl has environments.")
        return make_comparison(args.scale, args.seeds, environments, cores)
    if environments:
        raise ValueError(f"environments is an option of rl, not of {args.name}.")
    return make_experiment(args.name, args.scale, args.seeds, cores, panels)


def _names(option: str, words: Sequence[str] | None) -> list[str]:
    """Names that stand in words of the command line, several of them in one word or not; none if not given.

    Raises:
        ValueError: the option is given, without a name.
    """
    if words is None:
        return []
    names = [name.strip() for word in words for name in word.split(",") if name.strip()]
    if not names:
        raise ValueError(
            f"{option} names nothing; write names with commas or spaces between them, or leave --{option} "
            "out."
        )
    return names


def _check_options(args: Args, experiment: Experiment) -> None:
    if args.workers is not None and args.workers < 1:
        raise ValueError(f"workers must be at least 1, got {args.workers}.")
    for name in ("workers", "ray_address"):
        if args.draw_only and getattr(args, name) is not None:
            raise ValueError(f"{name} is about training, which --draw-only leaves out.")
    if args.workers is not None and args.ray_address is not None:
        raise ValueError("workers are processes of this machine; with --ray-address Ray decides.")
    if experiment.timed and args.ray_address is not None:
        raise ValueError(f"{experiment.name} measures time on this machine, so it takes no --ray-address.")
    if args.ray_address is not None:
        check_ray()


def _jobs(experiment: Experiment, directory: Path) -> list[Job]:
    known = programs()
    return [Job(trial, known[trial.program], directory) for trial in experiment.trials]


def _run(args: Args, experiment: Experiment, jobs: Sequence[Job]) -> list[Outcome]:
    """Train and test what is missing; returns the failures."""
    done = sum(is_trained(job) for job in jobs)
    workers = 1 if experiment.timed else args.workers or default_workers()
    how = "on Ray" if args.ray_address is not None else f"{workers} at a time"
    print(
        f"{experiment.name}, {experiment.scale}: {done} of {len(jobs)} trials are trained; {how}", flush=True
    )
    ended: list[Outcome] = []

    def report(outcome: Outcome) -> None:
        ended.append(outcome)
        how = "failed" if outcome.error else "done"
        print(f"[{len(ended)}/{len(jobs)}] {outcome.name} {how}", flush=True)

    if args.ray_address is not None:
        run_on_ray(jobs, args.ray_address, report)
    else:
        run_locally(jobs, workers, report)
    return [outcome for outcome in ended if outcome.error]


def run_from_command_line() -> None:
    """Turn bad input into one sentence and exit status 2."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with one_sentence_errors("reproduce.py"):
        try:
            sys.exit(main(parse_all(Args, __doc__)))
        except KeyboardInterrupt:
            print("Stopped; the checkpoints are saved. The same command goes on.", file=sys.stderr)
            sys.exit(130)

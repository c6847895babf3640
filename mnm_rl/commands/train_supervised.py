"""Train a memory core on a supervised task.

$ mnm-rl train-supervised --task dictionary --instance 2
$ mnm-rl train-supervised --task babi --babi-tasks 1
$ mnm-rl train-supervised --resume runs/dictionary-mnm-p-seed0
$ torchrun --nproc-per-node 2 -m mnm_rl train-supervised --task double-copy
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from mnm_rl.commands.parsing import check_resume, find_choices, parse_run
from mnm_rl.cores import CORES
from mnm_rl.training.command_line import command_words, one_sentence_errors
from mnm_rl.training.devices import join_processes, leave_processes, set_up_torch
from mnm_rl.training.folder import (
    SUPERVISED,
    change_config,
    check_changes,
    create_run,
    names_modules,
    open_run,
)
from mnm_rl.training.locks import hold_run
from mnm_rl.training.stopping import stop_on_signals
from mnm_rl.training.supervised.checkpoint import read_checkpoint, saved_task
from mnm_rl.training.supervised.config import (
    SupervisedConfig,
    config_from_dict,
    config_to_dict,
    fits_together,
)
from mnm_rl.training.supervised.display import TrainingDisplay
from mnm_rl.training.supervised.model import count_parameters
from mnm_rl.training.supervised.search import read_best
from mnm_rl.training.supervised.trainer import SupervisedTrainer, build_model


@dataclass(frozen=True)
class Args:
    """Where to run, and what."""

    run: tyro.conf.OmitArgPrefixes[SupervisedConfig] = field(default_factory=SupervisedConfig)
    log_dir: str | None = None
    """Folder of the run; runs/TASK-CORE-seedN if not given."""
    settings: str | None = None
    """The best.json of a search (tune.py), whose settings are taken where nothing else is given."""
    resume: str | None = None
    """Folder of a run to go on with. Its settings are used; --iterations, --data, --learning-rate,
    --schedule, --babi-repeat, --babi-rename and --analyze-every may be given anew."""
    trusted: bool = False
    """The run to go on with is your own or of somebody you trust: modules that it names are imported, and its
    files may run code, as Stable-Baselines3's can."""
    device: str = "cpu"
    """cpu or cuda."""
    threads: int = 1
    """Processor threads of each process."""
    tensorboard: bool = True
    """Write TensorBoard numbers, and pictures of the memory, beside the CSV files."""
    quiet: bool = False
    """No progress display."""


def main(args: Args) -> None:
    """Set up the run and train."""
    set_up_torch(args.device, args.threads)
    check_resume(args.resume, args.log_dir, args.trusted)
    if args.resume is not None and args.settings is not None:
        raise ValueError("A run that goes on has its settings; leave out --settings or --resume.")
    is_main = join_processes(args.device)
    if args.resume is not None:
        directory = Path(args.resume)
        with hold_run(directory) if is_main else nullcontext():
            _train(args, _resume(args, directory), directory)
    else:
        args.run.check()
        directory = Path(args.log_dir or f"runs/{_name(args.run)}")
        trainer = SupervisedTrainer(args.run, args.run.make_task(), directory, args.device)
        trainer.check_batches()
        if is_main:
            create_run(directory, SUPERVISED, config_to_dict(args.run))
        with hold_run(directory) if is_main else nullcontext():
            _train(args, trainer, directory)


def _name(config: SupervisedConfig) -> str:
    """Of a run's folder."""
    return f"{config.task}-{config.core}-seed{config.seed}".replace(":", "-")


def _resume(args: Args, directory: Path) -> SupervisedTrainer:
    """An existing run, at its checkpoint, or at its start if it was killed before there was one."""
    saved = config_to_dict(config_from_dict(open_run(directory, SUPERVISED, args.trusted)))
    wanted = config_to_dict(args.run)
    check_changes(directory, saved, wanted, args.run.changeable)
    # Before the trainer, in which processes wait for each other: none has written anything yet.
    state = read_checkpoint(directory, args.run) if SUPERVISED.has_begun(directory) else None
    # The symbols that the parameters were trained with, whatever the data are by now.
    task = args.run.make_task(None if state is None else saved_task(state))
    trainer = SupervisedTrainer(args.run, task, directory, args.device)
    if state is not None:
        trainer.load(directory, state)
    if args.run.iterations < min(trainer.progress.iteration, saved["iterations"]):
        done = f"{trainer.progress.iteration} of {saved['iterations']}"
        raise ValueError(f"The run has made {done} iterations; iterations must not be less.")
    trainer.check_batches()
    SUPERVISED.check_curves(directory)
    if wanted != saved and trainer.is_main:
        change_config(directory, saved, wanted, f"iteration {trainer.progress.iteration}")
    return trainer


def _train(args: Args, trainer: SupervisedTrainer, directory: Path) -> None:
    """To the end of the run, or until it is stopped."""
    main_process, done = trainer.is_main, trainer.progress.iteration
    console = Console(quiet=args.quiet or not main_process)
    _describe(trainer, directory, console)
    writer = None
    if args.tensorboard and main_process:
        # What was written for later iterations, before the run was stopped, is not shown.
        writer = SummaryWriter(directory, purge_step=done + 1 if args.resume else None)
    look = _watch_memory(trainer, writer) if writer is not None else lambda iteration: None
    display = TrainingDisplay(console, trainer.config.iterations, done)

    def report(kind: str, row: dict[str, Any]) -> None:
        display.update(kind, row)
        for name, value in row.items():
            if writer is not None and name != "iteration":
                writer.add_scalar(f"{kind}/{name}", value, row["iteration"])

    trust = " --trusted" if names_modules(config_to_dict(trainer.config)) else ""
    stop_on_signals(trainer.request_stop)
    try:
        with display:
            trainer.train(report, look, display.tick)
    except KeyboardInterrupt:
        again = f"{command_words('train-supervised')} --resume {directory}{trust}"
        console.print(f"Stopped at iteration {trainer.saved_iteration}. Go on with: {again}", soft_wrap=True)
        sys.exit(130)
    finally:
        if writer is not None:
            writer.close()
    best = trainer.progress.best_error
    evaluate = f"{command_words('evaluate')} {directory}{trust}"
    console.print(f"Best validation error {best:.2%}. Test it with: {evaluate}", soft_wrap=True)


def _watch_memory(trainer: SupervisedTrainer, writer: SummaryWriter) -> Callable[[int], None]:
    """What shows the memory in TensorBoard; imported here, because drawing takes a while to import."""
    from mnm_rl.analysis.board import MemoryBoard

    return MemoryBoard(writer, trainer.model, trainer.task).show


def _parse() -> Args:
    """The options; where a run goes on, its own settings are the defaults."""
    chosen = find_choices(sys.argv[1:])
    named = {name: value for name in ("task", "core") if (value := getattr(chosen, name)) is not None}
    if chosen.resume is None:
        config = SupervisedConfig(**named) if chosen.settings is None else _searched(chosen.settings, named)
    else:
        saved = open_run(chosen.resume, SUPERVISED, chosen.trusted)
        config = config_from_dict(saved)
        check_changes(chosen.resume, {"task": config.task, "core": config.core}, named, ())
    return parse_run(Args(run=config), __doc__)


def _searched(file: str, named: dict[str, str]) -> SupervisedConfig:
    """The config in a file of settings, which must be of the named task and core."""
    config = read_best(Path(file))
    for name, value in named.items():
        if getattr(config, name) != value:
            raise ValueError(f"The settings {file} are of the {name} {getattr(config, name)}, not {value}.")
    return config


def _describe(trainer: SupervisedTrainer, directory: Path, console: Console) -> None:
    """What is trained, and how its size compares with the other cores'."""
    config, task = trainer.config, trainer.task
    console.print(
        f"{config.task} with {config.core}, batch {trainer.batch_size}, seed {config.seed}: {directory}"
    )
    if task.data_place is not None:
        console.print(f"Questions from {task.data_place}")
    for note in task.notes:
        console.print(note)
    counts = [f"{config.core} {count_parameters(trainer.model):,} (this run)"]
    for core in CORES:
        if core != config.core and fits_together(config.task, core):
            with suppress(ValueError):  # one that has no place, or that cannot read these data
                other = build_model(replace(config, core=core, core_settings={}), task)
                counts.append(f"{core} {count_parameters(other):,}")
    console.print("Parameters: " + ", ".join(counts))


def run_from_command_line() -> None:
    """Turn bad input into one sentence and exit status 2."""
    try:
        with one_sentence_errors("train_supervised.py"):
            main(_parse())
    finally:
        leave_processes()

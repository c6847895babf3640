"""Train on generated bAbI questions alone, test on the official ones, and compare with training on those.

    python benchmarks/babi_transfer.py --data PATH
    python benchmarks/babi_transfer.py --data PATH --tasks 1 --origins generated --iterations 3000

One run for each task, origin and seed, one after the other. What trains on generated questions is validated
on generated questions too, and sees no official text before its test. Start the command again to go on after
an interruption, with more iterations too; finished runs are not repeated. Several copies may share the folder
if they are given different tasks.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import torch
import tyro

from mnm_rl.cores import core_settings
from mnm_rl.tasks.babi import BabiTask, find_source, parse_tasks
from mnm_rl.tasks.babi.comparison.page import check_page, write_part
from mnm_rl.tasks.babi.comparison.report import table
from mnm_rl.tasks.babi.generate import CATALOGUE
from mnm_rl.training.command_line import one_sentence_errors
from mnm_rl.training.folder import SUPERVISED, load_state
from mnm_rl.training.supervised.checkpoint import load_parameters
from mnm_rl.training.supervised.config import SupervisedConfig, config_to_dict
from mnm_rl.training.supervised.trainer import SupervisedTrainer, evaluate

TrainedOn = Literal["official", "generated", "fresh"]
RESULT = "result.json"


@dataclass(frozen=True)
class Args:
    """What to train."""

    data: str | None = None
    """The official files, as for training."""
    tasks: str = "1,4,6,11,15,20"
    """Numbers of tasks, each trained alone."""
    origins: tuple[TrainedOn, ...] = ("official", "generated")
    """What to train on; fresh is generated questions none of which comes twice."""
    seeds: tuple[int, ...] = (0,)
    """Of the parameters and the order of the questions."""
    core: str = "mnm-p"
    """The memory."""
    hidden_size: int = 256
    """Width of the controller and of the embedding."""
    heads: int = 1
    """Interaction heads, for cores that have them."""
    batch_size: int = 64
    """Questions in an update."""
    learning_rate: float = 1e-3
    """Of Adam."""
    iterations: int = 3000
    """Updates at most."""
    validate_every: int = 200
    """Updates between validations; a run ends as soon as no validation question is answered wrongly."""
    out: Path = Path("runs/babi-transfer")
    """Folder of all runs."""
    page: Path | None = None
    """A page whose part "transfer" gets the table, such as docs/babi.md."""
    device: str = "cpu"
    """cpu or cuda."""


@dataclass(frozen=True)
class Run:
    """One training run."""

    task: int
    origin: TrainedOn
    seed: int

    def folder(self, out: Path) -> Path:
        """Where it is kept."""
        return out / f"task{self.task}-{self.origin}-seed{self.seed}"


def main(args: Args) -> None:
    """Do what is not done yet, and print the table after each run."""
    torch.set_num_threads(1)
    find_source(args.data)
    if args.page is not None:
        check_page(args.page, "transfer")
    runs = [Run(*run) for run in product(parse_tasks(args.tasks), args.origins, args.seeds)]
    _config(args, runs[0])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for run in runs:
        if not _is_done(args, run):
            _train_and_test(args, run)
            print(_format(args, runs), flush=True)
    text = _format(args, runs)
    print(text)
    if args.page is not None:
        write_part(args.page, "transfer", text)


def _config(args: Args, run: Run) -> SupervisedConfig:
    return SupervisedConfig(
        task="babi",
        core=args.core,
        task_options={"tasks": str(run.task)},
        core_settings={
            "hidden_size": args.hidden_size,
            **({"heads": args.heads} if "heads" in core_settings(args.core) else {}),
        },
        embedding_size=args.hidden_size,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        iterations=args.iterations,
        validate_every=args.validate_every,
        stop_error=0.0,
        seed=run.seed,
        checkpoint_minutes=2.0,
    )


def _train_and_test(args: Args, run: Run) -> None:
    config, folder = _config(args, run), run.folder(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    official = BabiTask(args.data, tasks=(run.task,), origin="official")
    task = official
    if run.origin != "official":
        task = BabiTask(tasks=(run.task,), origin="generated", fresh=run.origin == "fresh")
        if task.vocabulary != official.vocabulary:
            raise ValueError("The generated and the official questions have different words.")
    trainer = SupervisedTrainer(config, task, folder, args.device)
    if SUPERVISED.checkpoint_of(folder).is_file():
        trainer.load(folder)
    print(f"{folder}: from iteration {trainer.progress.iteration}", flush=True)
    try:
        trainer.train(lambda kind, row: _say(kind, row))
    except KeyboardInterrupt:
        trainer.save()
        print(f"Stopped at iteration {trainer.progress.iteration}; the same command goes on from there.")
        sys.exit(130)
    best = SUPERVISED.parameters(folder)
    load_parameters(trainer.model, load_state(best), best)
    errors = evaluate(trainer.model, official, "test", args.device)
    result = {
        "config": config_to_dict(config),
        "iterations": trainer.progress.iteration,
        "seconds": trainer.progress.seconds,
        "validation_error": trainer.progress.best_error,
        "test_error": errors.answer_error,
    }
    (folder / RESULT).write_text(json.dumps(result, indent=2))


def _say(kind: str, row: dict[str, float]) -> None:
    if kind == "valid":
        print(
            f"  {row['iteration']:>6}  {row['seconds']:>6.0f} s  error {row['answer_error']:.2%}", flush=True
        )


def _result(args: Args, run: Run) -> dict[str, float] | None:
    path = run.folder(args.out) / RESULT
    return json.loads(path.read_text()) if path.is_file() else None


def _is_done(args: Args, run: Run) -> bool:
    """Whether the run has ended, solved its validation set or run for as long as now asked for."""
    result = _result(args, run)
    return result is not None and (result["validation_error"] == 0 or result["iterations"] >= args.iterations)


def _format(args: Args, runs: list[Run]) -> str:
    """Errors on the official test set, in %, and iterations."""
    heading = ["task", "seed", *(f"trained on {origin}" for origin in args.origins)]
    rows = []
    for task, seed in dict.fromkeys((run.task, run.seed) for run in runs):
        cells = [_cell(_result(args, Run(task, origin, seed))) for origin in args.origins]
        rows.append([f"{task} {CATALOGUE[task].name.replace('-', ' ')}", str(seed), *cells])
    return table(heading, rows)


def _cell(result: dict[str, float] | None) -> str:
    if result is None:
        return ""
    return f"{result['test_error']:.2%} after {result['iterations']:,} iterations"


def run_from_command_line() -> None:
    """Turn bad input into one sentence and exit status 2."""
    with one_sentence_errors("babi_transfer.py"):
        main(tyro.cli(Args, description=__doc__))


if __name__ == "__main__":
    run_from_command_line()

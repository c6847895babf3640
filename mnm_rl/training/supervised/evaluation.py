"""The test error of a supervised run, as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mnm_rl.tasks import ErrorCounts, Task
from mnm_rl.text_tables import format_table
from mnm_rl.training.folder import SUPERVISED, load_state, read_kind, run_directory
from mnm_rl.training.supervised.checkpoint import check_config, load_parameters, saved_task
from mnm_rl.training.supervised.config import SupervisedConfig, config_from_dict
from mnm_rl.training.supervised.model import Model
from mnm_rl.training.supervised.trainer import build_model, evaluate


def load_run(run: Path, trusted: bool = False, **task_options: Any) -> tuple[SupervisedConfig, Task, Model]:
    """A run's task, and its model with the best parameters by validation error, or the last without any yet.

    The task is there for its test set: bAbI's comes without the synthetic training data of a supplement,
    which need not be at hand; a note says that the run had them.

    Args:
        run: the run's folder, or a file with parameters in it.
        trusted: whether modules that the run names may be imported.
        task_options: options of the task in place of the run's own, such as where bAbI's data are, or another
            instance of dictionary inference; all instances have the same symbols.

    Raises:
        ValueError: if there is no such run, its files are damaged or of different runs, the data do not fit
            its vocabulary, or the task has no such option.
    """
    kind, values = read_kind(run, trusted)
    if kind is not SUPERVISED:
        raise ValueError(f"{run} is a run of kind {kind.name}, not {SUPERVISED.name}.")
    made_with = config_from_dict(values)
    config = made_with.with_task_options(**task_options)
    path = kind.parameters(run)
    state = load_state(path)
    check_config(state, made_with, path, run_directory(run))
    task = config.make_task(saved_task(state), evaluation=True)
    model = build_model(config, task)
    load_parameters(model, state, path)
    return config, task, model.eval()


def evaluate_run(
    run: Path,
    split: str = "test",
    device: torch.device | str = "cpu",
    trusted: bool = False,
    **task_options: Any,
) -> tuple[SupervisedConfig, Task, ErrorCounts]:
    """Evaluate a run; see :func:`load_run`.

    Args:
        run: the run's folder, or a file with parameters in it.
        split: ``"test"`` or ``"valid"``.
        device: where to compute.
        trusted: as for :func:`load_run`.
        task_options: as for :func:`load_run`.

    Raises:
        ValueError: as :func:`load_run`.
    """
    config, task, model = load_run(run, trusted, **task_options)
    return config, task, evaluate(model.to(device), task, split, device)


def describe_errors(config: SupervisedConfig, task: Task, counts: ErrorCounts, split: str = "test") -> str:
    """Errors in words, and beside published ones where there are such; for bAbI the paper's Table 3."""
    answers = f"{counts.answer_error:.2%} of {counts.answers:,} answers"
    symbols = (
        f"{counts.symbol_error:.3%} of {counts.symbols:,} {'bits' if task.input_features else 'symbols'}"
    )
    name = ", ".join(filter(None, [config.task, config.options.describe()]))
    head = f"{name}, {config.core}, seed {config.seed}: {split} error {symbols}, {answers}"
    if counts.sequences:
        wrong = f"{counts.wrong_bits_per_sequence:.3f} wrong bits"
        head += f"; cost {counts.bits_per_sequence:.3f} bits a sequence, {wrong}"
    table = task.error_table(counts)
    return f"{head}\n{format_table(table, task.notes)}" if table else "\n".join([head, *task.notes])

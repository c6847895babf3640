"""The test error of a supervised run, as text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from mnm_rl.tasks import ErrorCounts, Task
from mnm_rl.text_tables import format_table
from mnm_rl.training.folder import load_state, read_run
from mnm_rl.training.supervised.config import SupervisedConfig, config_from_dict
from mnm_rl.training.supervised.model import SequenceModel
from mnm_rl.training.supervised.trainer import (
    BEST_FILE,
    CHECKPOINT_FILE,
    build_model,
    evaluate,
    load_parameters,
)

SUPPLEMENT_NOTE = (
    "the run was trained with the supplement: SYNTHETIC questions of task 3 added to the real ones"
)


def load_run(
    run: Path, data: str | None = None, instance: Literal[1, 2, 3, 4] | None = None
) -> tuple[SupervisedConfig, Task, SequenceModel]:
    """A run's task, and its model with the best parameters by validation error, or the last without any yet.

    The task is there for its test set: bAbI's comes without the synthetic training data of a supplement,
    which need not be at hand; a note says that the run had them.

    Args:
        run: the run's folder, or a file with parameters in it.
        data: where bAbI's files are, if not where the run found them.
        instance: of dictionary inference, in place of the run's own; all have the same symbols.

    Raises:
        ValueError: if there is no such run, its files are damaged, the data do not fit its vocabulary, or an
            instance is given for another task.
    """
    directory = run if run.is_dir() else run.parent
    config = config_from_dict(read_run(directory)["config"])
    if instance is not None:
        config = replace(config, instance=instance, support_size=None, length=None, smaller_instances=False)
        config.check()
    path = directory / (BEST_FILE if (directory / BEST_FILE).exists() else CHECKPOINT_FILE)
    path = path if run.is_dir() else run
    state = load_state(path)
    task = replace(config, babi_supplement=False).make_task(data, state.get("vocabulary"))
    if config.babi_supplement:
        getattr(task, "notes", []).append(SUPPLEMENT_NOTE)
    model = build_model(config, task)
    load_parameters(model, state, config, path)
    return config, task, model.eval()


def evaluate_run(
    run: Path,
    split: str = "test",
    device: torch.device | str = "cpu",
    data: str | None = None,
    instance: Literal[1, 2, 3, 4] | None = None,
) -> tuple[SupervisedConfig, Task, ErrorCounts]:
    """Evaluate a run; see :func:`load_run`.

    Args:
        run: the run's folder, or a file with parameters in it.
        split: ``"test"`` or ``"valid"``.
        device: where to compute.
        data: where bAbI's files are, if not where the run found them.
        instance: of dictionary inference, in place of the run's own.

    Raises:
        ValueError: as :func:`load_run`.
    """
    config, task, model = load_run(run, data, instance)
    return config, task, evaluate(model.to(device), task, split, device)


def describe_errors(config: SupervisedConfig, task: Task, counts: ErrorCounts, split: str = "test") -> str:
    """Errors in words; for bAbI the paper's Table 3 with a column for this run."""
    answers = f"{counts.answer_error:.2%} of {counts.answers:,} answers"
    symbols = (
        f"{counts.symbol_error:.3%} of {counts.symbols:,} {'bits' if task.input_features else 'symbols'}"
    )
    name = config.task if config.instance is None else f"{config.task}, instance {config.instance}"
    head = f"{name}, {config.core}, seed {config.seed}: {split} error {symbols}, {answers}"
    if config.task != "babi":
        return head
    from mnm_rl.tasks.babi import babi_table

    return f"{head}\n{format_table(babi_table(counts), getattr(task, 'notes', []))}"

"""The test error of a supervised run, as text."""

from __future__ import annotations

from pathlib import Path

import torch

from mnm_rl.tasks import ErrorCounts, Task
from mnm_rl.training.config import SupervisedConfig, config_from_dict
from mnm_rl.training.runs import load_state, read_run
from mnm_rl.training.supervised import BEST_FILE, CHECKPOINT_FILE, build_model, evaluate, load_parameters


def evaluate_run(
    run: Path, split: str = "test", device: torch.device | str = "cpu", data: str | None = None
) -> tuple[SupervisedConfig, Task, ErrorCounts]:
    """Evaluate a run's best parameters (by validation error), or its last ones if it has none yet.

    Args:
        run: the run's folder, or a file with parameters in it.
        split: ``"test"`` or ``"valid"``.
        device: where to compute.
        data: where bAbI's files are, if not where the run found them.

    Raises:
        ValueError: if there is no such run, its files are damaged, or the data do not fit its vocabulary.
    """
    directory = run if run.is_dir() else run.parent
    config = config_from_dict(read_run(directory)["config"])
    path = directory / (BEST_FILE if (directory / BEST_FILE).exists() else CHECKPOINT_FILE)
    path = path if run.is_dir() else run
    state = load_state(path)
    task = config.make_task(data, state.get("vocabulary"))
    model = build_model(config, task)
    load_parameters(model, state, config, path)
    return config, task, evaluate(model.to(device), task, split, device)


def describe_errors(config: SupervisedConfig, task: Task, counts: ErrorCounts, split: str = "test") -> str:
    """Errors in words; for bAbI the paper's Table 3 with a column for this run."""
    answers = f"{counts.answer_error:.2%} of {counts.answers:,} answers"
    symbols = (
        f"{counts.symbol_error:.3%} of {counts.symbols:,} {'bits' if task.input_features else 'symbols'}"
    )
    head = f"{config.task}, {config.core}, seed {config.seed}: {split} error {symbols}, {answers}"
    if config.task != "babi":
        return head
    from mnm_rl.tasks.babi import babi_table, format_table

    return f"{head}\n{format_table(babi_table(counts), getattr(task, 'notes', []))}"

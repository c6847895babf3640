"""Errors of a supervised run on the test set; ``python -m mnm_rl.reproduction.testing RUN`` keeps them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from mnm_rl.files import atomic_write
from mnm_rl.training.command_line import one_sentence_errors
from mnm_rl.training.folder import TEST_FILE
from mnm_rl.training.supervised.evaluation import evaluate_run


@dataclass(frozen=True)
class HeldOutErrors:
    """Errors of a run's best parameters (by validation error) on the test set, as fractions."""

    symbol_error: float
    answer_error: float
    by_task: dict[int, float]
    """bAbI: task -> fraction of answers that are wrong."""
    notes: list[str]
    """bAbI: what must be said about the data beside the numbers."""


def write_test_errors(run: Path) -> None:
    """Evaluate a run and write the errors to its folder.

    Raises:
        ValueError: there is no such run, or its data cannot be read.
    """
    _, task, counts = evaluate_run(run)
    document = {
        "symbol_error": counts.symbol_error,
        "answer_error": counts.answer_error,
        "by_task": {kind: wrong / answers for kind, (wrong, answers) in counts.by_kind.items() if kind},
        "notes": list(task.notes),
    }
    with atomic_write(run / TEST_FILE) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n")


def read_test_errors(run: Path) -> HeldOutErrors | None:
    """The errors that :func:`write_test_errors` wrote, or ``None`` if the run was not tested yet."""
    path = run / TEST_FILE
    if not path.exists():
        return None
    document = json.loads(path.read_text())
    by_task = {int(task): error for task, error in document["by_task"].items()}
    return HeldOutErrors(document["symbol_error"], document["answer_error"], by_task, document["notes"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    with one_sentence_errors("testing"):
        write_test_errors(Path(sys.argv[1]))

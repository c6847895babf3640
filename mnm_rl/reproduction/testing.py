"""Errors of a supervised run on the test set; ``python -m mnm_rl.reproduction.testing RUN`` keeps them."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mnm_rl.files import atomic_write
from mnm_rl.training.command_line import one_sentence_errors
from mnm_rl.training.folder import SUPERVISED, TEST_FILE
from mnm_rl.training.supervised.evaluation import evaluate_run

SECONDS_OF_A_COPY = 10
"""Errors that do not say of which parameters they are count as older than these from so many seconds on: a
folder that was copied has its files in any order."""


@dataclass(frozen=True)
class HeldOutErrors:
    """Errors of a run's best parameters (by validation error) on the test set, as fractions."""

    symbol_error: float
    answer_error: float
    by_task: dict[int, float]
    """bAbI: task -> fraction of answers that are wrong."""
    notes: list[str]
    """bAbI: what must be said about the data beside the numbers."""
    parameters: Parameters | None = None
    """Whose errors they are; ``None`` in files from before that was kept."""


@dataclass(frozen=True)
class Parameters:
    """Which parameters were tested: a file in the run's folder, and what was in it."""

    file: str
    sha256: str


def write_test_errors(run: Path) -> None:
    """Evaluate a run and write the errors to its folder.

    Raises:
        ValueError: there is no such run, or its data cannot be read.
    """
    # What is tested is at least as new as what the file says: a run that goes on meanwhile is tested again.
    path = SUPERVISED.parameters(run)
    tested = {"file": path.relative_to(run).as_posix(), "sha256": _hash(path)} if path.exists() else None
    _, task, counts = evaluate_run(run)
    document = {
        "symbol_error": counts.symbol_error,
        "answer_error": counts.answer_error,
        "by_task": {kind: wrong / answers for kind, (wrong, answers) in counts.by_kind.items() if kind},
        "notes": list(task.notes),
        "parameters": tested,
    }
    with atomic_write(run / TEST_FILE) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n")


def read_test_errors(run: Path) -> HeldOutErrors | None:
    """The errors that :func:`write_test_errors` wrote, or ``None`` if the parameters were not tested yet.

    Raises:
        ValueError: the file is damaged.
    """
    errors = read_any_test_errors(run)
    return None if errors is None or _are_older(errors, run) else errors


def has_gone_on(run: Path) -> bool:
    """Whether a run was tested, and has other parameters by now."""
    return read_any_test_errors(run) is not None and read_test_errors(run) is None


def read_any_test_errors(run: Path) -> HeldOutErrors | None:
    """The same, also where the run has gone on since and has other parameters now.

    Raises:
        ValueError: as :func:`read_test_errors`.
    """
    path = run / TEST_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is not JSON") from error
    if not isinstance(document, dict):
        raise _damaged(path, "it is not a JSON object")
    by_task = _part(path, document, "by_task", dict)
    if unknown := next((task for task in by_task if not (task.isascii() and task.isdecimal())), None):
        raise _damaged(path, f"its by_task has {unknown!r}, not the number of a task")
    notes = _part(path, document, "notes", list)
    if not all(isinstance(note, str) for note in notes):
        raise _damaged(path, "its notes are not all texts")
    return HeldOutErrors(
        _fraction(path, "symbol_error", document.get("symbol_error")),
        _fraction(path, "answer_error", document.get("answer_error")),
        {int(task): _fraction(path, f"error of task {task}", error) for task, error in by_task.items()},
        notes,
        _parameters(path, document.get("parameters")),
    )


def _part(path: Path, document: Mapping[str, Any], name: str, kind: type) -> Any:
    part = document.get(name)
    if not isinstance(part, kind):
        what = "no" if part is None else "a wrong"
        raise _damaged(path, f"it has {what} {name}")
    return part


def _fraction(path: Path, name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise _damaged(path, f"its {name} is {json.dumps(value)}, not a number from 0 to 1")
    return float(value)


def _parameters(path: Path, saved: Any) -> Parameters | None:
    if saved is None:
        return None
    if not isinstance(saved, dict) or not all(
        isinstance(saved.get(name), str) for name in ("file", "sha256")
    ):
        raise _damaged(path, "its parameters are not a file and its sha256")
    return Parameters(saved["file"], saved["sha256"])


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(f"{path} is damaged: {why}; remove it, and the run is tested again.")


def _are_older(errors: HeldOutErrors, run: Path) -> bool:
    """Whether errors are known to be of other parameters than those that the run has now."""
    path, tested = SUPERVISED.parameters(run), errors.parameters
    if not path.exists():
        return False
    if tested is None:
        return path.stat().st_mtime > (run / TEST_FILE).stat().st_mtime + SECONDS_OF_A_COPY
    # What was tested may have been removed to save space.
    return (run / tested.file).exists() and (run / tested.file != path or tested.sha256 != _hash(path))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    torch.set_num_threads(1)
    with one_sentence_errors("testing"):
        write_test_errors(Path(sys.argv[1]))

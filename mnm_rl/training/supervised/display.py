"""A line of progress in the terminal while a run goes on."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingDisplay:
    """Iterations, loss, training and validation error, and the time left.

    Args:
        console: where to draw.
        total: iterations in the run.
        done: iterations before this start.
    """

    def __init__(self, console: Console, total: int, done: int):
        self._console = console
        self._progress = Progress(
            TextColumn("iteration"),
            MofNCompleteColumn(),
            BarColumn(20),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=console.quiet,
        )
        self._task = self._progress.add_task("", total=total, completed=done, numbers="")
        self._validation = ""

    def __enter__(self) -> TrainingDisplay:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def update(self, kind: str, row: dict[str, Any]) -> None:
        """Show a row of the training (``"train"``) or validation (``"valid"``) curve."""
        if kind == "valid":
            self._validation = f"  valid error {row['symbol_error']:.2%} of symbols"
            self._validation += f", {row['answer_error']:.2%} of answers"
            if not self._console.is_terminal:
                self._console.print(f"iteration {row['iteration']}{self._validation}", highlight=False)
            return
        numbers = f"loss {row['loss']:.4f}  error {row['symbol_error']:.2%}{self._validation}"
        if row["skipped_updates"]:
            numbers += f"  {row['skipped_updates']} updates skipped"
        self._progress.update(self._task, completed=row["iteration"], numbers=numbers)

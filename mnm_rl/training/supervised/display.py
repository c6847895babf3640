"""What a supervised run shows while it goes on."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from mnm_rl.training.display import RunDisplay


class TrainingDisplay(RunDisplay):
    """Iterations, loss, training and validation error.

    Args:
        console: where to draw.
        total: iterations in the run.
        done: iterations before this start.
    """

    def __init__(self, console: Console, total: int, done: int):
        super().__init__(console, "iteration", total, done)
        self._numbers = self._validation = ""

    def tick(self, iteration: int) -> None:
        """Show that an iteration is done, with the latest numbers."""
        rate = self.rate(iteration)
        self.show(iteration, f"{self._numbers}{self._validation}  {rate:.2g} iterations/s".strip(), rate)

    def update(self, kind: str, row: dict[str, Any]) -> None:
        """Show a row of the training (``"train"``) or validation (``"valid"``) curve."""
        if kind == "valid":
            self._validation = f"  valid error {row['symbol_error']:.2%} of symbols"
            self._validation += f", {row['answer_error']:.2%} of answers"
            if "bits_per_sequence" in row:
                self._validation += f", {row['bits_per_sequence']:.3g} bits a sequence"
            self.say(f"iteration {row['iteration']:,}{self._validation}")
            return
        self._numbers = f"loss {row['loss']:.4f}  error {row['symbol_error']:.2%}"
        if row["skipped_updates"]:
            self._numbers += f"  {row['skipped_updates']} updates skipped"

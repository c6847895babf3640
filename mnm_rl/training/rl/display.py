"""A line of progress in the terminal while an agent trains."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mnm_rl.training.rl.recorder import Progress as RunProgress

SECONDS_BETWEEN_LINES = 60.0


class AgentDisplay:
    """Reward, episodes, updates, steps per second and the time left; plain lines where there is no terminal.

    Args:
        console: where to draw.
        total: timesteps in the run.
        per_update: timesteps in an update.
        done: updates before this start.
    """

    def __init__(self, console: Console, total: int, per_update: int, done: int):
        self._console = console
        self._updates = -(-total // per_update)
        self._per_update = per_update
        self._done, self._started = done, time.monotonic()
        self._last_line = 0.0
        self._progress = Progress(
            TextColumn("{task.fields[numbers]}"),
            BarColumn(20),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=console.quiet,
        )
        self._task = self._progress.add_task("", total=self._updates, completed=done, numbers="")

    def __enter__(self) -> AgentDisplay:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def update(self, progress: RunProgress, reward: float, losses: dict[str, float]) -> None:
        """Show the state of the run after an update; ``reward`` is the mean over recent episodes."""
        now = time.monotonic()
        rate = self._per_update * (progress.updates - self._done) / (now - self._started)
        numbers = (
            f"reward {reward:.2f}  episodes {progress.episodes:,}  "
            f"updates {progress.updates:,}/{self._updates:,}  {rate:,.0f} steps/s"
        )
        if losses["skipped_updates"]:
            numbers += f"  {losses['skipped_updates']:.0f} updates skipped"
        self._progress.update(self._task, completed=progress.updates, numbers=numbers)
        if not self._console.is_terminal and now - self._last_line > SECONDS_BETWEEN_LINES:
            left = (self._updates - progress.updates) * self._per_update / max(rate, 1e-9)
            self._console.print(f"{numbers}  {left / 60:.0f} min left", highlight=False)
            self._last_line = now

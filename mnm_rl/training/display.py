"""How far a run is: a line that moves in a terminal, lines of text elsewhere."""

from __future__ import annotations

import time
from collections import deque
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

FIRST_LINES = (10.0, 30.0)
"""Seconds after the start at which a line is printed where there is no terminal; later, one a minute."""
SECONDS_BETWEEN_LINES = 60.0
RECENT_SECONDS = 60.0


class RunDisplay:
    """A run's progress in steps of some kind, its numbers, its speed in the last minute, and the time left.

    Args:
        console: where to draw.
        unit: what is counted, such as ``"iteration"``.
        total: steps in the run.
        done: steps before this start.
    """

    def __init__(self, console: Console, unit: str, total: int, done: int):
        self._console = console
        self._unit, self._total = unit, total
        self._started = time.monotonic()
        self._recent = deque([(self._started, done)])
        self._next_lines = deque(FIRST_LINES)
        self._last = ""
        self._progress = Progress(
            TextColumn("{task.fields[text]}"),
            BarColumn(20),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=console.quiet or not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=total, completed=done, text="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()
        if self._last and not self._console.is_terminal:
            self._console.print(self._last, highlight=False)

    def rate(self, done: int) -> float:
        """Steps per second in the last minute, counting up to ``done`` steps now."""
        now = time.monotonic()
        while len(self._recent) > 1 and now - self._recent[0][0] > RECENT_SECONDS:
            self._recent.popleft()
        before, steps = self._recent[0]
        self._recent.append((now, done))
        return (done - steps) / max(now - before, 1e-9)

    def show(self, done: int, numbers: str, rate: float) -> None:
        """Show that ``done`` steps are made.

        Args:
            done: steps so far.
            numbers: what else to say.
            rate: as :meth:`rate` gives it, for the time left.
        """
        left = (self._total - done) / rate if rate > 0 else float("inf")
        text = f"{self._unit} {done:,}/{self._total:,}  {numbers}"
        self._progress.update(self._task, completed=done, text=text)
        self._last = f"{text}  {format_seconds(left)} left"
        elapsed = time.monotonic() - self._started
        if self._next_lines and elapsed >= self._next_lines[0] and not self._console.is_terminal:
            while self._next_lines and elapsed >= self._next_lines[0]:
                self._next_lines.popleft()
            if not self._next_lines:
                self._next_lines.append(elapsed + SECONDS_BETWEEN_LINES)
            self._console.print(self._last, highlight=False)
            self._last = ""

    def say(self, text: str) -> None:
        """Print a line of its own where there is no terminal that shows it in the moving line."""
        if not self._console.is_terminal:
            self._console.print(text, highlight=False)


def format_seconds(seconds: float) -> str:
    """Such as ``42 s``, ``12 min`` or ``3.5 h``; ``?`` for no finite time."""
    if not seconds < float("inf"):
        return "? min"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

"""What an agent's run shows while it goes on."""

from __future__ import annotations

import math

from rich.console import Console

from mnm_rl.training.display import RunDisplay
from mnm_rl.training.rl.recorder import Progress


class AgentDisplay(RunDisplay):
    """Updates, reward, episodes and steps per second.

    Args:
        console: where to draw.
        total: timesteps in the run.
        per_update: timesteps in an update.
        done: updates before this start.
    """

    def __init__(self, console: Console, total: int, per_update: int, done: int):
        super().__init__(console, "update", -(-total // per_update), done)
        self._per_update = per_update

    def update(self, progress: Progress, reward: float, losses: dict[str, float]) -> None:
        """Show the state of the run after an update; ``reward`` is the mean over recent episodes."""
        rate = self.rate(progress.updates)
        mean = "no episode ended yet" if math.isnan(reward) else f"reward {reward:.2f}"
        numbers = f"{mean}  episodes {progress.episodes:,}  {self._per_update * rate:,.0f} steps/s"
        if losses["skipped_updates"]:
            numbers += f"  {losses['skipped_updates']:.0f} updates skipped"
        self.show(progress.updates, numbers, rate)

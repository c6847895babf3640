"""What an agent's run shows while it goes on."""

from __future__ import annotations

import math
import time

from rich.console import Console

from mnm_rl.training.display import RunDisplay
from mnm_rl.training.rl.recorder import Progress

SECONDS_BETWEEN_COUNTS = 0.5


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


class EpisodeCounter(RunDisplay):
    """Episodes played so far, on stderr, where an evaluation takes its time.

    Args:
        what: is played, such as ``"agent, stochastic"``.
        episodes: how many.
    """

    def __init__(self, what: str, episodes: int):
        super().__init__(Console(stderr=True), "episode", episodes, 0)
        self._what = what
        self._shown = time.monotonic()

    def __exit__(self, *exception: object) -> None:
        self._last = ""  # the score follows
        super().__exit__(*exception)

    def count(self, played: int) -> None:
        """Take note of the number of episodes so far."""
        if (now := time.monotonic()) - self._shown >= SECONDS_BETWEEN_COUNTS:
            self._shown = now
            self.show(played, self._what, self.rate(played))

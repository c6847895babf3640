"""What a training script does beside learning: a curve on disk, checkpoints, a way to stop."""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from mnm_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from mnm_rl.agents.processes import gathered, wait_for_all
from mnm_rl.files import atomic_write
from mnm_rl.training.curves import CurveFile, mean
from mnm_rl.training.folder import A2C_AGENT
from mnm_rl.training.rl.agent import updates_made
from mnm_rl.updates import process_share

AVERAGED = (
    *("policy_loss", "value_loss", "entropy", "concentration", "meta_loss", "grad_norm"),
    *("approx_kl", "clip_fraction"),
)
RECENT_UPDATES = 100


@dataclass
class Progress:
    """How far a run is, and what has gathered for the next row of the curve."""

    updates: int = 0
    episodes: int = 0
    seconds: float = 0.0
    rewards: list[float] = field(default_factory=list)
    """Of the episodes since the last row."""
    losses: list[dict[str, float]] = field(default_factory=list)
    """Of the updates since the last row."""


class RunRecorder(BaseCallback):
    """Write a row every few updates and a checkpoint every few minutes, and stop when asked to.

    All of it happens between two updates, so that curve, checkpoint and agent always agree. Of several
    processes each has a recorder; the first one writes, what all have played, and they stop together.

    Args:
        directory: the run's folder.
        log_every: updates per row.
        checkpoint_minutes: minutes between checkpoints.
        report: called after every update with the progress and the mean reward of recent episodes.

    Attributes:
        saved_updates: updates that the last checkpoint holds.
    """

    model: RecurrentOnPolicyAlgorithm  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(
        self,
        directory: Path,
        log_every: int,
        checkpoint_minutes: float,
        report: Callable[[Progress, float, dict[str, float]], None] = lambda progress, reward, losses: None,
    ):
        super().__init__()
        self.directory = directory
        self.log_every = log_every
        self.checkpoint_minutes = checkpoint_minutes
        self.report = report
        self._stop_requested = False
        self.saved_updates = 0
        self.progress = Progress()
        self._rollout_rewards: list[float] = []
        self._recent: deque[list[float]] = deque(maxlen=RECENT_UPDATES)

    def request_stop(self) -> None:
        """End training after the update with a checkpoint and a KeyboardInterrupt; for signal handlers."""
        self._stop_requested = True

    def _on_training_start(self) -> None:
        self.progress = Progress(**self.model.callback_state.get("recorder", {}))
        self._is_main = process_share()[0] == 0
        if self._is_main:
            self._curve = CurveFile(self.directory / A2C_AGENT.curve, "updates", after=self.progress.updates)
        self._started = time.monotonic() - self.progress.seconds
        # From the first moment on there is something to go on from.
        self.save()

    def _on_step(self) -> bool:
        if self.locals["dones"].any():
            episodes = [info["episode"] for info in self.locals["infos"] if "episode" in info]
            self._rollout_rewards += [float(episode["r"]) for episode in episodes]
        return True

    def _on_rollout_start(self) -> None:
        if updates_made(self.model) > self.progress.updates:
            self._close_update()
        is_due = time.monotonic() - self._saved > 60 * self.checkpoint_minutes
        asked = gathered((self._stop_requested, is_due))
        should_stop = any(stop for stop, _ in asked)
        if should_stop or any(due for _, due in asked):
            self.save()
        if should_stop:
            raise KeyboardInterrupt

    def _on_training_end(self) -> None:
        if updates_made(self.model) > self.progress.updates:
            self._close_update()
        self.save()

    def save(self) -> None:
        """Write the checkpoint; never half. All processes call it."""
        self.model.callback_state["recorder"] = dict(vars(self.progress))
        # In memory first: a full disk is then an error of writing, which says what it is.
        whole = io.BytesIO()
        self.model.save(whole, all_processes=True)
        if self._is_main:
            with atomic_write(A2C_AGENT.checkpoint_of(self.directory)) as temporary:
                temporary.write_bytes(whole.getbuffer())
        # Whoever ended before it is written would have torchrun end all the others.
        wait_for_all()
        self.saved_updates = self.progress.updates
        self._saved = time.monotonic()

    def _close_update(self) -> None:
        """Count the update that has just been made."""
        progress = self.progress
        rewards = [reward for part in gathered(self._rollout_rewards) for reward in part]
        progress.updates = updates_made(self.model)
        progress.seconds = time.monotonic() - self._started
        progress.episodes += len(rewards)
        progress.rewards += rewards
        progress.losses.append(self.model.last_update)
        self._recent.append(rewards)
        self._rollout_rewards = []
        if progress.updates % self.log_every == 0:
            if self._is_main:
                self._curve.append(self._row())
            progress.rewards, progress.losses = [], []
        self.report(
            progress, mean([reward for part in self._recent for reward in part]), self.model.last_update
        )

    def _row(self) -> dict[str, Any]:
        progress = self.progress
        means = {
            name: mean([losses[name] for losses in progress.losses])
            for name in AVERAGED
            if name in progress.losses[-1]
        }
        return {
            "updates": progress.updates,
            "episodes": progress.episodes,
            "timesteps": self.model.num_timesteps,
            "seconds": progress.seconds,
            "reward": mean(progress.rewards),
            **means,
            "explained_variance": progress.losses[-1]["explained_variance"],
            "learning_rate": self.model.policy.optimizer.param_groups[0]["lr"],
            "skipped_updates": self.model.guard.skipped,
        }


class LinearSettings(BaseCallback):
    """Move settings of the agent in straight lines from the start of a run to its end.

    Each update is made with the settings of the moment at which its rollout began, so that they depend on
    nothing but ``num_timesteps`` and a run that was stopped goes on with the same.

    Args:
        total_timesteps: length of the whole run.
        settings: attribute of the agent -> its values at the start and at the end.
    """

    def __init__(self, total_timesteps: int, settings: Mapping[str, tuple[float, float]]):
        super().__init__()
        self.total_timesteps = total_timesteps
        self.settings = settings

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        done = min(1.0, self.model.num_timesteps / self.total_timesteps)
        for name, (start, end) in self.settings.items():
            setattr(self.model, name, start + done * (end - start))

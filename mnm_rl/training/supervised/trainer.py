"""The supervised trainer: one loop for every task and every core.

Dimensions: ``T`` time, ``B`` batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mnm_rl.field_types import check_field_types
from mnm_rl.tasks import Batch, ErrorCounts, Task
from mnm_rl.training.curves import CurveFile, mean
from mnm_rl.training.devices import own_device
from mnm_rl.training.folder import SUPERVISED, save_state
from mnm_rl.training.supervised.carried import CarriedState
from mnm_rl.training.supervised.checkpoint import (
    check_same_task,
    load_parameters,
    read_checkpoint,
    saved_task,
)
from mnm_rl.training.supervised.config import (
    SupervisedConfig,
    config_to_dict,
    published_embedding_size,
)
from mnm_rl.training.supervised.model import (
    EVALUATION_BATCH,
    Model,
    check_model_fits,
    seeded_model,
)
from mnm_rl.updates import GuardedOptimizer, process_share


@dataclass
class Window:
    """Sums over the iterations since the last row of the training curve."""

    losses: list[float] = field(default_factory=list)
    meta_losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    errors: ErrorCounts = field(default_factory=ErrorCounts)


@dataclass
class Progress:
    """How far a run is."""

    iteration: int = 0
    validated: int = 0
    """The iteration of the last validation."""
    seconds: float = 0.0
    best_error: float = math.inf
    validations_without_improvement: int = 0
    errors: dict[int, float] = field(default_factory=dict)
    """Of the last validation, by kind of sequence."""


class StopRequested(Exception):
    """Somebody asked the trainer to stop."""


class SupervisedTrainer:
    """Adam on task loss plus weighted meta loss, with validation, early stopping and checkpoints.

    With ``torch.distributed`` initialised, every process takes its share of each batch, and the gradient is
    that of the whole batch.

    Args:
        config: the run.
        task: its task.
        directory: the run's folder, or ``None`` to write nothing.
        device: where the model runs; of several processes on ``"cuda"`` each takes a GPU of its own.
    """

    def __init__(
        self, config: SupervisedConfig, task: Task, directory: Path | None, device: torch.device | str = "cpu"
    ):
        config.check()
        self.config = config
        self.task = task
        self.directory = directory
        self.device = own_device(device)
        self.batch_size = config.batch_size or config.sizes.batch_size
        self.model = build_model(config, task).to(self.device)
        self.optimizer = GuardedOptimizer(
            torch.optim.Adam(self.model.parameters(), config.learning_rate),
            self.model.parameters(),
            config.max_grad_norm,
        )
        self.progress = Progress()
        self._rank, self._processes = process_share()
        if self.batch_size % self._processes:
            raise ValueError(
                f"The batch size {self.batch_size} cannot be shared evenly by {self._processes} processes."
            )
        if task.carries_state and self._processes > 1:
            raise ValueError(f"The task {config.task} carries a state between batches, in one process only.")
        self._carried = CarriedState() if task.carries_state else None
        self._parallel: nn.Module = DistributedDataParallel(self.model) if self._processes > 1 else self.model
        self._window = Window()
        self._stop_requested = False
        self.saved_iteration = 0
        self.last_error = math.nan
        """The error that decides, at the last validation since the trainer was made."""

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes files and shows progress."""
        return self._rank == 0

    def train(
        self,
        report: Callable[[str, dict[str, Any]], None] = lambda kind, row: None,
        look: Callable[[int], None] = lambda iteration: None,
        tick: Callable[[int], None] = lambda iteration: None,
    ) -> None:
        """Run to the last iteration, or until a stop criterion holds or :meth:`request_stop` was called.

        Args:
            report: called with ``"train"`` or ``"valid"`` and a row of numbers whenever there is one.
            tick: called after every iteration with its number.
            look: called with the iteration whenever ``analyze_every`` says so, in the main process.

        Raises:
            KeyboardInterrupt: it was asked to stop; the checkpoint is written.
            ValueError: as :meth:`check_batches`, before anything is written.
        """
        config = self.config
        self.check_batches()
        curves = self._open_curves()
        # From the first moment on there is something to go on from.
        self.save()
        last_checkpoint = time.monotonic()
        started = time.monotonic() - self.progress.seconds
        try:
            if self._validation_is_due():
                self._log("valid", self.validate(), curves, report)
            while self.progress.iteration < config.iterations and not self._should_end():
                self._iterate()
                self.progress.seconds = time.monotonic() - started
                if self.progress.iteration % config.log_every == 0:
                    self._log("train", self._training_row(), curves, report)
                tick(self.progress.iteration)
                self._stop_if_requested()
                if self._validation_is_due():
                    self._log("valid", self.validate(), curves, report)
                if self.is_main and self._should_look():
                    look(self.progress.iteration)
                if time.monotonic() - last_checkpoint > 60 * config.checkpoint_minutes:
                    self.save()
                    last_checkpoint = time.monotonic()
        except StopRequested:
            self.save()
            raise KeyboardInterrupt from None
        self.save()

    def check_batches(self) -> None:
        """Draw the next batch, and a first one of the validation set: what a task refuses, it then refuses.

        Raises:
            ValueError: the task has no such batches, as when there are fewer stories than sequences in one.
        """
        if self.progress.iteration < self.config.iterations:
            self.task.training_batch(self.progress.iteration, self.batch_size, self.config.seed)
        next(iter(self.task.evaluation_batches("valid", EVALUATION_BATCH)))

    def request_stop(self) -> None:
        """Have :meth:`train` stop as soon as its state is whole; for signal handlers."""
        self._stop_requested = True

    def _stop_if_requested(self) -> None:
        """Leave the training if any of the processes was asked to stop."""
        requested = self._stop_requested
        if self._processes > 1:
            flag = torch.tensor(float(requested), device=self.device)
            distributed.all_reduce(flag, distributed.ReduceOp.MAX)
            requested = bool(flag)
        if requested:
            raise StopRequested

    def loss(self, batch: Batch) -> tuple[Tensor, float, ErrorCounts]:
        """Loss of this process's share of a batch, scaled so that the mean over processes is the batch's.

        Returns:
            the loss, the mean meta loss (of the share) and the errors.
        """
        # Part of an endless text may ask for nothing.
        asked, steps = batch.asked.sum().clamp(min=1), batch.lengths.sum()
        share = batch.columns(slice(self._rank, None, self._processes)).to(self.device)
        logits, meta_losses, _ = self._parallel(share.inputs, share.lengths, carried=self._carried)
        present = share.present
        task_loss = self._processes * self.task.loss(logits, share) / asked
        meta_sum = (meta_losses * present).sum()
        loss = task_loss + self.config.meta_weight * self._processes * meta_sum / steps
        errors = self.task.count_errors(logits.detach(), share)
        return loss, float(meta_sum.detach() / present.sum()), errors

    def _iterate(self) -> None:
        progress, config = self.progress, self.config
        batch = self.task.training_batch(progress.iteration, self.batch_size, config.seed)
        for group in self.optimizer.optimizer.param_groups:
            group["lr"] = learning_rate(config, progress.iteration)
        self._parallel.train()
        loss, meta_loss, errors = self.loss(batch)
        progress.iteration += 1
        info = self.optimizer.step(loss, f"iteration {progress.iteration}")
        if info.applied:
            self._window.losses.append(loss.item())
            self._window.meta_losses.append(meta_loss)
            self._window.grad_norms.append(info.grad_norm)
        elif self._carried is not None:
            self._carried.state = None  # what is not finite must not go on
        self._window.errors += errors

    def _training_row(self) -> dict[str, Any]:
        window, self._window = self._window, Window()
        return {
            "iteration": self.progress.iteration,
            "seconds": self.progress.seconds,
            "loss": mean(window.losses),
            "symbol_error": window.errors.symbol_error,
            "answer_error": window.errors.answer_error,
            **_cost(window.errors),
            "meta_loss": mean(window.meta_losses),
            "grad_norm": mean(window.grad_norms),
            "learning_rate": self.optimizer.optimizer.param_groups[0]["lr"],
            "skipped_updates": self.optimizer.skipped,
        }

    def validate(self) -> dict[str, Any]:
        """Validation errors; keeps the parameters if they are the best so far."""
        progress = self.progress
        # Several processes go through it together.
        check = self._stop_if_requested if self._processes == 1 else None
        counts = evaluate(self.model, self.task, "valid", self.device, check)
        self.last_error = error = self.task.score(counts)
        progress.validated = progress.iteration
        progress.validations_without_improvement += 1
        progress.errors = counts.error_by_kind
        self._adapt()
        if error < progress.best_error:
            progress.validations_without_improvement = 0
        # Of equally good ones the latest: where no answer is wrong any more, training still goes on.
        if error <= progress.best_error:
            progress.best_error = error
            if self.directory is not None and self.is_main:
                save_state(self.directory / str(SUPERVISED.best), self._parameters())
        row = {
            "iteration": progress.iteration,
            "seconds": progress.seconds,
            "symbol_error": counts.symbol_error,
            "answer_error": counts.answer_error,
            **_cost(counts),
        }
        row.update({f"answer_error_{kind}": error for kind, error in progress.errors.items() if kind})
        return {**row, **self._memory_activity()}

    def _adapt(self) -> None:
        """Tell the task of the last validation, if there was one."""
        if self.progress.errors:
            self.task.adapt(self.progress.errors)

    @torch.no_grad()
    def _memory_activity(self) -> dict[str, float]:
        """Mean rate and write size per layer on a held-out batch, for cores that tell."""
        batch = next(iter(self.task.evaluation_batches("valid", 8))).to(self.device)
        trace = self.model(batch.inputs, batch.lengths, record=True)[2] or {}
        present = batch.present
        activity = {}
        if "rates" in trace:
            activity["rate"] = trace["rates"][present].mean().item()
        if "write_sizes" in trace:
            sizes = trace["write_sizes"][present].mean(0).tolist()
            activity.update({f"write_size_{layer}": size for layer, size in enumerate(sizes, 1)})
        return activity

    def _validation_is_due(self) -> bool:
        progress, config = self.progress, self.config
        at_a_place = (
            progress.iteration % config.validate_every == 0 or progress.iteration == config.iterations
        )
        return at_a_place and progress.validated < progress.iteration

    def _should_look(self) -> bool:
        every = self.config.analyze_every
        every = self.config.validate_every if every is None else every
        return every > 0 and self.progress.iteration % every == 0

    def _should_end(self) -> bool:
        config, progress = self.config, self.progress
        patience = math.inf if config.patience is None else config.patience
        solved = config.stop_error is not None and progress.best_error <= config.stop_error
        return solved or progress.validations_without_improvement >= patience

    def _log(
        self,
        kind: str,
        row: dict[str, Any],
        curves: dict[str, CurveFile],
        report: Callable[[str, dict[str, Any]], None],
    ) -> None:
        if self.is_main:
            if curves:
                curves[kind].append(row)
            report(kind, row)

    def _open_curves(self) -> dict[str, CurveFile]:
        if self.directory is None or not self.is_main:
            return {}
        return {
            kind: CurveFile(self.directory / f"{kind}.csv", "iteration", after=self.progress.iteration)
            for kind in ("train", "valid")
        }

    def _parameters(self) -> dict[str, Any]:
        return {
            "config": config_to_dict(self.config),
            "model": self.model.state_dict(),
            "task": self.task.saved(),
        }

    def save(self) -> None:
        """Write the checkpoint, if there is a folder for it."""
        if self.directory is None or not self.is_main:
            return
        state = {
            **self._parameters(),
            "optimizer": self.optimizer.optimizer.state_dict(),
            "guard": self.optimizer.state_dict(),
            "progress": vars(self.progress),
            "window": {**vars(self._window), "errors": vars(self._window.errors)},
        }
        if self._carried is not None:
            state["carried"] = self._carried.saved()
        save_state(SUPERVISED.checkpoint_of(self.directory), state)
        self.saved_iteration = self.progress.iteration

    def load(self, directory: Path, state: dict[str, Any] | None = None) -> None:
        """Go on from the checkpoint in ``directory``: the run continues as if it had not stopped.

        Args:
            directory: the run's folder.
            state: what ``checkpoint.read_checkpoint`` has read there, if it has.

        Raises:
            ValueError: if the checkpoint is missing, damaged, was made with other settings, or is of a task
                with other symbols, for the same number would mean another word.
        """
        path = SUPERVISED.checkpoint_of(directory)
        state = read_checkpoint(directory, self.config) if state is None else state
        load_parameters(self.model, state, path)
        check_same_task(saved_task(state), self.task, path)
        try:
            self.optimizer.optimizer.load_state_dict(state["optimizer"])
            self.optimizer.load_state_dict(state["guard"])
            # Older checkpoints do not say; they were written after validations.
            self.progress = Progress(**{"validated": state["progress"]["iteration"], **state["progress"]})
            errors = ErrorCounts(**state["window"]["errors"])
            self._window = Window(**{**state["window"], "errors": errors})
            for part in (self.progress, self._window, errors):
                check_field_types(type(part), vars(part))
            if self._carried is not None:
                self._carried.load(self.model.core, state["carried"], self.batch_size)
            if not 0 <= self.progress.iteration <= state["config"]["iterations"]:
                raise ValueError(f"its iteration is {self.progress.iteration}")
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ValueError(f"The checkpoint {path} does not fit the run: {error}.") from error
        self._check_moments(path)
        self.saved_iteration = self.progress.iteration
        self._adapt()

    def _check_moments(self, path: Path) -> None:
        """Adam takes whatever it is given, and fails, or spoils the parameters, at its next step."""
        for parameter, moments in self.optimizer.optimizer.state.items():
            for name, value in moments.items():
                if name == "step":
                    continue
                if getattr(value, "shape", None) != parameter.shape or not value.isfinite().all():
                    raise ValueError(
                        f"The checkpoint {path} has an optimizer whose {name} is not finite or does not fit "
                        "the parameters."
                    )


def build_model(config: SupervisedConfig, task: Task) -> Model:
    """The run's model with its initial parameters.

    Raises:
        ValueError: there is no memory for it and a batch.
    """
    batch_size = config.batch_size or config.sizes.batch_size
    check_model_fits(task, config.core, _embedding_size(config), config.all_core_settings(), batch_size)
    settings = config.all_core_settings()
    return seeded_model(task, config.core, _embedding_size(config), settings, config.seed, config.core_layers)


def _embedding_size(config: SupervisedConfig) -> int:
    """``I``: what the run says, or the published size of the core's sentences or of the task's symbols."""
    return config.embedding_size or published_embedding_size(config)


@torch.no_grad()
def evaluate(
    model: Model,
    task: Task,
    split: str,
    device: torch.device | str = "cpu",
    check: Callable[[], None] | None = None,
) -> ErrorCounts:
    """Errors on a whole held-out set, ``"valid"`` or ``"test"``; ``check`` is called before every batch."""
    model.eval()
    counts = ErrorCounts()
    carried = CarriedState() if task.carries_state else None
    for batch in task.evaluation_batches(split, EVALUATION_BATCH):
        if check is not None:
            check()
        batch = batch.to(device)
        counts += task.count_errors(model(batch.inputs, batch.lengths, carried=carried)[0], batch)
    return counts


def _cost(counts: ErrorCounts) -> dict[str, float]:
    """For tasks whose answers are bits: a sequence's cost, beside its errors."""
    return {"bits_per_sequence": counts.bits_per_sequence} if counts.sequences else {}


def learning_rate(config: SupervisedConfig, iteration: int) -> float:
    """The learning rate of an iteration, counted from 0."""
    rise = min(1.0, (iteration + 1) / config.warmup) if config.warmup else 1.0
    done = iteration / config.iterations
    fall = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
    return config.learning_rate * rise * fall[config.schedule]

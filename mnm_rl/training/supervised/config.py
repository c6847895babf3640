"""Everything that defines a supervised run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from tyro.conf import Suppress, arg

from mnm_rl.cores import SentenceCore, find_core, reads_sentences
from mnm_rl.field_types import check_field_types
from mnm_rl.tasks import TASKS, ModelSizes, Task, TaskOptions, task_help, task_options
from mnm_rl.training.options import (
    check_numbers,
    core_help,
    from_plain,
    full_core_settings,
    plain,
    upgraded_core_settings,
)


@dataclass(frozen=True)
class SupervisedConfig:
    """A supervised run. What is ``None`` takes the paper's value for the task."""

    task: Annotated[str, arg(help=task_help())] = "dictionary"
    task_options: Annotated[Mapping[str, Any], Suppress] = field(default_factory=dict)
    """Options of the task that differ from its defaults; see :mod:`mnm_rl.tasks`."""
    core: Annotated[str, arg(help=core_help())] = "mnm-p"
    core_settings: Annotated[Mapping[str, Any], Suppress] = field(default_factory=dict)
    """Settings of the core; for others the paper's sizes for the task are taken, and the core's defaults."""
    core_layers: int = 1
    """So many cores on top of each other."""
    embedding_size: int | None = None
    """Size of the core's input, d_i (paper: 100; bAbI 256)."""

    iterations: int = 10_000
    """Updates in the whole run."""
    batch_size: int | None = None
    """Sequences per update, over all processes (paper: 32; bAbI 128)."""
    learning_rate: float = 1e-3
    """Of Adam."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate goes to zero at the last iteration, if it does."""
    warmup: int = 0
    """Iterations over which the learning rate rises from zero."""
    max_grad_norm: float = 10.0
    """Gradients are scaled down to this norm."""
    meta_weight: float = 1.0
    """Weight of the core's meta loss beside the task loss."""
    seed: int = 0
    """Of the parameters and the data."""

    validate_every: int = 500
    """Iterations between validations; the best parameters so far, of equally good ones the latest, are kept
    in best.pt."""
    analyze_every: int | None = None
    """Iterations between looks into the memory for TensorBoard; at every validation if not given, 0: none."""
    patience: int | None = None
    """End after so many validations without improvement."""
    stop_error: float | None = None
    """End as soon as the validation error (of symbols; for bAbI of answers; for copy, repeat-copy and
    associative-recall the cost of a bit) is at most this fraction."""
    log_every: int = 20
    """Iterations per row of train.csv."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; a killed run loses no more."""

    def check(self) -> None:
        """Make sure that the options fit each other; cheap, nothing is built.

        Raises:
            ValueError: an option that is not allowed.
            TypeError: a setting that the core does not have.
        """
        check_numbers(
            self,
            at_least_one=(
                "iterations",
                "batch_size",
                "embedding_size",
                "core_layers",
                "validate_every",
                "log_every",
                "patience",
            ),
            positive=("learning_rate", "max_grad_norm", "checkpoint_minutes"),
            not_negative=("warmup", "meta_weight", "seed", "analyze_every"),
            fractions=("stop_error",),
        )
        self.all_core_settings()
        check_sentences(self.task, self.core)
        if self.core_layers > 1 and reads_sentences(self.core):
            raise ValueError(
                f"core_layers must be 1 for the core {self.core}, which reads sentences, "
                f"got {self.core_layers}."
            )

    @property
    def options(self) -> TaskOptions:
        """The task's options, checked.

        Raises:
            ValueError: an unknown task, an option that it does not have, or a value that is not allowed.
        """
        options = task_options(self.task)
        known = [each.name for each in dataclasses.fields(options)]
        for name in self.task_options:
            if name not in known:
                has = f"its options: {', '.join(known)}" if known else "it has none"
                raise ValueError(f"The task {self.task} has no option {name}; {has}.")
        check_field_types(options, self.task_options)
        return options(**self.task_options)

    @property
    def sizes(self) -> ModelSizes:
        """The paper's sizes for this task."""
        return self.options.sizes

    def all_core_settings(self) -> dict[str, Any]:
        """Every setting of the core: what is given, then the paper's sizes, then the core's defaults."""
        preferred = {"hidden_size": self.sizes.hidden_size, "heads": self.sizes.heads}
        if reads_sentences(self.core):  # the paper's sizes are those of cores that read symbols
            preferred = {}
        return full_core_settings(self.core, self.core_settings, preferred)

    def make_task(self, saved: Mapping[str, Any] | None = None, evaluation: bool = False) -> Task:
        """The task, with its data read; arguments as in :meth:`mnm_rl.tasks.TaskOptions.make`."""
        return self.options.make(saved, evaluation)

    def with_task_options(self, **changes: Any) -> SupervisedConfig:
        """The same run with other options of its task, such as where the data are."""
        config = dataclasses.replace(self, task_options={**self.task_options, **changes})
        assert config.options is not None
        return config

    @property
    def changeable(self) -> tuple[str, ...]:
        """What a run that goes on may be given anew, as dotted names."""
        of_task = (f"task_options.{name}" for name in self.options.changeable)
        return ("iterations", "learning_rate", "schedule", "analyze_every", *of_task)


def fits_together(task: str, core: str) -> bool:
    """Whether a task has what a core reads: sentences, for those that read sentences."""
    return task_options(task).has_sentences or not reads_sentences(core)


def check_sentences(task: str, core: str) -> None:
    """Refuse a core that reads sentences on a task that has none.

    Raises:
        ValueError: it is one; or there is no such task or core.
    """
    if not fits_together(task, core):
        tasks = ", ".join(name for name, options in TASKS.items() if options.has_sentences)
        raise ValueError(
            f"The core {core} reads whole sentences, and the task {task} has none; "
            f"tasks with sentences: {tasks}."
        )


def published_embedding_size(config: SupervisedConfig) -> int:
    """``I`` of the paper for the task, or of a core that reads sentences for its own model."""
    core_class, _ = find_core(config.core)
    if issubclass(core_class, SentenceCore):
        return core_class.encoding.size
    return config.sizes.embedding_size


def config_to_dict(config: SupervisedConfig) -> dict[str, Any]:
    """Plain values for JSON, with all options of the task and all settings of the core."""
    values = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
    complete = {
        "task_options": dataclasses.asdict(config.options),
        "core_settings": config.all_core_settings(),
    }
    return plain({**values, **complete})


def config_from_dict(values: Mapping[str, Any]) -> SupervisedConfig:
    """The inverse of :func:`config_to_dict`; runs from before ``task_options`` load too.

    Raises:
        ValueError: if there is an option that this version does not know, or does not allow.
        TypeError: a setting that the core does not have.
    """
    values = _upgraded_task_options(upgraded_core_settings(values))
    config = from_plain(SupervisedConfig, values)
    config.check()
    return config


FORMER_OPTIONS = {
    "dictionary": ("instance", "support_size", "smaller_instances", "length"),
    "double-copy": ("length",),
    "babi": (
        *("data", "babi_origin", "babi_fresh", "babi_tasks", "babi_size", "babi_format", "babi_supplement"),
        *("babi_repeat", "babi_rename", "max_length"),
    ),
}
"""Options of tasks that used to lie beside those of the run."""


def _upgraded_task_options(values: dict[str, Any]) -> dict[str, Any]:
    """Plain values with the options of the run's task under ``task_options``."""
    if "task_options" in values:
        return values
    former = {name for names in FORMER_OPTIONS.values() for name in names}
    of_task = FORMER_OPTIONS.get(values.get("task", "dictionary"), ())
    given = {name.removeprefix("babi_"): values[name] for name in of_task if values.get(name) is not None}
    kept = {name: value for name, value in values.items() if name not in former}
    return {**kept, "task_options": given}

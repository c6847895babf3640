"""Everything that defines a supervised run, and the paper's settings for each task."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from mnm_rl.cores import core_config, core_settings
from mnm_rl.tasks import DictionaryTask, DoubleCopyTask, PrioritySortTask, Task
from mnm_rl.tasks.dictionary import INSTANCES, smaller_instances
from mnm_rl.training.options import parse_json_object

TaskName = Literal["dictionary", "double-copy", "priority-sort", "babi"]


@dataclass(frozen=True)
class PaperSizes:
    """Row of the paper's Table 2, with the batch size of its appendix A."""

    embedding_size: int
    hidden_size: int
    heads: int
    batch_size: int


ALGORITHMIC = PaperSizes(embedding_size=100, hidden_size=100, heads=1, batch_size=32)
PAPER_SIZES: dict[str, PaperSizes] = {
    "dictionary": ALGORITHMIC,
    "double-copy": ALGORITHMIC,
    "priority-sort": ALGORITHMIC,
    "babi": PaperSizes(embedding_size=256, hidden_size=256, heads=3, batch_size=128),
}


@dataclass(frozen=True)
class SupervisedConfig:
    """A supervised run. What is ``None`` takes the paper's value for the task."""

    task: TaskName = "dictionary"
    """What to learn."""
    core: str = "mnm-p"
    """The memory: mnm-p, mnm-g, lstm-salu, lstm, gru, plastic or plastic-homogenous."""
    core_kwargs: str = "{}"
    """More settings of the core, as JSON: '{"normalization": "width"}'."""
    hidden_size: int | None = None
    """Width of the controller, d_h (paper: 100; bAbI 256)."""
    heads: int | None = None
    """Interaction heads H, where the core has them (paper: 1; bAbI 3)."""
    embedding_size: int | None = None
    """Size of the core's input, d_i (paper: 100; bAbI 256)."""

    instance: Literal[1, 2, 3, 4] | None = None
    """dictionary: the paper's instance, (k, l) = (4, 1), (8, 4), (12, 8), (16, 12); 2 if nothing is given."""
    support_size: int | None = None
    """dictionary: support pairs k, instead of an instance."""
    smaller_instances: bool = False
    """dictionary: train on the smaller instances, too, in turn with the one that is validated and tested."""
    length: int | None = None
    """dictionary: letters l in a word, instead of an instance. double-copy: symbols to copy (paper: 50)."""

    data: str | None = None
    """babi: folder or archive with the official files; otherwise MNM_BABI_DATA, then the usual places, and
    where there are none, generated questions."""
    babi_origin: Literal["any", "official", "generated"] = "any"
    """babi: official files, generated ones, or generated ones only where no official ones are found."""
    babi_fresh: bool = False
    """babi: train on newly generated questions all the time, none of them twice."""
    babi_tasks: str = "1-20"
    """babi: tasks to learn jointly, such as 1,4,6 or 1-5,19."""
    babi_size: Literal["10k", "1k"] = "10k"
    """babi: questions per task in the training files."""
    babi_format: Literal["question", "story"] = "question"
    """babi: one sequence per question, as the paper describes, or one per story with all its questions."""
    babi_supplement: bool = False
    """babi: fill up task 3's missing 10k training file with synthetic stories; every log then says so."""
    babi_repeat: str = ""
    """babi: draw the training questions of some tasks so many times as often, such as 3:4,16:2; or auto: half
    of them evenly, the other half by the tasks' errors in the last validation."""
    babi_rename: bool = False
    """babi: rename people, places and things at random in every training story; every log then says so."""
    max_length: int | None = None
    """babi: leave out longer training sequences, and say how many; nothing is left out by default."""

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
    """Iterations between validations; the best parameters so far are kept in best.pt."""
    analyze_every: int | None = None
    """Iterations between looks into the memory for TensorBoard; at every validation if not given, 0: none."""
    patience: int | None = None
    """End after so many validations without improvement."""
    stop_error: float | None = None
    """End as soon as the validation error (of symbols; for bAbI of answers) is at most this fraction."""
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
        _check_numbers(self)
        if self.task != "dictionary" and (self.instance is not None or self.support_size is not None):
            raise ValueError(f"instance and support_size belong to the task dictionary, not to {self.task}.")
        if self.smaller_instances and (self.task != "dictionary" or self.support_size is not None):
            raise ValueError("smaller_instances belongs to the instances 1 to 4 of the task dictionary.")
        if self.instance is not None and (self.support_size is not None or self.length is not None):
            raise ValueError("Give either an instance or support_size and length, not both.")
        if self.task == "dictionary" and (self.support_size is None) != (self.length is None):
            raise ValueError("support_size and length of the task dictionary go together.")
        core_config(self.core, **self.core_settings())

    @property
    def paper(self) -> PaperSizes:
        """The paper's sizes for this task."""
        return PAPER_SIZES[self.task]

    def core_settings(self) -> dict[str, Any]:
        """All settings of the core, with the paper's where none are given."""
        settings: dict[str, Any] = {"hidden_size": self.hidden_size or self.paper.hidden_size}
        if "heads" in core_settings(self.core):
            settings["heads"] = self.heads or self.paper.heads
        elif self.heads is not None:
            raise ValueError(f"The core {self.core} has no heads.")
        return {**settings, **parse_json_object(self.core_kwargs, "core_kwargs")}

    def make_task(self, data: str | None = None, vocabulary: dict[str, Any] | None = None) -> Task:
        """The task, with its data read.

        Args:
            data: where bAbI's files are, instead of the configured place.
            vocabulary: that of a trained model, instead of the one that the training files give.
        """
        if self.task == "dictionary":
            if self.support_size is not None and self.length is not None:
                return DictionaryTask(self.support_size, self.length)
            instance = self.instance or 2
            smaller = smaller_instances(instance) if self.smaller_instances else ()
            return DictionaryTask(*INSTANCES[instance], smaller_sizes=smaller)
        if self.task == "double-copy":
            return DoubleCopyTask() if self.length is None else DoubleCopyTask(self.length)
        if self.task == "priority-sort":
            return PrioritySortTask()
        from mnm_rl.tasks.babi import BabiTask, Vocabulary, parse_repeat, parse_tasks

        automatic = self.babi_repeat == "auto"
        return BabiTask(
            data=data or self.data,
            tasks=parse_tasks(self.babi_tasks),
            size=self.babi_size,
            format=self.babi_format,
            supplement=self.babi_supplement,
            repeat=parse_repeat("" if automatic else self.babi_repeat),
            adaptive=automatic,
            rename=self.babi_rename,
            max_length=self.max_length,
            origin="any" if data else self.babi_origin,
            fresh=self.babi_fresh,
            saved_vocabulary=None if vocabulary is None else Vocabulary.from_dict(vocabulary),
        )


def _check_numbers(config: SupervisedConfig) -> None:
    at_least_one = ("iterations", "batch_size", "validate_every", "log_every", "patience", "hidden_size")
    at_least_one += ("embedding_size", "heads", "support_size", "length", "max_length")
    for name in at_least_one:
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    for name in ("learning_rate", "max_grad_norm", "checkpoint_minutes"):
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be positive, got {getattr(config, name)}.")
    for name in ("warmup", "meta_weight", "seed", "analyze_every"):
        if not (getattr(config, name) or 0) >= 0:
            raise ValueError(f"{name} must not be negative, got {getattr(config, name)}.")


def config_to_dict(config: SupervisedConfig) -> dict[str, Any]:
    """Plain values, for JSON."""
    return dataclasses.asdict(config)


def config_from_dict(values: dict[str, Any]) -> SupervisedConfig:
    """The inverse of :func:`config_to_dict`."""
    return SupervisedConfig(**values)

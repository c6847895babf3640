"""A search of the settings of a supervised run.

Its folder has, besides what every search has (``training/study.py``), ``best.json``: the config of the best
trial, which ``train-supervised --settings`` takes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mnm_rl.cores import core_settings
from mnm_rl.files import atomic_write
from mnm_rl.training.curves import mean
from mnm_rl.training.folder import SUPERVISED
from mnm_rl.training.options import plain
from mnm_rl.training.study import (
    Choice,
    FailedTrial,
    Range,
    Search,
    Space,
    StoppedTrial,
    inside,
    read_search,
    rounded,
)
from mnm_rl.training.supervised.config import SupervisedConfig, config_from_dict, config_to_dict
from mnm_rl.training.supervised.trainer import SupervisedTrainer
from mnm_rl.training.trials import Trial
from mnm_rl.updates import NonFiniteError

BEST_FILE = "best.json"
OF_CORE = "core_settings."
"""Before the name of a setting of the core."""
SPACE: Space = {
    "learning_rate": Range(3e-4, 1e-2, log=True),
    "schedule": Choice(("constant", "linear", "cosine")),
    "warmup": Choice((0, 100, 300)),
    "max_grad_norm": Choice((1.0, 10.0)),
    "core_layers": Choice((1, 2)),
    f"{OF_CORE}hidden_size": Choice((100, 200, 300)),
    f"{OF_CORE}forget_bias": Choice((None, 1.0, 3.0)),
    f"{OF_CORE}attention_scale": Choice((None, 0.3, 1.0)),
    f"{OF_CORE}layer_norm": Choice((False, True)),
}
"""What is searched. A setting that the core does not have is left out."""


@dataclass(frozen=True)
class SupervisedSearch(Search):
    """A search: what stays, and what is searched."""

    config: SupervisedConfig
    """With the settings that stay; its seed is the search's, too."""
    fixed: tuple[str, ...] = ()
    """Settings that are in the search space, but stay."""
    prune: bool = False
    """Whether trials that are above the median of the others on their way are ended early."""
    measure: ClassVar[str] = "validation error"
    is_minimised: ClassVar[bool] = True
    numbers: ClassVar[tuple[str, ...]] = ("value", "final", "area", "trained_iterations", "seconds")
    """The lowest error of a validation, that of the last one, the mean over all; and how long it took."""

    @property
    def seed(self) -> int:
        """Of the search and of its trials."""
        return self.config.seed

    @property
    def prunes(self) -> bool:
        """Whether trials are ended early."""
        return self.prune

    @property
    def space(self) -> Space:
        """What is searched.

        Raises:
            ValueError: nothing is left to search.
        """
        known = {each.name for each in dataclasses.fields(SupervisedConfig)}
        known |= {f"{OF_CORE}{name}" for name in core_settings(self.config.core)}
        space = {name: each for name, each in SPACE.items() if name in known - {*self.fixed}}
        if not space:
            raise ValueError("Nothing is left to search: every setting of the search space is given.")
        return space

    def document(self) -> dict[str, Any]:
        """Plain values for search.json."""
        return plain(
            {
                "algorithm": SUPERVISED.name,
                "prune": self.prune,
                "config": config_to_dict(self.config),
                "space": {name: dataclasses.asdict(each) for name, each in self.space.items()},
            }
        )

    def first_draw(self) -> dict[str, Any]:
        """The program's own settings, as far as they lie in the space."""
        values = dict(vars(self.config))
        values |= {f"{OF_CORE}{name}": value for name, value in self.config.all_core_settings().items()}
        return inside(self.space, values)

    def chosen(self, drawn: Mapping[str, Any]) -> SupervisedConfig:
        """The run with what was drawn, its numbers rounded."""
        values = {name: rounded(value) for name, value in drawn.items()}
        of_core = {name: values.pop(name) for name in drawn if name.startswith(OF_CORE)}
        settings = {name.removeprefix(OF_CORE): value for name, value in of_core.items()}
        core = {**self.config.all_core_settings(), **settings}
        return dataclasses.replace(self.config, **values, core_settings=core)

    def entry(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """All settings of a trial."""
        return config_to_dict(self.chosen(drawn))

    def train(
        self,
        drawn: Mapping[str, Any],
        is_stopped: Callable[[], bool],
        report: Callable[[int, float], bool],
    ) -> dict[str, float]:
        """See :meth:`mnm_rl.training.study.Search.train`."""
        return _train(self.chosen(drawn), is_stopped, report)

    def train_again(
        self, entry: Mapping[str, Any], seed: int, is_stopped: Callable[[], bool]
    ) -> dict[str, float]:
        """See :meth:`mnm_rl.training.study.Search.train_again`."""
        config = dataclasses.replace(config_from_dict(dict(entry)), seed=seed)
        return _train(config, is_stopped, lambda part, error: False)

    def write_best(
        self, directory: Path, best: Trial, trials: Sequence[Trial], again: Sequence[Trial] = ()
    ) -> None:
        """Write the config of the best trial."""
        with atomic_write(directory / BEST_FILE) as temporary:
            temporary.write_text(json.dumps(best.entry, indent=2) + "\n")


def _train(
    config: SupervisedConfig, is_stopped: Callable[[], bool], report: Callable[[int, float], bool]
) -> dict[str, float]:
    """See :meth:`mnm_rl.training.study.Search.train`."""
    trainer = SupervisedTrainer(config, config.make_task(), directory=None)
    errors: list[float] = []

    def noted(kind: str, row: dict[str, Any]) -> None:
        if kind == "valid":
            errors.append(trainer.last_error)
            if report(len(errors), trainer.last_error):
                raise StoppedTrial

    def tick(iteration: int) -> None:
        if is_stopped():
            trainer.request_stop()

    started = time.monotonic()
    try:
        trainer.train(noted, tick=tick)
    except NonFiniteError as error:
        raise FailedTrial(" ".join(str(error).split())) from error
    if not errors:
        raise FailedTrial(f"No validation in {config.iterations} iterations.")
    return {
        "value": min(errors, default=math.nan),
        "final": errors[-1],
        "area": mean(errors),
        "trained_iterations": trainer.progress.iteration,
        "seconds": time.monotonic() - started,
    }


def searched_config(directory: Path) -> SupervisedConfig:
    """The settings that stay in a search; errors as of :func:`~mnm_rl.training.study.read_search`.

    Raises:
        ValueError: it is not a search of a supervised run's settings.
    """
    document = read_search(directory)
    if document["algorithm"] != SUPERVISED.name:
        raise ValueError(f"{directory} is not a search of a supervised run's settings.")
    return config_from_dict(document["config"])


def read_best(path: Path) -> SupervisedConfig:
    """The config in a ``best.json``.

    Raises:
        ValueError: it cannot be read, or is none.
    """
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict):
            raise ValueError(f"it holds {type(values).__name__} instead of settings")
        return config_from_dict(values)
    except OSError as error:
        raise ValueError(f"The settings {path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"The settings {path} are not those of a supervised run: {error}") from error

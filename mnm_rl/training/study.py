"""A search in a folder, which goes on from wherever it was stopped.

    search.json    what is searched, and with which settings that stay; software and hardware
    study.log      the finished trials, as Optuna's JournalStorage keeps them
    trials.csv     the same as a table: how each trial went, and every setting of it
    confirmed.csv  how the best of them went with further seeds, if that was asked for

and a file with the best trial's settings, which depends on what is searched.

Trials are drawn by Optuna's TPE sampler, seeded for each trial by the search's seed and the trial's number,
so that a search that was stopped goes on as if it had not been. The first trial has the settings of the
program. A trial that is interrupted leaves nothing and is made again.
"""

from __future__ import annotations

import json
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from mnm_rl.files import atomic_write
from mnm_rl.training.files import check_writable_directory
from mnm_rl.training.folder import RUN_KINDS, hardware, versions
from mnm_rl.training.options import flat
from mnm_rl.training.trials import TRIALS_FILE, Trial, best_trial, read_confirmed, write_trials

SEARCH_FILE, STUDY_FILE = "search.json", "study.log"
STUDY_NAME = "search"
STARTUP_TRIALS = 8
"""So many trials are drawn without regard to the others."""
PRUNE_AFTER_TRIALS, PRUNE_AFTER_PARTS = 5, 4
"""A trial may be ended early once so many have been finished and so many parts of it are done."""
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
"""As Optuna has them -> in the table."""
DIGITS = 3
"""Significant ones of a number that is drawn."""


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, drawn evenly, or evenly on a logarithmic scale."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[Any, ...]

    def has(self, value: Any) -> bool:
        """Whether a value is one of them, of the same type."""
        return any(value == one and type(value) is type(one) for one in self.values)


Space = Mapping[str, Range | Choice]


def inside(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those values that lie in a space."""
    found = {}
    for name, each in space.items():
        value = values.get(name)
        if isinstance(each, Choice):
            fits = each.has(value)
        else:
            fits = isinstance(value, int | float) and each.low <= value <= each.high
        if fits:
            found[name] = value
    return found


def rounded(value: Any) -> Any:
    """A number that was drawn with :data:`DIGITS` digits; anything else as it is."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


class FailedTrial(Exception):
    """A trial whose training cannot be judged; the search goes on without it."""


class StoppedTrial(Exception):
    """A trial that is not worth going on with."""


class Search(ABC):
    """What is searched, what stays, and how a trial is judged."""

    measure: ClassVar[str]
    """What the value of a trial is, in a word or two."""
    is_minimised: ClassVar[bool]
    """Whether the lowest value is the best."""
    numbers: ClassVar[tuple[str, ...]]
    """Names of the numbers of a trial; the first is ``value``."""

    @property
    @abstractmethod
    def seed(self) -> int:
        """Of the search and of its trials."""

    @property
    @abstractmethod
    def prunes(self) -> bool:
        """Whether trials that are worse than the median of the others on their way are ended early."""

    @property
    @abstractmethod
    def space(self) -> Space:
        """What is searched."""

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """Plain values for search.json, among them ``algorithm`` and ``config``."""

    @abstractmethod
    def first_draw(self) -> dict[str, Any]:
        """The program's own settings, as far as they lie in the space."""

    @abstractmethod
    def entry(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """All settings of a trial, for the table."""

    @abstractmethod
    def train(
        self,
        drawn: Mapping[str, Any],
        is_stopped: Callable[[], bool],
        report: Callable[[int, float], bool],
    ) -> Mapping[str, float]:
        """Make a trial.

        Args:
            drawn: of the space.
            is_stopped: asked now and then.
            report: told the number of a part of the trial and its value there; whether to end the trial.

        Returns:
            its numbers.

        Raises:
            FailedTrial: it cannot be judged.
            StoppedTrial: ``report`` wanted it.
            KeyboardInterrupt: ``is_stopped`` wanted it.
        """

    @abstractmethod
    def train_again(
        self, entry: Mapping[str, Any], seed: int, is_stopped: Callable[[], bool]
    ) -> Mapping[str, float]:
        """Train with the settings of a trial, of :meth:`entry`, and another seed; see :meth:`train`."""

    @abstractmethod
    def write_best(
        self, directory: Path, best: Trial, trials: Sequence[Trial], again: Sequence[Trial] = ()
    ) -> None:
        """Write the settings of the best trial, which was chosen as by :func:`best_trial`."""


def check_optuna() -> None:
    """Raise a ValueError that says what to do if Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "The search needs Optuna, which is not installed: pip install 'mnm-rl[tune]'."
        ) from error


def open_search(directory: Path, search: Search) -> None:
    """Make the folder of a search, or make sure that what is in it is this search.

    Raises:
        ValueError: there is something else, or another search.
    """
    document = search.document()
    if (directory / SEARCH_FILE).exists():
        before, after = flat(read_search(directory)), flat(document)
        for name in sorted(before.keys() | after.keys()):
            if name.split(".")[0] in document and before.get(name) != after.get(name):
                raise ValueError(
                    f"{directory} holds a search with {name} {before.get(name)}, not {after.get(name)}; give "
                    "another --out, or the command that began it."
                )
        return
    if directory.exists() and not (directory.is_dir() and _is_empty(directory)):
        raise ValueError(f"{directory} is not an empty folder, nor one of a search; give another --out.")
    check_writable_directory(directory)
    directory.mkdir(parents=True, exist_ok=True)
    whole = {**document, "versions": versions(), "hardware": hardware()}
    with atomic_write(directory / SEARCH_FILE) as temporary:
        temporary.write_text(json.dumps(whole, indent=2) + "\n")


def read_search(directory: Path) -> dict[str, Any]:
    """The document of a search.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    path = directory / SEARCH_FILE
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"There is no search in {directory}: {path} cannot be read.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if not isinstance(document, dict) or not isinstance(document.get("config"), dict):
        raise ValueError(f"{path} is not of a search.")
    if document.get("algorithm") not in RUN_KINDS:
        raise ValueError(f"{path} is not of a search: its algorithm is {document.get('algorithm')!r}.")
    return document


def run_search(
    directory: Path,
    search: Search,
    trials: int,
    is_stopped: Callable[[], bool] = lambda: False,
    tell: Callable[[Trial], None] = lambda trial: None,
) -> list[Trial]:
    """Make the trials that are lacking.

    Args:
        directory: of :func:`open_search`, owned by this process.
        search: what is searched.
        trials: how many there are to be in all; failed ones count.
        is_stopped: asked now and then.
        tell: told every trial when it has ended.

    Returns:
        All trials.

    Raises:
        KeyboardInterrupt: ``is_stopped`` wanted it; what is finished is saved.
        ValueError: the study is damaged, or a trial cannot be built.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    direction = "minimize" if search.is_minimised else "maximize"
    saved = _open_study(directory / STUDY_FILE, direction)
    # Trials are drawn here and saved when they have ended: one that is interrupted is then made again.
    study = optuna.create_study(
        direction=direction,
        pruner=optuna.pruners.MedianPruner(PRUNE_AFTER_TRIALS, PRUNE_AFTER_PARTS)
        if search.prunes
        else optuna.pruners.NopPruner(),
    )
    study.add_trials(saved.get_trials(deepcopy=False))
    finished = [_from_optuna(trial, search.numbers) for trial in study.trials]
    _write_results(directory, search, finished)
    while len(finished) < trials:
        study.sampler = optuna.samplers.TPESampler(
            seed=_seed_of(search.seed, len(finished)), n_startup_trials=STARTUP_TRIALS
        )
        saved.add_trial(_make_trial(study, search, first=not finished, is_stopped=is_stopped))
        finished.append(_from_optuna(study.trials[-1], search.numbers))
        _write_results(directory, search, finished)
        tell(finished[-1])
    return finished


def _make_trial(study: Any, search: Search, first: bool, is_stopped: Callable[[], bool]) -> Any:
    """Draw, train and judge; the finished trial of Optuna's."""
    import optuna

    if first:
        study.enqueue_trial(search.first_draw())
    trial = study.ask()
    drawn = _drawn(trial, search.space)
    trial.set_user_attr("entry", search.entry(drawn))
    started = time.monotonic()

    def report(part: int, value: float) -> bool:
        trial.report(value, part)
        return trial.should_prune()

    try:
        numbers = search.train(drawn, is_stopped, report)
    except FailedTrial as error:
        trial.set_user_attr("reason", str(error))
        trial.set_user_attr("numbers", {"seconds": time.monotonic() - started})
        return study.tell(trial, state=optuna.trial.TrialState.FAIL)
    except StoppedTrial:
        trial.set_user_attr("numbers", {"seconds": time.monotonic() - started})
        return study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    value = numbers["value"]
    if not math.isfinite(value):
        trial.set_user_attr("reason", f"its {search.measure} is {value}")
        return study.tell(trial, state=optuna.trial.TrialState.FAIL)
    trial.set_user_attr("numbers", dict(numbers))
    return study.tell(trial, value)


def _drawn(trial: Any, space: Space) -> dict[str, Any]:
    drawn = {}
    for name, each in space.items():
        match each:
            case Range(low, high, log):
                drawn[name] = trial.suggest_float(name, low, high, log=log)
            case Choice(values):
                drawn[name] = trial.suggest_categorical(name, values)
    return drawn


def _seed_of(seed: int, number: int) -> int:
    return (seed * 100_003 + number) % 2**32


def _open_study(path: Path, direction: Literal["minimize", "maximize"]) -> Any:
    """The study with all trials that have ended.

    The folder belongs to this process, so that a lock is one that a killed process left; a line that it had
    no time to finish goes, too.

    Raises:
        ValueError: it is damaged.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    for lock in path.parent.glob(f"{path.name}.*"):
        lock.unlink()
    try:
        if path.exists():
            whole = path.read_bytes().rfind(b"\n") + 1
            os.truncate(path, whole)
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
        return optuna.create_study(
            storage=storage, study_name=STUDY_NAME, direction=direction, load_if_exists=True
        )
    except OSError:
        raise
    except Exception as error:  # anything may happen with what is no study of Optuna's
        raise ValueError(f"{path} is damaged: {error or type(error).__name__}.") from error


def _from_optuna(trial: Any, names: Sequence[str]) -> Trial:
    attributes = trial.user_attrs
    numbers = {name: attributes.get("numbers", {}).get(name, math.nan) for name in names}
    if trial.value is not None:
        numbers["value"] = trial.value
    state = STATES[trial.state.name]
    return Trial(trial.number, state, numbers, attributes.get("reason", ""), attributes["entry"])


def _write_results(directory: Path, search: Search, trials: Sequence[Trial]) -> None:
    if not trials:
        return
    write_trials(directory / TRIALS_FILE, trials)
    again = read_confirmed(directory)
    best = best_trial(trials, search.is_minimised, again)
    if best is not None:
        search.write_best(directory, best, trials, again)


def _is_empty(directory: Path) -> bool:
    return all(path.name.startswith(".") for path in directory.iterdir())

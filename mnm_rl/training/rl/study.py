"""A search in a folder, which goes on from wherever it was stopped.

    search.json    what is searched, and with which settings that stay; software and hardware
    study.log      the finished trials, as Optuna's JournalStorage keeps them
    trials.csv     the same as a table: how each trial went, and every setting of it
    best.yml       the best trial as an entry of a file of settings (see ``settings_files.py``)

Trials are drawn by Optuna's TPE sampler, seeded for each trial by the search's seed and the trial's number,
so that a search that was stopped goes on as if it had not been. The first trial has the settings of the
program. A trial that is interrupted leaves nothing and is made again.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mnm_rl.training.files import atomic_write, check_writable_directory
from mnm_rl.training.folder import RUN_KINDS, hardware, versions
from mnm_rl.training.options import flat, plain
from mnm_rl.training.rl.config import AgentConfig, config_from_dict, config_to_dict
from mnm_rl.training.rl.search import (
    Choice,
    FailedTrial,
    Objective,
    Range,
    Space,
    StoppedTrial,
    chosen_config,
    drawn_from,
    search_space,
    train_trial,
)
from mnm_rl.training.rl.settings_files import entry_key, write_entry

SEARCH_FILE, STUDY_FILE, TRIALS_FILE, BEST_FILE = "search.json", "study.log", "trials.csv", "best.yml"
STUDY_NAME = "search"
STARTUP_TRIALS = 8
"""So many trials are drawn without regard to the others."""
PRUNE_AFTER_TRIALS, PRUNE_AFTER_PARTS = 5, 4
"""A trial may be ended early once so many have been finished and so many parts of its steps are done."""
NUMBERS = ("value", "final", "area", "timesteps", "seconds", "steps_per_second")
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
"""As Optuna has them -> in the table."""


@dataclass(frozen=True)
class Plan:
    """A search: what stays, what is searched, and for what."""

    config: AgentConfig
    """With the settings that stay; its seed is the search's, too."""
    fixed: tuple[str, ...] = ()
    """Settings that are in the search space, but stay."""
    objective: Objective = "final"
    prune: bool = False
    """Whether trials that are below the median of the others on their way are ended early."""

    @property
    def space(self) -> Space:
        """What is searched."""
        return search_space(self.config, self.fixed)

    def document(self) -> dict[str, Any]:
        """Plain values for search.json."""
        return plain(
            {
                "algorithm": self.config.kind.name,
                "objective": self.objective,
                "prune": self.prune,
                "config": config_to_dict(self.config),
                "space": {name: dataclasses.asdict(each) for name, each in self.space.items()},
            }
        )


@dataclass(frozen=True)
class Trial:
    """A row of trials.csv."""

    number: int
    state: str
    """complete, pruned or failed."""
    numbers: Mapping[str, float]
    """By the names in :data:`NUMBERS`; NaN where the trial was not finished."""
    reason: str
    """Why it failed."""
    entry: Mapping[str, Any]
    """All its settings, as an entry of a file of settings."""


def check_optuna() -> None:
    """Raise a ValueError that says what to do if Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "The search needs Optuna, which is not installed: pip install 'mnm-rl[tune]'."
        ) from error


def open_search(directory: Path, plan: Plan) -> None:
    """Make the folder of a search, or make sure that what is in it is this search.

    Raises:
        ValueError: there is something else, or another search.
    """
    document = plan.document()
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


def searched_config(directory: Path) -> AgentConfig:
    """The settings that stay in a search; errors as of :func:`read_search`."""
    document = read_search(directory)
    return config_from_dict(document["config"], RUN_KINDS[document["algorithm"]])


def run_search(
    directory: Path,
    plan: Plan,
    trials: int,
    is_stopped: Callable[[], bool] = lambda: False,
    tell: Callable[[Trial], None] = lambda trial: None,
) -> list[Trial]:
    """Make the trials that are lacking.

    Args:
        directory: of :func:`open_search`, owned by this process.
        plan: the search.
        trials: how many there are to be in all; failed ones count.
        is_stopped: asked before every rollout.
        tell: told every trial when it has ended.

    Returns:
        All trials.

    Raises:
        KeyboardInterrupt: ``is_stopped`` wanted it; what is finished is saved.
        ValueError: the study is damaged, or the environment or the agent cannot be built.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    saved = _open_study(directory / STUDY_FILE)
    # Trials are drawn here and saved when they have ended: one that is interrupted is then made again.
    study = optuna.create_study(
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(PRUNE_AFTER_TRIALS, PRUNE_AFTER_PARTS)
        if plan.prune
        else optuna.pruners.NopPruner(),
    )
    study.add_trials(saved.get_trials(deepcopy=False))
    finished = [_from_optuna(trial) for trial in study.trials]
    _write_results(directory, plan, finished)
    while len(finished) < trials:
        study.sampler = optuna.samplers.TPESampler(
            seed=_seed_of(plan.config.seed, len(finished)), n_startup_trials=STARTUP_TRIALS
        )
        saved.add_trial(_make_trial(study, plan, first=not finished, is_stopped=is_stopped))
        finished.append(_from_optuna(study.trials[-1]))
        _write_results(directory, plan, finished)
        tell(finished[-1])
    return finished


def _make_trial(study: Any, plan: Plan, first: bool, is_stopped: Callable[[], bool]) -> Any:
    """Draw, train and judge; the finished trial of Optuna's."""
    import optuna

    space = plan.space
    if first:
        study.enqueue_trial(drawn_from(plan.config, space))
    trial = study.ask()
    config = chosen_config(plan.config, _drawn(trial, space))
    trial.set_user_attr("entry", write_entry(config))
    started = time.monotonic()

    def report(part: int, reward: float) -> bool:
        trial.report(reward, part)
        return trial.should_prune()

    try:
        result = train_trial(config, is_stopped, report)
    except FailedTrial as error:
        trial.set_user_attr("reason", str(error))
        trial.set_user_attr("numbers", {"seconds": time.monotonic() - started})
        return study.tell(trial, state=optuna.trial.TrialState.FAIL)
    except StoppedTrial:
        trial.set_user_attr("numbers", {"seconds": time.monotonic() - started})
        return study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    value = result.value(plan.objective)
    if not math.isfinite(value):
        trial.set_user_attr("reason", f"its reward is {value}")
        return study.tell(trial, state=optuna.trial.TrialState.FAIL)
    trial.set_user_attr("numbers", {"value": value, **result._asdict()})
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


def _open_study(path: Path) -> Any:
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
            storage=storage, study_name=STUDY_NAME, direction="maximize", load_if_exists=True
        )
    except OSError:
        raise
    except Exception as error:  # anything may happen with what is no study of Optuna's
        raise ValueError(f"{path} is damaged: {error or type(error).__name__}.") from error


def _from_optuna(trial: Any) -> Trial:
    attributes = trial.user_attrs
    numbers = {name: attributes.get("numbers", {}).get(name, math.nan) for name in NUMBERS}
    if trial.value is not None:
        numbers["value"] = trial.value
    state = STATES[trial.state.name]
    return Trial(trial.number, state, numbers, attributes.get("reason", ""), attributes["entry"])


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """The first of the complete ones with the highest value; ``None`` if none is complete."""
    complete = [trial for trial in trials if trial.state == "complete"]
    return max(complete, key=lambda trial: (trial.numbers["value"], -trial.number), default=None)


def best_entry(env: str, trials: Sequence[Trial]) -> dict[str, Any] | None:
    """The best trial as what stands in a file of settings, key and entry; ``None`` if none is complete."""
    best = best_trial(trials)
    if best is None:
        return None
    return {entry_key(env, best.entry["policy_kwargs"]["core"]): dict(best.entry)}


def _write_results(directory: Path, plan: Plan, trials: Sequence[Trial]) -> None:
    if not trials:
        return
    write_trials(directory / TRIALS_FILE, trials)
    best, entry = best_trial(trials), best_entry(plan.config.env, trials)
    if best is None or entry is None:
        return
    numbers = best.numbers
    title = (
        f"# The best of {len(trials)} trials by {plan.objective} reward, trial {best.number}: final "
        f"{numbers['final']:.4g}, area {numbers['area']:.4g}; seed {plan.config.seed}.\n"
    )
    with atomic_write(directory / BEST_FILE) as temporary:
        temporary.write_text(title + yaml.safe_dump(entry, sort_keys=False, width=100))


def write_trials(path: Path, trials: Sequence[Trial]) -> None:
    """Write the table of a search; numbers are as exact as they are."""
    rows = [
        {
            "number": trial.number,
            "state": trial.state,
            **trial.numbers,
            "reason": trial.reason,
            **{name: _cell(value) for name, value in _columns(trial.entry).items()},
        }
        for trial in trials
    ]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_trials(path: Path) -> list[Trial]:
    """The table of a search.

    Raises:
        ValueError: it cannot be read, or is another table.
    """
    try:
        with path.open(newline="") as file:
            return [_trial(row) for row in csv.DictReader(file)]
    except OSError as error:
        raise ValueError(f"The trials {path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise ValueError(f"The trials {path} are damaged: {error}.") from error


def _trial(row: dict[str, str]) -> Trial:
    number, state, reason = int(row.pop("number")), row.pop("state"), row.pop("reason")
    numbers = {name: float(row.pop(name)) for name in NUMBERS}
    entry: dict[str, Any] = {}
    for column, cell in row.items():
        if cell != "":
            outer, _, inner = column.partition(".")
            where = entry.setdefault(outer, {}) if inner else entry
            where[inner or outer] = _value(cell)
    return Trial(number, state, numbers, reason, entry)


def _columns(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by the columns of the table; those of the policy have one each."""
    found: dict[str, Any] = {}
    for name, value in entry.items():
        if name == "policy_kwargs":
            found |= {f"{name}.{inner}": each for inner, each in value.items()}
        else:
            found[name] = value
    return found


def _cell(value: Any) -> str:
    """As JSON; a text as it is, unless it could be taken for something else."""
    if isinstance(value, str) and _value(value) == value and value:
        return value
    return json.dumps(value)


def _value(cell: str) -> Any:
    try:
        return json.loads(cell)
    except ValueError:
        return cell


def _is_empty(directory: Path) -> bool:
    return all(path.name.startswith(".") for path in directory.iterdir())

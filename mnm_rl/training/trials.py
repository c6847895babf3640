"""The trials of a search, as a table: how each went, and every setting of it."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mnm_rl.files import atomic_write

TRIALS_FILE, CONFIRMED_FILE = "trials.csv", "confirmed.csv"
"""The trials, and what became of the best of them with further seeds."""
GROUPS = ("policy_kwargs", "core_settings", "task_options")
"""Settings that have settings of their own, each of which has a column in the table."""


@dataclass(frozen=True)
class Trial:
    """A row of trials.csv."""

    number: int
    state: str
    """complete, pruned or failed."""
    numbers: Mapping[str, float]
    """By name; NaN where the trial was not finished."""
    reason: str
    """Why it failed."""
    entry: Mapping[str, Any]
    """All its settings."""


def best_trial(
    trials: Sequence[Trial], is_minimised: bool = False, again: Sequence[Trial] = ()
) -> Trial | None:
    """The first of the complete ones with the best value; ``None`` if none is complete.

    Args:
        trials: of a search.
        is_minimised: whether the lowest value is the best.
        again: of :func:`read_confirmed`. If there are any, only what was trained again is compared, by its
            mean over all seeds, and what failed with one of them comes last.
    """
    values = {trial.number: [trial.numbers["value"]] for trial in complete(trials)}
    for each in again:
        values.get(each.number, []).append(each.numbers["value"] if each.state == "complete" else math.nan)
    longest = max(map(len, values.values()), default=0)
    means = {number: sum(each) / len(each) for number, each in values.items() if len(each) == longest}
    compared = [
        replace(trial, numbers={**trial.numbers, "value": means[trial.number]})
        for trial in trials
        if trial.number in means
    ]
    first = min(compared, key=order(is_minimised), default=None)
    return next((trial for trial in trials if first is not None and trial.number == first.number), None)


def complete(trials: Sequence[Trial]) -> list[Trial]:
    """Those that can be compared."""
    return [trial for trial in trials if trial.state == "complete"]


def order(is_minimised: bool) -> Callable[[Trial], tuple[bool, float, int]]:
    """The key by which the best come first, and a value that is NaN last."""
    sign = 1 if is_minimised else -1

    def key(trial: Trial) -> tuple[bool, float, int]:
        value = trial.numbers["value"]
        return (True, 0.0, trial.number) if math.isnan(value) else (False, sign * value, trial.number)

    return key


def read_confirmed(directory: Path) -> list[Trial]:
    """What became of the best trials of a search with further seeds; empty if they were not trained again.

    Raises:
        ValueError: the table is damaged.
    """
    path = directory / CONFIRMED_FILE
    return read_trials(path) if path.exists() else []


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
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            names = columns[columns.index("state") + 1 : columns.index("reason")]
            return [_trial(row, names) for row in reader]
    except OSError as error:
        raise ValueError(f"The trials {path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise ValueError(f"The trials {path} are damaged: {error}.") from error


def _trial(row: dict[str, str], names: Sequence[str]) -> Trial:
    number, state, reason = int(row.pop("number")), row.pop("state"), row.pop("reason")
    numbers = {name: float(row.pop(name)) for name in names}
    entry: dict[str, Any] = {}
    for column, cell in row.items():
        if cell != "":
            outer, _, inner = column.partition(".")
            where = entry.setdefault(outer, {}) if inner else entry
            where[inner or outer] = _value(cell)
    return Trial(number, state, numbers, reason, entry)


def _columns(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by the columns of the table; those of :data:`GROUPS` have one each."""
    found: dict[str, Any] = {}
    for name, value in entry.items():
        if name in GROUPS:
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

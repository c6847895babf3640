"""Numbers over time, in a CSV file that survives being killed and continued."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mnm_rl.training.files import atomic_write

Cell = float | int | str


class CurveFile:
    """A CSV file that rows are appended to.

    Args:
        path: the file; it is created with the first row.
        key: the column that grows from row to row, such as ``"iteration"``.
        after: when a run goes on from a checkpoint, rows with a larger key are removed, because the run will
            write them again.
    """

    def __init__(self, path: str | os.PathLike, key: str, after: float | None = None):
        self.path = Path(path)
        self.key = key
        if after is not None and self.path.exists():
            columns, rows = _read(self.path)
            self._write(columns or [key], [row for row in rows if float(row[key]) <= after])

    def append(self, row: Mapping[str, Cell]) -> None:
        """Add a row under the columns that the file has; new columns are added to all of it.

        The row is on disk as a whole or not at all.
        """
        columns = _columns(self.path)
        if not set(row) <= set(columns):
            rows = _read(self.path)[1] if columns else []
            self._write([*columns, *(name for name in row if name not in columns)], [*rows, row])
            return
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, columns).writerow({name: _short(value) for name, value in row.items()})

    def _write(self, columns: Sequence[str], rows: Sequence[Mapping[str, Cell]]) -> None:
        with atomic_write(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows({name: _short(value) for name, value in row.items()} for row in rows)


def read_curve(path: str | os.PathLike) -> dict[str, list[float]]:
    """The columns of a curve file of numbers, without a last line that a killed process left unfinished.

    A number that a row lacks, because its column was added later, is NaN.

    Raises:
        ValueError: there is no such file, or something in it is not a number.
    """
    try:
        columns, rows = _read(Path(path))
    except OSError as error:
        raise ValueError(f"There is no curve at {path}.") from error
    try:
        return {name: [float(row[name] or "nan") for row in rows] for name in (columns if rows else [])}
    except ValueError as error:
        raise ValueError(f"The curve {path} is damaged: {error}.") from error


def mean(values: Sequence[float]) -> float:
    """Their mean; NaN if there are none."""
    return sum(values) / len(values) if values else math.nan


def _columns(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and whole rows; a process that was killed can leave a last line without all its columns."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        return columns, [row for row in reader if None not in row.values() and None not in row]


def _short(value: Cell) -> str:
    """Seven significant digits are what float32 holds."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.7g}"
    return str(value)

"""Numbers over time, in a CSV file that survives being killed and continued."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path

from mnm_rl.files import atomic_write
from mnm_rl.training.files import check_writable_directory

Cell = float | int | str


class CurveFile:
    """A CSV file that rows are appended to.

    Args:
        path: the file; it is created with the first row.
        key: the column that grows from row to row, such as ``"iteration"``.
        after: when a run goes on from a checkpoint, rows with a larger key are removed, because the run will
            write them again.

    Raises:
        ValueError: there cannot be a file, what is there is not a curve, or it has no such column.
        TypeError: the path is none, or ``after`` is not a number.
    """

    def __init__(self, path: str | os.PathLike, key: str, after: float | None = None):
        self.path = _checked_path(path)
        self.key = key
        if after is not None and (not isinstance(after, Real) or isinstance(after, bool)):
            raise TypeError(f"after must be a number, got {after!r}.")
        check_writable_directory(self.path.parent)
        if os.path.lexists(self.path) and not self.path.is_file():
            raise ValueError(f"The curve {path} cannot be written: it is not a file.")
        if after is not None and self.path.exists():
            self._cut(after)

    def _cut(self, after: float) -> None:
        columns, rows = _read(self.path)
        if columns and self.key not in columns:
            raise ValueError(
                f"The curve {self.path} has no column {self.key}; its columns: {', '.join(columns)}."
            )
        kept = [row for row in rows if _number(self.path, self.key, row[self.key]) <= after]
        self._write(columns or [self.key], kept)

    def append(self, row: Mapping[str, Cell]) -> None:
        """Add a row under the columns that the file has; new columns are added to all of it.

        The row is on disk as a whole or not at all.

        Raises:
            ValueError: the row lacks the column that grows, or what is there is not a curve.
            TypeError: it is no row.
        """
        if not isinstance(row, Mapping) or not all(isinstance(name, str) for name in row):
            raise TypeError(f"A row of a curve is a dictionary of columns and values, got {row!r}.")
        if self.key not in row:
            raise ValueError(f"A row of the curve {self.path} needs the column {self.key}, got {row!r}.")
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
        ValueError: there is no such file, it is empty, or something in it is not a number.
        TypeError: the path is none.
    """
    file = _checked_path(path)
    columns, rows = _read(file)
    if not columns:
        raise ValueError(f"The curve {path} is empty: it has no columns.")
    return {
        name: [_number(file, name, row[name] or "nan") for row in rows] for name in (columns if rows else [])
    }


def check_curve(path: Path, key: str) -> None:
    """Make sure that a run can go on with a curve, if there is one.

    Args:
        path: the file.
        key: the column that grows from row to row.

    Raises:
        ValueError: it is damaged, or not such a curve.
    """
    if path.exists() and path.stat().st_size:
        columns, _ = _read(path)
        if key not in columns:
            raise ValueError(f"The curve {path} has no column {key}; its columns: {', '.join(columns)}.")
        read_curve(path)


def mean(values: Sequence[float]) -> float:
    """Their mean; NaN if there are none."""
    return sum(values) / len(values) if values else math.nan


def _columns(path: Path) -> list[str]:
    if not path.exists():
        return []
    with _reading(path), path.open(newline="") as file:
        return next(csv.reader(file), [])


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and whole rows; a process that was killed can leave a last line without all its columns."""
    with _reading(path), path.open(newline="") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        rows = [row for row in reader if None not in row.values() and None not in row]
    if twice := next((name for name in columns if columns.count(name) > 1), None):
        raise ValueError(f"The curve {path} is damaged: it has the column {twice} twice.")
    if any("\0" in text for text in (*columns, *(cell for row in rows for cell in row.values()))):
        raise ValueError(f"The curve {path} is damaged: it holds what is not text.")
    return columns, rows


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name the curve that cannot be read."""
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"There is no curve at {path}.") from error
    except OSError as error:
        raise ValueError(f"The curve {path} cannot be read: {error.strerror or error}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"The curve {path} is damaged: it holds what is not text.") from error


def _number(path: Path, column: str, cell: str) -> float:
    try:
        return float(cell)
    except ValueError as error:
        raise ValueError(f"The curve {path} is damaged: its {column} has {cell!r}, not a number.") from error


def _checked_path(path: object) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"The path of a curve must be a text or a path, got {path!r}.")
    return Path(path)


def _short(value: Cell) -> str:
    """Seven significant digits are what float32 holds."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.7g}"
    return str(value)

"""Numbers over time, in a CSV file that survives being killed and continued."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from pathlib import Path

from mnm_rl.training.files import atomic_write


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
            self._cut(after)

    def append(self, row: Mapping[str, float | int | str]) -> None:
        """Add a row; the columns are those of the first one. The row is on disk as a whole or not at all."""
        is_new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if is_new:
                writer.writeheader()
            writer.writerow({name: _short(value) for name, value in row.items()})

    def _cut(self, after: float) -> None:
        with self.path.open(newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or [self.key]
            # A process that was killed can leave a last line without all its columns.
            rows = [row for row in reader if None not in row.values() and float(row[self.key]) <= after]
        with atomic_write(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)


def read_curve(path: str | os.PathLike) -> dict[str, list[float]]:
    """The columns of a curve file of numbers, without a last line that a killed process left unfinished.

    Raises:
        ValueError: there is no such file.
    """
    try:
        with Path(path).open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
    except OSError as error:
        raise ValueError(f"There is no curve at {path}.") from error
    return {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else {})}


def _short(value: float | int | str) -> str:
    """Seven significant digits are what float32 holds."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.7g}"
    return str(value)

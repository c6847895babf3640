"""What the parts of ``gpu.py`` find: one line of JSON each, and a page that people read."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mnm_rl.files import atomic_write
from mnm_rl.training.files import remove_partial_files

FILE = "records.jsonl"
RATES = """`gflops` and `gbytes` are the least operations and bytes of a forward and backward pass per second,
`of_peak` and `of_copy` their shares of the measured float32 product and copy; `of_torch` is the time of the
torch form over that of this one."""


class Records:
    """The records in a folder; each change is on disk, whole, before anything else happens.

    Args:
        folder: where they are.
        dry_run: whether this is a rehearsal, which must not be mixed with measurements.

    Raises:
        ValueError: the folder holds records of the other kind, or damaged ones.
    """

    def __init__(self, folder: Path, dry_run: bool):
        self.path, self.dry_run = folder / FILE, dry_run
        remove_partial_files(folder)
        self.all: list[dict[str, Any]] = []
        self.reload()
        if any(record["dry_run"] != dry_run for record in self.all):
            other = "measurements" if dry_run else "those of a dry run"
            raise ValueError(f"{self.path} holds {other}; take another folder for out.")

    def reload(self) -> None:
        """Read what another process has added."""
        if not self.path.exists():
            return
        try:
            lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        except ValueError as error:
            raise ValueError(f"{self.path} is damaged; take another folder for out.") from error
        if not all(isinstance(line, dict) and {"part", "dry_run"} <= line.keys() for line in lines):
            raise ValueError(f"{self.path} is not a file of this program; take another folder for out.")
        self.all = lines

    def add(self, part: str, **fields: Any) -> None:
        """Add one record."""
        self.reload()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._write([*self.all, {"part": part, "time": stamp, "dry_run": self.dry_run, **fields}])

    def forget(self, part: str, keep: bool) -> None:
        """Drop how a part ended, so that it can end anew, and without ``keep`` all that it found."""
        kept = [
            record for record in self.all if record["part"] != part or (keep and record.get("state") is None)
        ]
        if len(kept) < len(self.all):
            self._write(kept)

    def states(self) -> dict[str, str]:
        """Part -> how it ended last: done, failed, unfinished or left out."""
        return {record["part"]: record["state"] for record in self.all if record.get("state") is not None}

    def of(self, part: str) -> list[dict[str, Any]]:
        """What was found by the part with this name, or by those whose names begin with it."""
        names = [record for record in self.all if f"{record['part']} ".startswith(f"{part} ")]
        return [record for record in names if record.get("state") is None]

    def _write(self, records: list[dict[str, Any]]) -> None:
        with atomic_write(self.path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in records))
        self.all = records


def write_summary(folder: Path, records: Records) -> None:
    """``summary.md``."""
    with atomic_write(folder / "summary.md") as temporary:
        temporary.write_text("\n".join(_summary(records)) + "\n")


def _summary(records: Records) -> list[str]:
    lines = ["# A run on a GPU", ""]
    if records.dry_run:
        lines += ["**A dry run on the CPU with tiny sizes: no number here means anything.**", ""]
    lines += ["## Versions and the card", "", *_fields(records.of("versions"))]
    lines += ["## How the parts ended", "", *_ends(records)]
    lines += ["## Kernels: tests and races", "", *_fields(records.of("tests"))[:-1]]
    lines += [*_fields(records.of("races"))[:-1], *_fields(records.of("sanitizer"))]
    lines += ["## Peaks of the card", "", *_fields(records.of("peaks"))]
    lines += ["## The time loop, ms per step", "", *_with_ratios(records), RATES, ""]
    peers = _table(records.of("peer"), ("setting", "form", "forward_ms", "total_ms", "said"))
    lines += ["## Peers, ms per step", "", *peers]
    lines += ["## bAbI", "", *_fields(records.of("babi"))]
    lines += ["## A2C, steps/s", "", *_table(records.of("a2c"), ("device", "core", "steps_per_second"))]
    return lines


def _ends(records: Records) -> list[str]:
    rows = [record for record in records.all if record.get("state") is not None]
    return _table(rows, ("part", "state", "seconds", "reason"))


def _with_ratios(records: Records) -> list[str]:
    columns = ("setting", "form", "forward_ms", "total_ms", "of_torch", "mebibytes", "gflops", "of_peak")
    rows = records.of("scan")
    torch_ms = {row["setting"]: row["total_ms"] for row in rows if row["form"] == "torch"}
    for row in rows:
        if row["setting"] in torch_ms:
            row["of_torch"] = torch_ms[row["setting"]] / row["total_ms"]
    return _table(rows, (*columns, "gbytes", "of_copy"))


def _fields(rows: list[dict[str, Any]]) -> list[str]:
    """A list of what each record says."""
    own = ("part", "time", "dry_run", "state")
    texts = [
        ", ".join(f"{name} {_text(value)}" for name, value in row.items() if name not in own) for row in rows
    ]
    return [*(f"* {row['part']}: {text}" for row, text in zip(rows, texts, strict=True)), ""]


def _table(rows: list[dict[str, Any]], columns: Sequence[str]) -> list[str]:
    if not rows:
        return ["Nothing yet.", ""]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(_text(row.get(column, '')) for column in columns)} |" for row in rows]
    return [*lines, ""]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(str(value).split()).replace("|", "/")

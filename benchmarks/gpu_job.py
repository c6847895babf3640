"""What a part of ``gpu.py`` is, and what it is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Note = Callable[..., None]
"""Writes what was found, as a record with these fields; ``state`` says how the part ended."""


@dataclass(frozen=True)
class Job:
    """What a part is told."""

    out: Path
    dry_run: bool
    seconds: float
    """After so many it is ended."""
    babi: Path | None
    babi_supplement: bool
    babi_kernel: str
    iterations: int
    """Of the whole bAbI run."""

    @property
    def device(self) -> str:
        """Where to compute."""
        return "cpu" if self.dry_run else "cuda"


@dataclass(frozen=True)
class Unit:
    """A part: a process of its own."""

    name: str
    share: float
    """Of the minutes; 0 for what takes all that the others leave."""
    work: Callable[[Job, Note], Any]
    goes_on: bool = False
    """Whether what it found before stands when it runs again."""

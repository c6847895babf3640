"""Where a run writes its files: counted, and used to kill the run there (see ``kill_trials.py``)."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mnm_rl.training.curves import CurveFile

FILES = {"checkpoint": ("checkpoint.", "best."), "curve": (".csv",), "config": ("config.json",)}
"""What is written -> parts of its files' names, temporary ones included."""


@dataclass(frozen=True)
class WriteKill:
    """A signal at one of the steps in which a file is written: writing, flushing and renaming it."""

    signal: int
    file: str
    """A key of :data:`FILES`."""
    count: int
    """At which of the steps, from 1."""
    share: float
    """Of the data, written before SIGKILL if the step is one of writing; other signals come before it."""


class WritePoints:
    """Counts the steps in which the files of a run are written, and may kill the process at one of them.

    Args:
        folder: the run's folder.
        kill: when to kill this process.

    Attributes:
        counts: steps so far, by what is written.
        first_checkpoint: seconds until the first checkpoint was in place.
    """

    def __init__(self, folder: Path, kill: WriteKill | None = None):
        self.folder = folder
        self.kill = kill
        self.counts: Counter[str] = Counter()
        self.first_checkpoint = 0.0
        self._began = time.monotonic()
        self._last = "config"

    def install(self) -> None:
        """Watch all writing of this process, for as long as it lives."""
        Path.write_bytes = self._watch_write(Path.write_bytes, "wb")  # pyright: ignore
        Path.write_text = self._watch_write(Path.write_text, "w")  # pyright: ignore
        os.fsync = self._watch_flush(os.fsync)
        os.replace = self._watch_rename(os.replace)
        CurveFile.append = self._watch_append(CurveFile.append)

    def report(self, path: Path) -> None:
        """Write down what was counted."""
        seconds = time.monotonic() - self._began
        found = {**self.counts, "first_checkpoint": self.first_checkpoint, "seconds": seconds}
        path.write_text(json.dumps(found))

    def _watch_write(self, write: Callable, mode: str) -> Callable:
        def watched(path: Path, data, *arguments, **options):
            def write_a_share() -> None:
                assert self.kill is not None
                with path.open(mode) as file:
                    file.write(data[: int(self.kill.share * len(data))])

            self._step(self._written_by(path), write_a_share)
            return write(path, data, *arguments, **options)

        return watched

    def _watch_flush(self, flush: Callable) -> Callable:
        def watched(descriptor: int):
            self._step(self._open_as(descriptor))
            return flush(descriptor)

        return watched

    def _watch_rename(self, rename: Callable) -> Callable:
        def watched(source, target, *arguments, **options):
            file = self._written_by(Path(target))
            self._step(file)
            rename(source, target, *arguments, **options)
            self._last = file or self._last
            if file == "checkpoint" and not self.first_checkpoint:
                self.first_checkpoint = time.monotonic() - self._began
            self._step(file)

        return watched

    def _watch_append(self, append: Callable) -> Callable:
        def watched(curve: CurveFile, row: Mapping):
            before = curve.path.stat() if curve.path.exists() else None
            append(curve, row)
            after = curve.path.stat()
            if before is not None and os.path.samestat(before, after):
                self._step("curve", lambda: self._shorten(curve.path, before.st_size, after.st_size))

        return watched

    def _shorten(self, path: Path, before: int, after: int) -> None:
        """As if only a share of the last row had been written."""
        assert self.kill is not None
        os.truncate(path, before + int(self.kill.share * (after - before)))

    def _step(self, file: str | None, half_done: Callable[[], None] = lambda: None) -> None:
        if file is None:
            return
        self.counts[file] += 1
        kill = self.kill
        if kill is not None and (kill.file, kill.count) == (file, self.counts[file]):
            if kill.signal == signal.SIGKILL:
                half_done()
            os.kill(os.getpid(), kill.signal)

    def _written_by(self, path: Path) -> str | None:
        """What is written to a path, if anything of the run."""
        if path.parent != self.folder:
            return None
        return next((kind for kind, parts in FILES.items() if any(part in path.name for part in parts)), None)

    def _open_as(self, descriptor: int) -> str | None:
        """What an open file is; the run's folder counts as the file that was last renamed there."""
        found = os.fstat(descriptor)
        if os.path.samestat(found, self.folder.stat()):
            return self._last
        same = (path for path in self.folder.iterdir() if os.path.samestat(found, path.stat()))
        return next(map(self._written_by, same), None)

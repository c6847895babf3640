"""One owner for a run's folder: the process that trains there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mnm_rl.training.files import remove_partial_files

try:
    import fcntl
except ImportError:  # not on Windows, where two runs in one folder go unnoticed
    fcntl = None

LOCK_FILE = ".lock"


@contextmanager
def hold_run(directory: Path) -> Iterator[None]:
    """Own a run's folder for as long as the context lasts, and remove what killed processes left there.

    The lock goes with its process, however that ends; a file without an owner is in nobody's way.

    Raises:
        ValueError: another process owns the folder.
    """
    file = _locked(directory / LOCK_FILE)
    try:
        remove_partial_files(directory)
        yield
    finally:
        if file is not None:
            with suppress(OSError):
                (directory / LOCK_FILE).unlink()
            file.close()


def _locked(path: Path) -> IO[str] | None:
    """The lock's file, open and locked; ``None`` where the system has no locks."""
    if fcntl is None:
        return None
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _read(file) or "of unknown number"
            file.close()
            raise ValueError(
                f"Process {owner} is training in {path.parent}; wait until it has ended, or stop it first."
            ) from None
        except OSError:  # file systems without locks
            file.close()
            return None
        # An owner that has just ended may have removed the file between our opening and locking it.
        with suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip()

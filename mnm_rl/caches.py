"""Where the package keeps what it has made once, such as compiled kernels and generated questions.

The usual place is a folder in ``~/.cache/mnm_rl``. Where there is no home, or none to write to, a private one
below the system's folder for temporary files takes its place.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_PREFIX = "build-"
_ABANDONED = 24 * 3600.0  # seconds after which another machine's build has surely ended


def home_cache() -> Path | None:
    """``~/.cache/mnm_rl``, or ``None`` without a home: no HOME, and a user without an entry."""
    try:
        return Path.home() / ".cache" / "mnm_rl"
    except RuntimeError:
        return None


def temporary_cache() -> Path | None:
    """This user's folder below that for temporary files, or ``None`` where there is none to write to."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    try:
        return Path(tempfile.gettempdir()) / f"mnm_rl-{user}"
    except OSError:
        return None


def is_private(folder: Path) -> bool:
    """Whether nobody but this user and root can write to a folder."""
    if not hasattr(os, "getuid"):
        return True
    found = folder.stat()
    return found.st_uid in (os.getuid(), 0) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def make_usable(folder: Path, accept: Callable[[Path], bool] = is_private) -> bool:
    """Make a folder, if need be, and say whether it is accepted and can be written to."""
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return accept(folder) and os.access(folder, os.W_OK | os.X_OK)
    return False


def passing_folder() -> Path:
    """A new private folder that is removed when the process ends, for where no other will do.

    Raises:
        OSError: there is no place for temporary files, or it is full.
    """
    folder = Path(tempfile.mkdtemp(prefix="mnm_rl-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextlib.contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """A folder in ``folder`` to make something in, so that it can be renamed when it is whole.

    What processes that were killed have left there is removed.

    Raises:
        OSError: it cannot be made.
    """
    _sweep(folder)
    prefix = f"{_PREFIX}{socket.gethostname()}-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as place:
        yield Path(place)


def _sweep(folder: Path) -> None:
    for left in folder.glob(f"{_PREFIX}*"):
        host, _, process = left.name.removeprefix(_PREFIX).rpartition("-")[0].rpartition("-")
        with contextlib.suppress(OSError):
            is_ours = host == socket.gethostname() and process.isdigit()
            if (is_ours and not _runs(int(process))) or time.time() - left.stat().st_mtime > _ABANDONED:
                shutil.rmtree(left, ignore_errors=True)


def _runs(process: int) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True

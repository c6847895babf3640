"""Where the package keeps what it has made once, such as compiled kernels and generated questions.

The usual place is a folder in ``~/.cache/mnm_rl``. Where there is no home, or none to write to, a private one
below the system's folder for temporary files takes its place.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path


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

"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces ``path`` once the block has ended without error.

    A reader sees the old file or the whole new one, never a part, even if the process is killed: the data is
    on disk before the name changes.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        _flush_to_disk(temporary)
        os.replace(temporary, path)
        _flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_partial_files(directory: str | os.PathLike) -> None:
    """Delete what killed processes left of unfinished :func:`atomic_write` calls."""
    for leftover in Path(directory).glob(".*.partial*"):
        leftover.unlink(missing_ok=True)


def check_writable_directory(path: str | os.PathLike) -> None:
    """Create ``path`` if need be and make sure that files can be written there.

    Raises:
        ValueError: if that is not possible, with the reason.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ValueError(f"Cannot write to the directory {path}: {error.strerror}.") from error


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot flush a folder, or anything; what they have is all there is to have.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise
    finally:
        os.close(descriptor)

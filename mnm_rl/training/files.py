"""Files that are either whole or not there."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces ``path`` once the block has ended without error.

    A reader sees the old file or the whole new one, never a part, even if the process is killed: the data is
    on disk before the name changes. The folder must be there: a run whose folder was removed must not go on
    in an empty one.
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
    """Make sure that files can be written to ``path``, or that it can be made; nothing is left behind.

    Raises:
        ValueError: if that is not possible, with the reason.
    """
    path = Path(path)
    there = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ValueError(f"Cannot write to the directory {path}: {error.strerror}.") from error


def check_output_file(path: str | os.PathLike, endings: Sequence[str]) -> None:
    """Make sure that a file of a kind can be written; nothing is written yet.

    Args:
        path: the file.
        endings: those of its name that are allowed, such as ``".png"``.

    Raises:
        ValueError: it ends otherwise, is a folder, or cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in endings:
        raise ValueError(f"The name of the file must end in {' or '.join(endings)}, got {str(path)!r}.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a file.")
    check_writable_directory(path.parent)


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

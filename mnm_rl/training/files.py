"""Where files can be written, and what killed processes left of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path


def remove_partial_files(directory: str | os.PathLike) -> None:
    """Delete what killed processes left of unfinished writes (:func:`mnm_rl.files.atomic_write`)."""
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

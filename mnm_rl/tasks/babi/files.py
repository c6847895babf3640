"""Finding the bAbI files: the archive ``tasks_1-20_v1-2.tar.gz``, or the folder that comes out of it.

The archive may also be packed anew as another kind of tar, or as a zip.

The data (Weston et al. 2015, arXiv:1502.05698) belong to Facebook, Inc., under CC BY 3.0; none of it is part
of this package.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mnm_rl.tasks.babi.archives import LARGEST_FILE, Budget, read_archive

VARIABLE = "MNM_BABI_DATA"
"""Environment variable with the place of the data."""

DEFAULT_PLACES = ("data/babi", "~/.cache/mnm_rl/babi")
"""Where the data are looked for if neither an argument nor the environment variable says so."""

FOLDER = "tasks_1-20_v1-2"
SUPPLEMENT_FOLDER = "qa3_train_supplement"
ARCHIVE_ENDING = ".tar.gz"
ENDINGS = (ARCHIVE_ENDING, ".tgz", ".tar", ".tar.bz2", ".tar.xz", ".zip")
PARTS = ("en-valid-10k", "en-valid")
"""Folders by which the unpacked data are known."""
SHOWN = 6
"""Names of what was found that a message shows."""


@dataclass(frozen=True)
class Source:
    """An archive, or an unpacked folder.

    Attributes:
        path: the archive file, or the folder of which ``en-valid-10k`` and the others are parts.
        part: the one of these that was named instead of the whole folder, if so.
    """

    path: Path
    part: str | None = None

    def read(self, names: Collection[str]) -> dict[str, bytes]:
        """Contents of those of the files that exist, by name, for instance ``"en-valid-10k/qa1_test.txt"``.

        Raises:
            ValueError: if the archive is damaged, a file cannot be read or is no file, or there is more to
                read than there can be; see :mod:`mnm_rl.tasks.babi.archives`.
        """
        if self.path.is_dir():
            return _read_folder(self.path, names)
        return read_archive(self.path, set(names))

    def require_part(self, part: str) -> None:
        """Make sure that no other part of the data has been named.

        Raises:
            ValueError: another one has.
        """
        if self.part not in (None, part):
            raise ValueError(
                f"{self.path / str(self.part)} was named, but the set of the chosen size is {part}: choose "
                f"the other size, or name the folder {self.path}."
            )

    def supplement(self) -> Source | None:
        """The synthetic supplement of task 3 that lies beside the archive or folder, if there is one."""
        beside = self.path.parent
        if (beside / SUPPLEMENT_FOLDER).is_dir():
            return Source(beside)
        return _find_archive(beside, SUPPLEMENT_FOLDER)


def find_source(data: str | None = None) -> Source:
    """The data at ``data``, else where the environment variable says, else in one of the default places.

    ``data`` may be the archive, a folder with the archive or with the unpacked folder in it, the unpacked
    folder itself, or the part ``en-valid-10k`` or ``en-valid`` of it.

    Raises:
        ValueError: if there are no data; the message says where it looked and what to do.
    """
    source = search_source(data)
    if source is None:
        raise ValueError(
            f"No bAbI data in {', '.join(map(_describe_place, _places(data)))}: put {FOLDER}{ARCHIVE_ENDING} "
            f"there, unpacked or not, or give its place as --data or in the environment variable {VARIABLE}."
        )
    return source


def search_source(data: str | None = None) -> Source | None:
    """As :func:`find_source`, but ``None`` if there are no data.

    Raises:
        ValueError: if a place that is named cannot be looked into.
    """
    for place in _places(data):
        try:
            source = _open_place(Path(place).expanduser())
        except (OSError, RuntimeError) as error:
            if is_named(data):
                reason = error.strerror if isinstance(error, OSError) else error
                raise ValueError(f"Cannot look for bAbI data in {place}: {reason}.") from error
            continue  # a home that is not there, or that nobody may look into, has no data either
        if source is not None:
            return source
    return None


def is_named(data: str | None) -> bool:
    """Whether the argument or the environment variable says where the data are."""
    return bool(data or os.environ.get(VARIABLE))


def _places(data: str | None) -> list[str]:
    named = data or os.environ.get(VARIABLE)
    return [named] if named else list(DEFAULT_PLACES)


def _open_place(place: Path) -> Source | None:
    if place.is_file():
        return Source(place)
    absolute = Path(os.path.abspath(place))
    if absolute.name in PARTS and any(absolute.glob("qa*.txt")):
        return Source(place.parent if place.name == absolute.name else absolute.parent, absolute.name)
    # Some programs unpack into another folder of the same name.
    for folder in (place, place / FOLDER, place / FOLDER / FOLDER):
        if any((folder / part).is_dir() for part in PARTS):
            return Source(folder)
    return _find_archive(place, FOLDER)


def _find_archive(folder: Path, name: str) -> Source | None:
    archives = (folder / (name + ending) for ending in ENDINGS)
    return next((Source(archive) for archive in archives if archive.is_file()), None)


def _describe_place(place: str) -> str:
    """A place, and what is there instead of the data."""
    try:
        names = sorted(
            path.name + ("/" if path.is_dir() else "") for path in Path(place).expanduser().iterdir()
        )
    except (FileNotFoundError, RuntimeError):
        return place
    except OSError as error:
        return f"{place} (which is no folder to look into: {error.strerror})"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{place} (which holds {', '.join(names[:SHOWN])}{more})" if names else f"{place} (which is empty)"


def _read_folder(folder: Path, names: Collection[str]) -> dict[str, bytes]:
    contents, budget = {}, Budget(folder)
    for name in names:
        path = folder / name
        try:
            if not path.exists():
                continue
            if not path.is_file():
                raise ValueError(f"{path} is not a file; a file of bAbI questions was expected there.")
            budget.take(path.stat().st_size, name)
            with path.open("rb") as file:
                contents[name] = file.read(LARGEST_FILE)
        except OSError as error:
            raise ValueError(
                f"Cannot read {path}: {error.strerror}; make it readable, or give other data."
            ) from error
    return contents

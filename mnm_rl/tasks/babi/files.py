"""Finding the bAbI files: the archive ``tasks_1-20_v1-2.tar.gz``, or the folder that comes out of it.

The data (Weston et al. 2015, arXiv:1502.05698) belong to Facebook, Inc., under CC BY 3.0; none of it is part
of this package.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

VARIABLE = "MNM_BABI_DATA"
"""Environment variable with the place of the data."""

DEFAULT_PLACES = ("data/babi", "~/.cache/mnm_rl/babi")
"""Where the data are looked for if neither an argument nor the environment variable says so."""

FOLDER = "tasks_1-20_v1-2"
SUPPLEMENT_FOLDER = "qa3_train_supplement"
ARCHIVE_ENDING = ".tar.gz"


@dataclass(frozen=True)
class Source:
    """An archive, or an unpacked folder.

    Attributes:
        path: the archive file, or the folder of which ``en-valid-10k`` and the others are parts.
    """

    path: Path

    def read(self, names: Collection[str]) -> dict[str, bytes]:
        """Contents of those of the files that exist, by name, for instance ``"en-valid-10k/qa1_test.txt"``.

        Raises:
            ValueError: if the archive is damaged.
        """
        if self.path.is_dir():
            return {name: (self.path / name).read_bytes() for name in names if (self.path / name).is_file()}
        return _read_archive(self.path, set(names))

    def supplement(self) -> Source | None:
        """The synthetic supplement of task 3 that lies beside the archive or folder, if there is one."""
        beside = self.path.parent
        archive = beside / (SUPPLEMENT_FOLDER + ARCHIVE_ENDING)
        if (beside / SUPPLEMENT_FOLDER).is_dir():
            return Source(beside)
        return Source(archive) if archive.is_file() else None


def find_source(data: str | None = None) -> Source:
    """The data at ``data``, else where the environment variable says, else in one of the default places.

    ``data`` may be the archive, a folder with the archive or with the unpacked folder in it, or the unpacked
    folder itself.

    Raises:
        ValueError: if there are no data; the message says where it looked and what to do.
    """
    source = search_source(data)
    if source is None:
        raise ValueError(
            f"No bAbI data in {', '.join(_places(data))}: put {FOLDER}{ARCHIVE_ENDING} there, unpacked or "
            f"not, or give its place as --data or in the environment variable {VARIABLE}."
        )
    return source


def search_source(data: str | None = None) -> Source | None:
    """As :func:`find_source`, but ``None`` if there are no data."""
    sources = (_open_place(Path(place).expanduser()) for place in _places(data))
    return next((source for source in sources if source is not None), None)


def is_named(data: str | None) -> bool:
    """Whether the argument or the environment variable says where the data are."""
    return bool(data or os.environ.get(VARIABLE))


def _places(data: str | None) -> list[str]:
    named = data or os.environ.get(VARIABLE)
    return [named] if named else list(DEFAULT_PLACES)


def _open_place(place: Path) -> Source | None:
    if place.is_file():
        return Source(place)
    for folder in (place, place / FOLDER):
        if any((folder / part).is_dir() for part in ("en-valid-10k", "en-valid")):
            return Source(folder)
    archive = place / (FOLDER + ARCHIVE_ENDING)
    return Source(archive) if archive.is_file() else None


def _read_archive(path: Path, names: set[str]) -> dict[str, bytes]:
    """The files whose last two path components are among the names, in one pass over the archive."""
    contents = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = "/".join(PurePosixPath(member.name).parts[-2:])
                if name in names and (file := archive.extractfile(member)) is not None:
                    contents[name] = file.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{path} is not a readable tar archive ({error}); get the file again.") from error
    return contents

"""Reading a few files out of a tar or zip archive that may be damaged, or made to do harm.

Nothing is ever written to disk, so what a name points to (``/etc``, ``..``) does not matter: only its last
two parts are looked at. Links are not followed. What is read into memory is bounded, see
:data:`LARGEST_FILE`.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

MIB = 2**20
LARGEST_FILE = 256 * MIB
"""Bytes of one file of questions; the largest official one has 2.5 million."""
LARGEST_SUM = 1024 * MIB
"""Bytes that are read into memory from one archive or folder; the official archive has 70 million."""
LARGEST_ARCHIVE = 4 * 1024 * MIB
"""Bytes that are passed over or read in a compressed tar archive, so that a bomb ends."""
MOST_MEMBERS = 100_000
"""Members of a tar archive; the official one has 205."""

ZIP_START = b"PK"
COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
UNREADABLE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    # Encrypted, or compressed in a way that zipfile does not know.
    RuntimeError,
    # Numbers in a header that are none.
    ValueError,
    OverflowError,
)


class RefusedError(ValueError):
    """An archive or file that could be read but must not be; the message is a whole sentence."""


class Budget:
    """Bytes that may still be read into memory from one place.

    Args:
        path: the place, for messages.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.left = path, LARGEST_SUM

    def take(self, size: int, name: str) -> None:
        """Note that a file is to be read.

        Raises:
            RefusedError: if it is too large, or all that was read together is.
        """
        if size > LARGEST_FILE:
            raise RefusedError(
                f"{self.path}: {name} has {size:,} bytes; a file of questions may have {LARGEST_FILE:,}."
            )
        self.left -= size
        if self.left < 0:
            raise RefusedError(
                f"{self.path}: the files that are needed have more than {LARGEST_SUM:,} bytes in all."
            )


def read_archive(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """The files whose last two path components are among the names, in one pass over the archive.

    Raises:
        ValueError: it is no archive, damaged (checksums are verified), too large, or has links, folders or
            the like under the names of files.
    """
    kind = "tar"
    try:
        with path.open("rb") as file:
            start = file.read(16)
            file.seek(0)
            if start.startswith(ZIP_START):
                kind = "zip"
                return _read_zip(path, file, names)
            return _read_tar(path, file, start, names)
    except RefusedError:
        raise
    except PermissionError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror}; make it readable.") from error
    except UNREADABLE as error:
        known = kind == "zip" or any(start.startswith(magic) for magic in COMPRESSED)
        seen = "" if known else f", begins with {start!r}"
        raise ValueError(
            f"{path} is not a readable {kind} archive ({error}{seen}); get the official tar.gz again, or "
            f"give what comes out of it as a tar or zip archive or as a folder."
        ) from error


def _short(name: str) -> str:
    return "/".join(PurePosixPath(name.replace("\\", "/")).parts[-2:])


def _read_zip(path: Path, file: BinaryIO, names: Collection[str]) -> dict[str, bytes]:
    contents, budget = {}, Budget(path)
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name = _short(member.filename)
            if name in names:
                kind = (member.external_attr >> 16) & 0o170000
                _require_file(path, name, not member.is_dir() and kind in (0, 0o100000))
                budget.take(member.file_size, name)
                contents[name] = archive.read(member)
    return contents


def _read_tar(path: Path, file: BinaryIO, start: bytes, names: Collection[str]) -> dict[str, bytes]:
    contents, budget = {}, Budget(path)
    with _uncompressed(file, start) as stream:
        bounded = _Bounded(path, stream)
        with tarfile.open(fileobj=cast("BinaryIO", bounded), mode="r:") as archive:
            for number, member in enumerate(archive, 1):
                if number > MOST_MEMBERS:
                    raise RefusedError(
                        f"{path} has more than {MOST_MEMBERS:,} members; the official one has 205."
                    )
                name = _short(member.name)
                if name not in names:
                    continue
                _require_file(path, name, member.isfile() and not member.issparse())
                budget.take(member.size, name)
                extracted = archive.extractfile(member)
                assert extracted is not None
                contents[name] = extracted.read()
                if len(contents[name]) != member.size:
                    raise tarfile.ReadError(f"{name} ends early")
        # tarfile stops before the checksum, which comes last.
        while chunk := stream.read(MIB):
            bounded.move(len(chunk))
    return contents


@contextmanager
def _uncompressed(file: BinaryIO, start: bytes) -> Iterator[BinaryIO]:
    for magic, opener in COMPRESSED.items():
        if start.startswith(magic):
            with opener(file, "rb") as stream:
                yield cast("BinaryIO", stream)
            return
    yield file


def _require_file(path: Path, name: str, is_file: bool) -> None:
    if not is_file:
        raise RefusedError(
            f"{path} has {name} as a link, a folder or the like; it must be an ordinary file, because "
            "nothing else in an archive is followed."
        )


class _Bounded(io.RawIOBase):
    """A stream that tarfile cannot be talked into reading much of: headers, too, say how long they are."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path, self._stream = path, stream
        self._left, self._moves_left = LARGEST_SUM, LARGEST_ARCHIVE

    def read(self, size: int = -1) -> bytes:
        """See :class:`io.RawIOBase`; all of it is asked for by nobody."""
        if not 0 <= size <= LARGEST_FILE + tarfile.RECORDSIZE:
            raise RefusedError(f"{self._path} has a header that claims {size:,} bytes; it is damaged.")
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise RefusedError(f"{self._path} would take more than {LARGEST_SUM:,} bytes of memory.")
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See :class:`io.RawIOBase`."""
        here = self._stream.tell()
        # To go back, a compressed stream begins again.
        self.move(offset - here if offset >= here else offset)
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """See :class:`io.RawIOBase`."""
        return self._stream.tell()

    def move(self, distance: int) -> None:
        """Note that so many bytes are passed over."""
        self._moves_left -= distance
        if self._moves_left < 0:
            raise RefusedError(
                f"{self._path} holds more than {LARGEST_ARCHIVE:,} bytes; the official one has 70 million."
            )

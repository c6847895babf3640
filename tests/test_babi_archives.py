"""bAbI data as people have them: packed otherwise, half there, damaged, or made to do harm."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mnm_rl.tasks.babi import BabiTask, archives
from mnm_rl.tasks.babi.archives import read_archive
from mnm_rl.tasks.babi.files import FOLDER, VARIABLE, Source, find_source, search_source
from mnm_rl.tasks.babi.generate import Sizes, write_files

NAME = "en-valid-10k/qa1_test.txt"
TEXT = b"1 Mary left.\n2 Who left? \tmary\t1\n"
MODES = {"tar": "w", "tar.gz": "w:gz", "tgz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The unpacked folder, with small sets of both sizes."""
    folder = tmp_path_factory.mktemp("data") / FOLDER
    write_files(folder, Sizes(1010, 4, 4), tasks=(1,))
    for part in ("en-valid-10k", "en-10k"):
        for path in (folder / part).iterdir():
            for number in range(2, 21):
                shutil.copy(path, path.with_name(path.name.replace("qa1_", f"qa{number}_")))
    shutil.copytree(folder / "en-valid-10k", folder / "en-valid")
    (folder / "en").mkdir()
    return folder


@pytest.fixture(autouse=True)
def _no_data_elsewhere(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def tar(path: Path, *members: tuple[str, bytes | tarfile.TarInfo], mode: str = "w:gz") -> Path:
    """An archive of texts, or of headers without any."""
    with tarfile.open(path, mode) as archive:  # pyright: ignore[reportArgumentType, reportCallIssue]
        for name, content in members:
            if isinstance(content, bytes):
                header = tarfile.TarInfo(name)
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))
            else:
                content.name = name
                archive.addfile(content)
    return path


def header(kind: bytes, target: str = "", size: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo()
    made.type, made.linkname, made.size = kind, target, size
    return made


def refused(act: Callable[[], object], *parts: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        act()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def questions(place: Path | str, **options) -> int:
    return len(BabiTask(str(place), tasks=(1,), **options).sequences["train"])


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "zip"])
def test_any_usual_archive_is_read(data, tmp_path, ending):
    path = tmp_path / f"{FOLDER}.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in data.rglob("*.txt"):
                archive.write(file, f"{FOLDER}/{file.relative_to(data)}")
    else:
        with tarfile.open(path, MODES[ending]) as archive:  # pyright: ignore
            archive.add(data, FOLDER)
    renamed = shutil.copy(path, tmp_path / "renamed")
    assert find_source(str(tmp_path)) == Source(path)
    for place in (path, tmp_path, renamed):
        assert questions(place) == 1010


def test_a_part_of_the_unpacked_folder_may_be_named(data, monkeypatch):
    for place in (data / "en-valid-10k", f"{data}/en-valid/../en-valid-10k/"):
        assert questions(place) == 1010
    assert questions(data / "en-valid", size="1k") == 1010
    monkeypatch.chdir(data / "en-valid")
    assert questions(".", size="1k") == 1010
    refused(lambda: BabiTask("."), "en-valid was named, but the set of the chosen size is en-valid-10k")
    refused(
        lambda: BabiTask(str(data / "en-valid-10k"), size="1k"), "the set of the chosen size is en-valid:"
    )


def test_a_folder_in_a_folder_of_its_name_is_found(data, tmp_path):
    shutil.copytree(data, tmp_path / FOLDER / FOLDER)
    assert questions(tmp_path) == 1010


def test_a_byte_order_mark_windows_lines_and_an_empty_last_field_are_read(data, tmp_path):
    shutil.copytree(data, tmp_path / "copy")
    path = tmp_path / "copy" / NAME
    for text in (
        b"\xef\xbb\xbf1 Mary moved to the garden.\r\n2 Where is Mary? \tgarden\t\r\n",
        b"1 Mary moved to the garden.\n2 Where is Mary? \tgarden\t",
        b"1 Mary moved to the garden.\r\n2 Where is Mary? \tgarden\t1\r",
        b"1 Mary moved to the garden.\n2 Where is Mary? \tgarden\t\n \n\t\n",
    ):
        path.write_bytes(text)
        assert len(BabiTask(str(tmp_path / "copy"), tasks=(1,)).sequences["test"]) == 1


def test_what_is_there_instead_is_said(data, tmp_path):
    refused(lambda: find_source(str(tmp_path)), f"{tmp_path} (which is empty): put {FOLDER}.tar.gz there")
    for name in ("en", "en-10k", *"abcdef"):
        (tmp_path / name).mkdir()
    refused(lambda: find_source(str(tmp_path)), "(which holds a/, b/, c/, d/, e/, en-10k/ and 2 more)")
    # Files where folders belong, and a folder where an archive belongs.
    (tmp_path / FOLDER).write_text("")
    (tmp_path / "en-valid").write_text("")
    (tmp_path / f"{FOLDER}.tar.gz").mkdir()
    refused(lambda: find_source(str(tmp_path)), "No bAbI data in")
    shutil.copytree(data, tmp_path / "copy")
    (tmp_path / "copy" / NAME).unlink()
    (tmp_path / "copy" / NAME).mkdir()
    refused(lambda: BabiTask(str(tmp_path / "copy")), f"{NAME} is not a file")
    shutil.rmtree(tmp_path / "copy" / "en-valid-10k")
    (tmp_path / "copy" / "en-valid-10k").write_text("")
    refused(lambda: BabiTask(str(tmp_path / "copy")), "lacks en-valid-10k/qa1_train.txt and 59 more")


def test_what_may_not_be_read_is_said(data, monkeypatch, tmp_path):
    # Root may read everything, so the system's answer is made up.
    secret = data / NAME
    usual = Path.open

    def deny(path: Path, *arguments, **named):
        if path == secret or path.suffix == ".gz":
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", deny)
    refused(lambda: BabiTask(str(data)), f"Cannot read {secret}: Permission denied; make it readable")
    archive = tar(tmp_path / "a.tar.gz", (NAME, TEXT))
    refused(lambda: BabiTask(str(archive)), f"Cannot read {archive}: Permission denied")


def test_a_place_that_may_not_be_looked_into(monkeypatch, tmp_path):
    def deny(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", deny)
    refused(lambda: find_source(str(tmp_path)), f"Cannot look for bAbI data in {tmp_path}: Permission denied")
    assert search_source() is None  # the usual places are nobody's wish


def test_without_a_home_the_usual_places_are_fewer(monkeypatch):
    def no_home(path: Path) -> Path:
        if str(path).startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return path

    monkeypatch.setattr(Path, "expanduser", no_home)
    assert search_source() is None
    refused(find_source, "No bAbI data in data/babi, ~/.cache/mnm_rl/babi:")
    refused(lambda: find_source("~nobody-at-all/babi"), "Cannot look for bAbI data in ~nobody-at-all/babi")


@pytest.mark.parametrize("name", [f"/etc/{NAME}", f"../../{NAME}", f"a/../{NAME}", f"./{NAME}"])
def test_names_that_point_elsewhere_are_harmless(tmp_path, name):
    packed = tar(tmp_path / "a.tar.gz", (name, TEXT))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name.replace("/", "\\"), TEXT)
    before = sorted(tmp_path.rglob("*"))
    for path in (packed, tmp_path / "a.zip"):
        assert read_archive(path, {NAME}) == {NAME: TEXT}
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices_are_refused_where_a_file_is_needed(tmp_path, kind):
    path = tar(tmp_path / "a.tar", (NAME, header(kind, NAME)), ("b", header(kind, "b")), mode="w")
    refused(lambda: read_archive(path, {NAME}), f"{path} has {NAME} as a link, a folder or the like")
    assert read_archive(path, {"en/b.txt"}) == {}


def test_a_link_in_a_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo(NAME)
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    refused(lambda: read_archive(tmp_path / "a.zip", {NAME}), f"has {NAME} as a link")


def test_no_more_than_a_bound_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST_FILE", 1000)
    monkeypatch.setattr("mnm_rl.tasks.babi.files.LARGEST_FILE", 1000)
    (tmp_path / NAME).parent.mkdir()
    (tmp_path / NAME).write_bytes(b"x" * 1001)
    packed = tar(tmp_path / "a.tar.gz", (NAME, b"x" * 1001))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(NAME, b"x" * 1001)
    for path in (tmp_path, packed, tmp_path / "a.zip"):
        refused(
            lambda path=path: Source(path).read({NAME}), f"{NAME} has 1,001 bytes; a file of questions may"
        )
    monkeypatch.setattr(archives, "LARGEST_FILE", 2000)
    monkeypatch.setattr(archives, "LARGEST_SUM", 1000)
    for path in (tmp_path, packed, tmp_path / "a.zip"):
        refused(lambda path=path: Source(path).read({NAME}), "more than 1,000 bytes")


def test_a_member_that_claims_to_be_huge_costs_nothing(tmp_path):
    path = tar(tmp_path / "a.tar", (NAME, header(tarfile.REGTYPE, size=2**40)), mode="w")
    refused(lambda: read_archive(path, {NAME}), f"{NAME} has {2**40:,} bytes")
    refused(lambda: read_archive(path, {"en/b.txt"}), "holds more than")
    # A long name, which the reader would take whole.
    path = tar(tmp_path / "b.tar", ("x", header(tarfile.GNUTYPE_LONGNAME, size=2**32)), mode="w")
    refused(lambda: read_archive(path, {NAME}), "has a header that claims")
    path = tar(tmp_path / "c.tar", ("x", header(tarfile.XHDTYPE, size=2**32)), mode="w")
    refused(lambda: read_archive(path, {NAME}), "has a header that claims")


def test_a_bomb_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST_ARCHIVE", 10**6)
    zeros = tar(tmp_path / "a.tar.gz", ("zeros", bytes(2 * 10**6)))
    refused(lambda: read_archive(zeros, {NAME}), "holds more than 1,000,000 bytes")
    trailing = tmp_path / "b.tar.gz"
    trailing.write_bytes(tar(tmp_path / "c.tar.gz", (NAME, TEXT)).read_bytes() + gzip.compress(bytes(10**7)))
    refused(lambda: read_archive(trailing, {NAME}), "holds more than 1,000,000 bytes")
    monkeypatch.setattr(archives, "MOST_MEMBERS", 10)
    many = tar(tmp_path / "d.tar.gz", *[(f"{number}", b"") for number in range(11)])
    refused(lambda: read_archive(many, {NAME}), "more than 10 members")


def test_a_sparse_member_is_refused(tmp_path):
    sparse = header(tarfile.REGTYPE)
    sparse.pax_headers = {
        "GNU.sparse.map": "0,0,1000000,0",
        "GNU.sparse.size": "1000000",
        "GNU.sparse.name": NAME,
    }
    path = tar(tmp_path / "a.tar", (NAME, sparse), mode="w")
    refused(lambda: read_archive(path, {NAME}), "as a link, a folder or the like")


def test_checksums_are_verified(tmp_path):
    whole = bytearray(tar(tmp_path / "a.tar.gz", (NAME, TEXT)).read_bytes())
    whole[-6] ^= 1  # of the checksum, which comes after all that is needed
    (tmp_path / "a.tar.gz").write_bytes(whole)
    refused(lambda: read_archive(tmp_path / "a.tar.gz", {NAME}), "is not a readable tar archive (CRC check")
    (tmp_path / "a.tar.gz").write_bytes(whole[:-8])
    refused(lambda: read_archive(tmp_path / "a.tar.gz", {NAME}), "is not a readable tar archive (Compressed")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(NAME, TEXT)
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(b"Mary", b"Fred"))
    refused(lambda: read_archive(tmp_path / "a.zip", {NAME}), "is not a readable zip archive (Bad CRC")


def test_what_is_no_archive_is_shown(tmp_path):
    for content, shown in ((b"<!DOCTYPE html><html>", "begins with b'<!DOCTYPE html><'"), (b"", "b''")):
        (tmp_path / "page.tar.gz").write_bytes(content)
        refused(lambda: find_source(str(tmp_path / "page.tar.gz")).read([NAME]), "page.tar.gz", shown)


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "zip"])
def test_whatever_is_damaged_the_answer_is_a_sentence(tmp_path, ending):
    path, chance = tmp_path / f"a.{ending}", random.Random(0)
    texts = [(f"en-valid-10k/qa{number}_test.txt", TEXT * 30) for number in range(1, 6)]
    if ending == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in texts:
                archive.writestr(name, text)
    else:
        tar(path, *texts, mode="w" if ending == "tar" else "w:gz")
    whole = path.read_bytes()
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 3))):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data[: chance.choice((len(data), len(data), chance.randrange(len(data))))])
        with contextlib.suppress(ValueError):
            found = read_archive(path, {name for name, _ in texts})
            assert ending == "tar" or all(text == TEXT * 30 for text in found.values())


def test_the_supplement_may_be_a_zip_too(tmp_path):
    name = "qa3_train_supplement/qa3_train_SYNTHETIC.txt"
    with zipfile.ZipFile(tmp_path / "qa3_train_supplement.zip", "w") as archive:
        archive.writestr(name, TEXT)
    supplement = Source(tmp_path / FOLDER).supplement()
    assert supplement is not None
    assert supplement.read([name]) == {name: TEXT}


def test_nothing_is_left_open(tmp_path):
    path = tar(tmp_path / "a.tar.gz", (NAME, TEXT))
    before = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []
    for _ in range(3):
        read_archive(path, {NAME})
    assert len(os.listdir("/proc/self/fd") if before else []) <= len(before)

"""The build of the C++ kernel, with fake compilers: what is kept, what is refused, and what is said."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mnm_rl import caches, kernels
from mnm_rl.kernels import build, cpu

Compiler = Callable[..., Path]
WRITES = 'while [ "$1" != -o ]; do shift; done; echo "library $CONTENT" > "$2"'


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    """Writes a script that answers ``--version``, counts its calls, and else does what it is given."""

    def write(body: str = WRITES, name: str = "fake-compiler") -> Path:
        path = tmp_path / name
        path.write_text(
            f'#!/bin/sh\nif [ "$1" = --version ]; then echo fake 1.0; exit 0; fi\n'
            f'echo "$@" >> "{tmp_path}/calls"\n{body}\n'
        )
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))
        return path

    return write


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and another folder for temporary files."""
    folder = tmp_path / "cache"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("MNM_RL_CACHE", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return folder


def calls(tmp_path: Path) -> int:
    file = tmp_path / "calls"
    return len(file.read_text().splitlines()) if file.exists() else 0


def names(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def test_a_kernel_is_compiled_once_and_announced_in_one_line(
    compiler: Compiler, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    compiler()
    library = build.build_library()
    assert build.build_library() == library
    assert (calls(tmp_path), names(cache)) == (1, [".sha256", ".so"])
    said = capfd.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert "fake-compiler" in said.err
    assert str(cache) in said.err


@pytest.mark.parametrize("damage", ["empty", "truncated", "changed", "without checksum"])
def test_a_damaged_kernel_is_compiled_again_once(
    compiler: Compiler, cache: Path, tmp_path: Path, damage: str
) -> None:
    compiler()
    library = build.build_library()
    whole = library.read_bytes()
    if damage == "without checksum":
        library.with_suffix(".sha256").unlink()
    else:
        library.write_bytes({"empty": b"", "truncated": whole[:-1], "changed": b"x" + whole[1:]}[damage])
    assert build.build_library() == library
    assert library.read_bytes() == whole
    build.build_library()
    assert calls(tmp_path) == 2


def test_a_kept_kernel_that_does_not_load_is_compiled_again_once(
    compiler: Compiler, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler()
    library, loaded = build.build_library(), []

    def load(path: Path) -> None:
        loaded.append(path)
        if len(loaded) == 1:
            raise OSError("made for another system")

    monkeypatch.setattr(torch.ops, "load_library", load)
    assert build.load_library() == library.stem
    assert (loaded, calls(tmp_path)) == ([library, library], 2)


def test_a_compiler_that_makes_rubbish_is_not_asked_for_ever(
    compiler: Compiler, cache: Path, tmp_path: Path
) -> None:
    compiler()  # writes a text file, which does not load
    with pytest.raises(build.BuildError, match="compiled but does not load"):
        build.load_library()
    assert calls(tmp_path) == 1


@pytest.mark.usefixtures("cache")
def test_a_kernel_that_fits_is_used_without_a_compiler(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler()
    library = build.build_library()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build.build_library() == library
    monkeypatch.setattr("mnm_rl.kernels.compiler.FLAGS", ("-O1",))
    with pytest.raises(build.BuildError, match="no-such-compiler"):
        build.build_library()


@pytest.mark.usefixtures("cache")
def test_another_compiler_means_another_kernel(compiler: Compiler, tmp_path: Path) -> None:
    compiler()
    first = build.build_library()
    script = compiler(name="other")
    script.write_text(script.read_text().replace("fake 1.0", "fake 2.0"))
    assert build.build_library() != first


@pytest.mark.usefixtures("cache")
def test_other_flags_of_the_compiler_mean_another_kernel(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = compiler()
    path.write_text(
        path.read_text().replace('[ "$1" = --version ]', '[ "$1" = --version ] || [ "$2" = --version ]')
    )
    found = []
    for flags in ("", " -mno-avxvnni"):
        monkeypatch.setenv("CXX", f"{path}{flags}")
        found.append(build.build_library())
    assert found[0] != found[1]
    assert calls(tmp_path) == 2


@pytest.mark.usefixtures("cache")
def test_the_compiler_variable_is_split_like_a_shell_does(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = compiler('echo launched > "$LAUNCHED"; exec "$@"', name="launcher")
    launcher.write_text(launcher.read_text().replace('if [ "$1" = --version ]', 'if [ "$2" = --version ]'))
    real = compiler(name="real one")
    monkeypatch.setenv("LAUNCHED", str(tmp_path / "launched"))
    monkeypatch.setenv("CXX", f"'{launcher}' '{real}'")
    assert build.find_compiler() == [str(launcher), str(real)]
    assert build.build_library().read_text() == "library \n"
    assert (tmp_path / "launched").exists()
    monkeypatch.setenv("CXX", "g++ 'unfinished")
    with pytest.raises(build.BuildError, match="g\\+\\+ 'unfinished is not a command"):
        build.find_compiler()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            'echo "In file included" >&2; echo "a.h:3: error: no such thing" >&2; exit 1',
            "a.h:3: error: no such",
        ),
        ('echo "Killed by hand" >&2; exit 1', "Killed by hand"),
        ("exit 3", "exit status 3"),
        ("exit 0", "no library"),
    ],
)
def test_a_failing_compiler_is_quoted_in_the_warning(
    compiler: Compiler, cache: Path, body: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler(body)
    monkeypatch.setattr(cpu, "operators", build.load_library)
    kernels._compiles.cache_clear()
    try:
        with pytest.warns(UserWarning, match=f"fake-compiler failed: .*{reason}"):
            assert not kernels._compiles()
    finally:
        kernels._compiles.cache_clear()
    assert names(cache) == []


@pytest.mark.parametrize("number", ["TERM", "KILL"])
def test_a_signal_to_the_compiler_that_means_the_whole_program_ends_it(
    compiler: Compiler, cache: Path, number: str
) -> None:
    compiler(f"kill -{number} $$")
    with pytest.raises(KeyboardInterrupt if number == "TERM" else build.BuildError):
        build.build_library()
    assert names(cache) == []


def test_a_compiler_that_cannot_be_started_is_named(compiler: Compiler, cache: Path) -> None:
    script = compiler()
    script.write_text("#!/no/such/interpreter\n")
    with pytest.raises(build.BuildError, match="fake-compiler does not run"):
        build.build_library()
    assert names(cache) == []


def test_what_a_killed_build_has_left_is_removed_by_the_next(
    compiler: Compiler, cache: Path, tmp_path: Path
) -> None:
    compiler('echo started > "$0.started"; sleep 20 & echo $! > "$0.child"; wait')
    code = "from mnm_rl.kernels import build; build.build_library()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "fake-compiler.child").exists() and time.monotonic() < until:
            time.sleep(0.05)
        (left,) = cache.iterdir()
        caches._sweep(cache)
        assert left.exists()  # it still runs
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert left.exists()
    compiler()
    build.build_library()
    assert names(cache) == [".sha256", ".so"]


def test_another_machines_build_is_left_alone_for_a_day(compiler: Compiler, cache: Path) -> None:
    compiler()
    young, old = cache / "build-elsewhere-1-x", cache / "build-elsewhere-2-y"
    young.mkdir(parents=True, mode=0o700)
    old.mkdir()
    cache.chmod(0o700)
    os.utime(old, (0, 0))
    build.build_library()
    assert (young.exists(), old.exists()) == (True, False)


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_can_write_is_not_used(
    compiler: Compiler, cache: Path, tmp_path: Path, mode: int
) -> None:
    compiler()
    library = build.build_library()
    cache.chmod(mode)
    with pytest.warns(UserWarning, match="others can write to it"):
        private = build.build_library()
    assert private.name == library.name
    assert private.parent.parent == tmp_path / "temporary"
    assert private.parent.stat().st_mode & 0o777 == 0o700
    assert calls(tmp_path) == 2
    with pytest.warns(UserWarning, match="others can write to it"):
        assert build.build_library() == private
    assert calls(tmp_path) == 2


def test_a_temporary_folder_taken_by_somebody_else_is_not_used(
    compiler: Compiler, cache: Path, tmp_path: Path
) -> None:
    compiler()
    cache.write_text("not a folder")
    taken = tmp_path / "temporary" / f"mnm_rl-{os.getuid()}"
    taken.mkdir()
    taken.chmod(0o777)
    with pytest.warns(UserWarning, match="others can write to it"):
        library = build.build_library()
    assert library.parent not in (cache, taken)
    assert library.parent.stat().st_mode & 0o777 == 0o700


def test_without_a_home_a_temporary_folder(
    compiler: Compiler, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    compiler()
    monkeypatch.delenv("MNM_RL_CACHE")
    monkeypatch.setattr(build.Path, "home", no_home)
    assert build.build_library().parent == tmp_path / "temporary" / f"mnm_rl-{os.getuid()}"


@pytest.mark.usefixtures("cache")
def test_the_usual_folder_is_private_whatever_the_mask(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler()
    monkeypatch.delenv("MNM_RL_CACHE")
    monkeypatch.setattr(build.Path, "home", lambda: tmp_path)
    before = os.umask(0o002)
    try:
        (tmp_path / ".cache" / "mnm_rl").mkdir(parents=True)
        folder = build.build_library().parent
    finally:
        os.umask(before)
    assert folder == tmp_path / ".cache" / "mnm_rl" / "kernels"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_where_home_cannot_be_written_a_temporary_folder(
    compiler: Compiler, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler()
    home = tmp_path / "home"
    home.write_text("")  # a folder without write permission would not stop root
    monkeypatch.delenv("MNM_RL_CACHE")
    monkeypatch.setattr(build.Path, "home", lambda: home)
    assert build.build_library().parent == tmp_path / "temporary" / f"mnm_rl-{os.getuid()}"
    assert build.cache_folder().parent == tmp_path / "temporary"


@pytest.mark.usefixtures("cache")
def test_sanitizers_are_part_of_the_name_and_only_known_ones_are_taken(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler()
    usual = build.build_library()
    monkeypatch.setenv("MNM_RL_SANITIZE", "address,undefined")
    assert build.build_library() != usual
    assert "-fsanitize=address,undefined" in (tmp_path / "calls").read_text().splitlines()[-1]
    monkeypatch.setenv("MNM_RL_SANITIZE", "adress")
    with pytest.raises(build.BuildError, match="takes address and undefined, not adress"):
        build.build_library()


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no compiler")
def test_the_kernel_compiles() -> None:
    """Without it all tests of the cores would pass or be skipped, by slower ways."""
    assert callable(cpu.operators().ntm_forward)
    assert callable(cpu.operators().dnc_forward)

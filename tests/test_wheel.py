"""Wheels as ``wheel_backend.py`` builds them, by a fake compiler; ``.ci/wheel`` tries a real one."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mnm_rl.kernels import prebuilt

ROOT = Path(__file__).parent.parent
FILES = ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "constraints.txt", "wheel_backend.py")
Build = Callable[..., Path]
BUILD = """
import sys, wheel_backend
settings = dict(word.split("=") for word in sys.argv[2:])
print(wheel_backend.build_wheel(sys.argv[1], settings))
"""


def _caches_and_links(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "__pycache__" or Path(folder, name).is_symlink()]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all that a wheel is built of."""
    tree = tmp_path_factory.mktemp("tree")
    for folder in ("agents", "envs"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "mnm_rl", tree / "mnm_rl", ignore=_caches_and_links)
    for name in FILES:
        shutil.copy(ROOT / name, tree)
    return tree


@pytest.fixture
def build(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Builds a wheel with settings; the compiler writes the GLIBC versions that it is told to."""
    script = tmp_path / "fake-compiler"
    script.write_text(
        '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\nprintf "GLIBC_2.5\\0$GLIBC\\0" > "$2"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))

    def run(*settings: str) -> Path:
        command = [sys.executable, "-c", BUILD, str(tmp_path), *settings]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tree, check=True)
        return tmp_path / done.stdout.splitlines()[-1]

    return run


@pytest.fixture
def backend() -> Any:
    spec = importlib.util.spec_from_file_location("wheel_backend", ROOT / "wheel_backend.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def expected() -> set[str]:
    found = set()
    for folder, package in (("mnm_rl", "mnm_rl"), ("agents", "mnm_rl/agents"), ("envs", "mnm_rl/envs")):
        for path in (ROOT / folder).rglob("*"):
            parts = path.relative_to(ROOT / folder).parts
            is_link = folder == "mnm_rl" and parts[0] in ("agents", "envs")
            if path.is_file() and path.suffix != ".pyc" and not is_link:
                found.add("/".join((package, *parts)))
    return found


def test_a_wheel_for_all_systems_has_every_file_and_no_kernel(build: Build) -> None:
    wheel = build("kernels=none")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert {name for name in contents(wheel) if name.startswith("mnm_rl/")} == expected()


def test_a_wheel_with_kernels_has_one_for_each_kind_and_is_named_after_its_system(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLIBC", "GLIBC_2.17")
    wheel = build("kernels=avx512,avx2")
    assert wheel.name.endswith("-py3-none-manylinux_2_28_x86_64.whl")
    stems = [f"mnm_rl/kernels/prebuilt/{prebuilt.library_name(kind)}" for kind in ("avx2", "avx512")]
    libraries = {f"{stem}{suffix}" for stem in stems for suffix in (".so", ".sha256")}
    found = {name for name in contents(wheel) if not re.match(r"mnm_rl-[\d.]+\.dist-info/", name)}
    assert found == expected() | libraries
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/WHEEL"))
        assert "Root-Is-Purelib: false" in archive.read(name).decode()
    # What an earlier build has left in the folder `build` does not come along.
    monkeypatch.setenv("GLIBC", "GLIBC_2.34")
    wheel = build("kernels=avx2")
    assert wheel.name.endswith("-py3-none-manylinux_2_34_x86_64.whl")
    assert len([name for name in contents(wheel) if name.endswith(".so")]) == 1


def test_kernels_come_of_themselves_from_an_sdist_only(
    backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend.platform, "system", lambda: "Linux")
    monkeypatch.setattr(backend.platform, "machine", lambda: "x86_64")
    assert backend._kinds(None) == []
    monkeypatch.setattr(backend, "ROOT", tmp_path)
    (tmp_path / "PKG-INFO").write_text("")
    assert backend._kinds(None) == list(backend.KINDS) == list(prebuilt.CAPABILITIES)
    assert backend._kinds({"kernels": "none"}) == []
    with monkeypatch.context() as patch:
        patch.delenv("CXX", raising=False)
        patch.setenv("PATH", str(tmp_path))
        assert backend._kinds(None) == []
        assert backend._kinds({"kernels": "avx2"}) == ["avx2"]
    monkeypatch.setattr(backend.platform, "machine", lambda: "aarch64")
    assert backend._kinds(None) == []
    with pytest.raises(SystemExit, match="takes avx512wide, avx512, avx2 or none, not 'avx3'"):
        backend._kinds({"kernels": "avx2,avx3"})


def test_torch_is_needed_for_kernels_only_and_is_the_one_of_the_constraints(
    backend: Any, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    pinned = (ROOT / "constraints.txt").read_text().strip()
    assert pinned in backend.get_requires_for_build_wheel({"kernels": "avx2"})
    for needs in (
        backend.get_requires_for_build_wheel({"kernels": "none"}),
        backend.get_requires_for_build_editable(),
        backend.get_requires_for_build_sdist(),
    ):
        assert not [name for name in needs if name.startswith("torch")]

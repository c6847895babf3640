"""The build backend: setuptools', which on Linux x86-64 also compiles the C++ kernels into the wheel.

$ python -m build                                   # sdist and wheel, kernels for torch of constraints.txt
$ python -m build -C torch=2.13.0,2.14.1            # for several versions of torch
$ python -m build -C kernels=avx2                   # for one kind of processor
$ python -m build -C kernels=none                   # for all systems: compiled at first use

A wheel that is built from a clone, as by ``pip install .``, has no kernels unless ``-C kernels=`` names them:
who installs from a clone has a compiler, and would wait for minutes. An editable installation never has.
Without a compiler there are none either, unless they are named.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import types
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

ROOT = Path(__file__).parent
KINDS = ("avx512wide", "avx512", "avx2")
FOLDER = Path("mnm_rl", "kernels", "prebuilt")
OLDEST_SYSTEM = 28
"""glibc 2.28 is what torch's own wheels need."""
Settings = Mapping[str, Any] | None
kernels: dict[str, Path] = {}
"""File name -> compiled kernel, for the wheel that is being built."""


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """Setuptools' requirements, and torch's headers where kernels are compiled."""
    needs = build_meta.get_requires_for_build_wheel(_for_setuptools(config_settings))
    return [*needs, f"torch=={_pinned_torch()}", "pip"] if _kinds(config_settings) else needs


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Build the wheel, with kernels for each version of torch and each kind of processor."""
    with tempfile.TemporaryDirectory() as folder:
        kernels.clear()
        for version in _torch_versions(config_settings) if _kinds(config_settings) else []:
            for library in _compiled(version, _kinds(config_settings), Path(folder)):
                kernels[library.name] = library
        return build_meta.build_wheel(wheel_directory, _for_setuptools(config_settings), metadata_directory)


class BuildPy(build_py):
    """Puts the compiled kernels beside the modules, and what an earlier build has left away."""

    def run(self) -> None:
        """Copy everything to the folder that becomes the wheel."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib) / FOLDER
        shutil.rmtree(folder, ignore_errors=True)
        for name, library in kernels.items():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, folder / name)
            checksum = _package_module("mnm_rl.kernels.compiler").checksum_file(library)
            shutil.copy(checksum, folder / checksum.name)


class BdistWheel(bdist_wheel):
    """Names a wheel with kernels after the system that they need: any Python, but Linux on x86-64."""

    def finalize_options(self) -> None:
        """Say whether there is code for one system only, which goes to another folder at installation."""
        if kernels:
            self.distribution.has_ext_modules = lambda: True
        super().finalize_options()

    def get_tag(self) -> tuple[str, str, str]:
        """The three parts of the wheel's name."""
        return ("py3", "none", system_tag(list(kernels.values()))) if kernels else super().get_tag()


def system_tag(libraries: list[Path]) -> str:
    """``manylinux_2_N_x86_64`` for the oldest glibc, 2.N, that has all symbols that the libraries use."""
    versions = [int(n) for path in libraries for n in re.findall(rb"GLIBC_2\.(\d+)", path.read_bytes())]
    return f"manylinux_2_{max([OLDEST_SYSTEM, *versions])}_x86_64"


def _kinds(settings: Settings) -> list[str]:
    """The kinds of processors to compile for."""
    named = (settings or {}).get("kernels")
    if named is None:
        is_here = platform.system() == "Linux" and platform.machine() == "x86_64"
        is_sdist = (ROOT / "PKG-INFO").exists()
        compilers = [os.environ.get("CXX"), "c++", "g++", "clang++"]
        can_compile = any(name and shutil.which(name.split()[0]) for name in compilers)
        return list(KINDS) if is_here and is_sdist and can_compile else []
    kinds = [] if named == "none" else str(named).split(",")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise SystemExit(f"-C kernels= takes {', '.join(KINDS)} or none, not {unknown[0]!r}.")
    return kinds


def _torch_versions(settings: Settings) -> list[str]:
    named = (settings or {}).get("torch")
    return [_pinned_torch()] if named is None else str(named).split(",")


def _pinned_torch() -> str:
    found = re.search(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert found is not None
    return found[1]


def _for_setuptools(settings: Settings) -> dict[str, Any]:
    return {key: value for key, value in (settings or {}).items() if key not in ("kernels", "torch")}


def _compiled(version: str, kinds: list[str], folder: Path) -> list[Path]:
    """The kernels for a version of torch."""
    prebuilt = _package_module("mnm_rl.kernels.prebuilt")
    installed = _package_module("torch").__version__
    against = None if version == installed.partition("+")[0] else _downloaded_torch(version, folder)
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda kind: prebuilt.compile_for(kind, folder, version, against), kinds))


def _package_module(name: str) -> Any:
    """A module without the package around it, whose own imports need what no build has."""
    for package in ("mnm_rl", "mnm_rl.kernels"):
        if package not in sys.modules:
            stand_in = types.ModuleType(package)
            stand_in.__path__ = [str(ROOT.joinpath(*package.split(".")))]
            sys.modules[package] = stand_in
    return import_module(name)


def _downloaded_torch(version: str, folder: Path) -> Path:
    """The headers and libraries of a version of torch that is not installed."""
    place = folder / version
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(place)]
    subprocess.run([*command, f"torch=={version}"], check=True)
    (wheel,) = place.glob("torch-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        wanted = ("torch/include/", "torch/lib/libc10.so", "torch/lib/libtorch_cpu.so")
        archive.extractall(place, [name for name in archive.namelist() if name.startswith(wanted)])
    wheel.unlink()
    return place / "torch"

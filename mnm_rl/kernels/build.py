"""Compiles the C++ kernel on first use and keeps it for the next.

The library's file name holds a hash of all that it depends on: the sources, the compiler and its version, the
flags, the processor, and the version of torch. It is built under another name and then renamed, which is
atomic: processes that start at once may compile it twice, but none sees half a file, and a process that dies
leaves no lock behind.

Environment variables: ``CXX`` names the compiler; ``MNM_RL_CACHE`` the folder for compiled kernels
(``~/.cache/mnm_rl`` if not given).
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

SOURCES = Path(__file__).parent / "cpp"
FLAGS = ("-std=c++20", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")


class BuildError(RuntimeError):
    """The kernel could not be compiled; the message says why."""


def load_library() -> str:
    """Load the kernel's operators, compiling them if need be.

    Returns:
        the namespace of the operators in ``torch.ops``.

    Raises:
        BuildError: no compiler, or one that fails.
    """
    compiler = find_compiler()
    digest = _fingerprint(compiler)
    namespace = f"mnm_rl_{digest}"
    library = cache_folder() / f"{namespace}.so"
    if not library.exists():
        _compile(compiler, namespace, library)
    torch.ops.load_library(library)
    return namespace


def cache_folder() -> Path:
    """Where compiled kernels are kept."""
    return Path(os.environ.get("MNM_RL_CACHE") or Path.home() / ".cache" / "mnm_rl")


def find_compiler() -> str:
    """Path of the C++ compiler: ``CXX``, or the first of c++, g++ and clang++ that there is."""
    named = os.environ.get("CXX")
    for name in [named] if named else ["c++", "g++", "clang++"]:
        path = shutil.which(name)
        if path:
            return path
    raise BuildError(f"no C++ compiler ({named or 'c++, g++, clang++'}) on the path")


def _fingerprint(compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    parts = [version, *_flags(), torch.__version__, platform.machine(), _processor()]
    parts += [path.read_text() for path in sorted(SOURCES.iterdir()) if path.suffix in (".h", ".cpp")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """The instruction sets of the processor, because the kernel is compiled for this very one."""
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return platform.processor()
    lines = information.read_text().splitlines()
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")


def _flags() -> list[str]:
    target = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
    system = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-fopenmp"]
    return [
        *FLAGS,
        "-fvisibility=hidden",
        "-fPIC",
        "-shared",
        target,
        *system,
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
    ]


def _compile(compiler: str, namespace: str, library: Path) -> None:
    installed = Path(torch.__file__).parent
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        built = Path(folder) / library.name
        command = [
            *(compiler, *_flags(), f"-DMNM_LIBRARY={namespace}", str(SOURCES / "scan.cpp"), "-o", str(built)),
            *(f"-isystem{installed / 'include'}", f"-isystem{installed / 'include/torch/csrc/api/include'}"),
            *(f"-L{installed / 'lib'}", "-lc10", "-ltorch_cpu"),
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise BuildError(f"{' '.join(command)}\n{result.stderr}")
        built.replace(library)

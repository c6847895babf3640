"""The C++ compiler and its command line, for a processor and a version of torch.

Imports nothing else of this package: whoever builds a wheel has torch, but not what the package needs.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

SOURCES = Path(__file__).parent / "cpp"
FLAGS = ("-std=c++20", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
SANITIZERS = ("address", "undefined")
STOPS = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", None))
"""Signals that mean the whole program, not the compiler alone."""
NATIVE = ("-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native",)
"""The flag that stands for this very processor."""


class BuildError(RuntimeError):
    """The kernel could not be compiled; the first line of the message says why."""


def find_compiler() -> list[str]:
    """The C++ compiler's command: ``CXX``, or the first of c++, g++ and clang++ that there is.

    Raises:
        BuildError: there is none.
    """
    named = os.environ.get("CXX")
    try:
        commands = [shlex.split(named)] if named else [["c++"], ["g++"], ["clang++"]]
    except ValueError as error:
        raise BuildError(f"CXX={named} is not a command: {error}") from error
    for command in commands:
        path = shutil.which(command[0]) if command else None
        if path:
            return [path, *command[1:]]
    raise BuildError(f"no C++ compiler ({named or 'c++, g++, clang++'}) on the path")


def compiler_version(compiler: list[str]) -> str:
    """What the compiler says about itself.

    Raises:
        BuildError: it cannot be started.
    """
    try:
        return subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError as error:
        raise BuildError(f"{compiler[0]} does not run: {error}") from error


def flags(target: Sequence[str] = NATIVE) -> list[str]:
    """All flags that decide what the library does.

    Args:
        target: the flags that name the processor.

    Raises:
        BuildError: ``MNM_RL_SANITIZE`` names a sanitizer that there is not.
    """
    system = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-fopenmp"]
    return [
        *FLAGS,
        "-fvisibility=hidden",
        "-fPIC",
        "-shared",
        *target,
        *system,
        *_sanitizer_flags(),
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
    ]


def compile_library(
    compiler: list[str], built: Path, target: Sequence[str] = NATIVE, against: Path | None = None
) -> None:
    """Compile the kernel; the file's stem is the namespace of its operators.

    Args:
        compiler: the compiler's command.
        built: the file to make.
        target: the flags that name the processor.
        against: the folder of a package torch with its headers and libraries, if not the installed one.

    Raises:
        BuildError: the compiler fails.
    """
    installed = against or Path(torch.__file__).parent
    arguments = [
        *(*flags(target), f"-DMNM_LIBRARY={built.stem}", str(SOURCES / "scan.cpp"), "-o", str(built)),
        *(f"-isystem{installed / 'include'}", f"-isystem{installed / 'include/torch/csrc/api/include'}"),
        *(f"-L{installed / 'lib'}", "-lc10", "-ltorch_cpu"),
    ]
    run_compiler([*compiler, *arguments])


def checksum_file(library: Path) -> Path:
    """Where a library's checksum lies."""
    return library.with_suffix(".sha256")


def checksum(library: Path) -> str:
    """What tells whether a library is whole: one that was cut off would end the process as it is loaded."""
    return hashlib.sha256(library.read_bytes()).hexdigest()


def is_whole(library: Path) -> bool:
    """Whether a library agrees with its checksum; not without one."""
    try:
        return checksum_file(library).read_text() == checksum(library)
    except (OSError, ValueError):
        return False


def source_texts() -> list[str]:
    """The sources, in a fixed order."""
    return [path.read_text() for path in sorted(SOURCES.iterdir()) if path.suffix in (".h", ".cpp")]


def hash_of(parts: list[str]) -> str:
    """A hash of texts, in hexadecimal digits."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def instruction_sets() -> str:
    """The line of the processor's instruction sets, on Linux; elsewhere the processor's name."""
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return platform.processor()
    lines = information.read_text().splitlines()
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")


def _sanitizer_flags() -> list[str]:
    named = [name for name in os.environ.get("MNM_RL_SANITIZE", "").split(",") if name]
    for name in named:
        if name not in SANITIZERS:
            raise BuildError(f"MNM_RL_SANITIZE takes {' and '.join(SANITIZERS)}, not {name}")
    if not named:
        return []
    return [
        f"-fsanitize={','.join(named)}",
        "-fno-sanitize-recover=all",
        "-fno-omit-frame-pointer",
        "-g1",
        "-O1",
    ]


def run_compiler(command: list[str]) -> None:
    """Compile.

    Args:
        command: all of the compiler's command line, with ``-o`` and the file to make.

    Raises:
        BuildError: the compiler fails.
    """
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if -result.returncode in STOPS:
        # Ctrl-C and a closed terminal reach the compiler, too. Without its kernel the run would go on with
        # another one, a little differently, until it stops; and with this one once it is resumed.
        raise KeyboardInterrupt
    if result.returncode != 0 or not Path(command[command.index("-o") + 1]).is_file():
        reason = _first_error(result.stderr) or f"no library, exit status {result.returncode}"
        raise BuildError(f"{command[0]} failed: {reason}\n{shlex.join(command)}\n{result.stderr}")


def _first_error(messages: str) -> str:
    """The compiler's first line with an error, else its first line."""
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    return next((line for line in lines if re.search(r"\berror\b", line)), lines[0] if lines else "")

"""Compiles the C++ kernel on first use and keeps it for the next.

The library's file name holds two hashes: of all that it must fit (the sources, the flags, the processor,
the version of torch), and of the compiler and its version. Without a compiler, any kept library that fits
will do. A checksum lies beside it; a library that does not agree with its checksum is compiled again. It is
built in a folder of its own and then renamed, which is atomic: processes that start at once may compile it
twice, but none sees half a file, and a process that dies leaves no lock behind, only a folder that the next
build removes.

Environment variables: ``CXX`` names the compiler, with arguments if need be (``ccache g++``);
``MNM_RL_CACHE`` the folder for compiled kernels (``~/.cache/mnm_rl/kernels`` if not given);
``MNM_RL_SANITIZE`` the sanitizers to build with, for tests (``address,undefined``, see ``.ci/sanitize``).

A library is code that runs here. So a folder that others can write to is not used; a private one below the
system's folder for temporary files then takes its place, as it does where there is no home or none to write
to.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from mnm_rl.caches import home_cache, is_private, make_usable, passing_folder, temporary_cache, workplace

SOURCES = Path(__file__).parent / "cpp"
FLAGS = ("-std=c++20", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
SANITIZERS = ("address", "undefined")
STOPS = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", None))
"""Signals that mean the whole program, not the compiler alone."""


class BuildError(RuntimeError):
    """The kernel could not be compiled; the first line of the message says why."""


def load_library() -> str:
    """Load the kernel's operators, compiling them if need be.

    Returns:
        the namespace of the operators in ``torch.ops``.

    Raises:
        BuildError: no compiler, or one that fails.
    """
    library = _kept_library()
    if library is None or not _loads(library):
        library = _compile()
        try:
            torch.ops.load_library(library)
        except OSError as error:
            raise BuildError(f"the kernel has been compiled but does not load: {error}") from error
    return library.stem


def build_library() -> Path:
    """The kernel's file, compiled if need be, but not loaded.

    Raises:
        BuildError: no compiler, or one that fails.
    """
    return _kept_library() or _compile()


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


def cache_folder() -> Path:
    """Where a newly compiled kernel goes: the first folder that only this user can write to.

    Raises:
        BuildError: there is none, not even for temporary files.
    """
    for folder in _folders():
        if make_usable(folder):
            return folder
    try:
        return passing_folder()  # somebody else has taken the usual name
    except OSError as error:
        raise BuildError(f"there is no folder to compile the kernel in: {error}") from error


def _folders() -> Iterator[Path]:
    named, home, temporary = os.environ.get("MNM_RL_CACHE"), home_cache(), temporary_cache()
    if named:
        yield Path(named)
    elif home:
        yield home / "kernels"  # its parent may be open to a group
    if temporary:
        yield temporary


def _kept_library() -> Path | None:
    """A library from an earlier call that fits and is whole."""
    pattern = f"mnm_rl_{_fingerprint()}_*.so"
    with contextlib.suppress(BuildError):
        pattern = f"{_namespace(find_compiler())}.so"
    for folder in _folders():
        if not os.path.isdir(folder):  # unlike Path.is_dir, where nobody may look, too
            continue
        if not is_private(folder):
            warnings.warn(
                f"mnm_rl: {folder} is not used for compiled kernels because others can write to it "
                f"(chmod go-w mends that if it is yours)",
                stacklevel=2,
            )
            continue
        for library in sorted(folder.glob(pattern)):
            if _is_whole(library):
                return library
    return None


def _checksum_file(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _is_whole(library: Path) -> bool:
    try:
        expected = _checksum_file(library).read_text()
        return expected == hashlib.sha256(library.read_bytes()).hexdigest()
    except (OSError, ValueError):
        return False


def _loads(library: Path) -> bool:
    try:
        torch.ops.load_library(library)
    except OSError:
        return False
    return True


def _namespace(compiler: list[str]) -> str:
    try:
        version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError as error:
        raise BuildError(f"{compiler[0]} does not run: {error}") from error
    return f"mnm_rl_{_fingerprint()}_{_hash([version])[:8]}"


def _fingerprint() -> str:
    """Hash of all that a library must fit."""
    parts = [*_flags(), torch.__version__, platform.machine(), _processor()]
    parts += [path.read_text() for path in sorted(SOURCES.iterdir()) if path.suffix in (".h", ".cpp")]
    return _hash(parts)[:16]


def _hash(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


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
        *_sanitizer_flags(),
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
    ]


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


def _compile() -> Path:
    compiler, folder = find_compiler(), cache_folder()
    library = folder / f"{_namespace(compiler)}.so"
    print(
        f"mnm_rl: compiling the C++ kernel with {shlex.join(compiler)}, once, for about half a minute; "
        f"it is kept in {folder}",
        file=sys.stderr,
    )
    with workplace(folder) as place:
        built = place / library.name
        _run_compiler([*compiler, *_arguments(library.stem, built)])
        checksum = _checksum_file(built)
        checksum.write_text(hashlib.sha256(built.read_bytes()).hexdigest())
        checksum.replace(_checksum_file(library))
        built.replace(library)
    return library


def _arguments(namespace: str, built: Path) -> list[str]:
    installed = Path(torch.__file__).parent
    return [
        *(*_flags(), f"-DMNM_LIBRARY={namespace}", str(SOURCES / "scan.cpp"), "-o", str(built)),
        *(f"-isystem{installed / 'include'}", f"-isystem{installed / 'include/torch/csrc/api/include'}"),
        *(f"-L{installed / 'lib'}", "-lc10", "-ltorch_cpu"),
    ]


def _run_compiler(command: list[str]) -> None:
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

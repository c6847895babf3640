"""Finds the C++ kernel: one that came with the package, or one that is compiled on first use and kept.

What follows is about those that are compiled here; the others are in :mod:`mnm_rl.kernels.prebuilt`.

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
import os
import platform
import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from mnm_rl.caches import home_cache, is_private, make_usable, passing_folder, temporary_cache, workplace
from mnm_rl.kernels import prebuilt
from mnm_rl.kernels.compiler import (
    BuildError,
    checksum,
    checksum_file,
    compile_library,
    compiler_version,
    find_compiler,
    flags,
    hash_of,
    instruction_sets,
    is_whole,
    source_texts,
)


class Kernel(NamedTuple):
    """Which kernel this installation runs."""

    origin: Literal["prebuilt", "compiled", "not compiled yet", "none"]
    """Whether it came with the package or was compiled here; ``none``: plain torch takes its place."""
    path: Path | None
    """The library, or the folder where it will be compiled."""
    reason: str
    """Why no other."""


def load_library() -> str:
    """Load the kernel's operators, compiling them if no library fits.

    Returns:
        the namespace of the operators in ``torch.ops``.

    Raises:
        BuildError: no compiler, or one that fails.
    """
    for find in (lambda: prebuilt.find().library, _kept_library):
        library = find()
        if library is not None and _loads(library):
            return library.stem
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


def find_kernel() -> Kernel:
    """The kernel that :func:`load_library` would load, and why that one; nothing is compiled."""
    try:
        library, reason = prebuilt.find()
        if library is not None and _loads(library):
            return Kernel("prebuilt", library, reason)
        reason = reason if library is None else f"{library.name} does not load"
    except BuildError as error:
        return Kernel("none", None, str(error))
    kept = _kept_library()
    if kept is not None and _loads(kept):
        return Kernel("compiled", kept, f"prebuilt kernels: {reason}")
    try:
        how = f"{shlex.join(find_compiler())} will compile it at its first use"
        return Kernel("not compiled yet", cache_folder(), f"{how}; prebuilt kernels: {reason}")
    except BuildError as error:
        return Kernel("none", None, f"{error}; prebuilt kernels: {reason}")


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
            if is_whole(library):
                return library
    return None


def _loads(library: Path) -> bool:
    try:
        torch.ops.load_library(library)
    except OSError:
        return False
    return True


def _namespace(compiler: list[str]) -> str:
    # CXX may have flags, too.
    return f"mnm_rl_{_fingerprint()}_{hash_of([compiler_version(compiler), *compiler[1:]])[:8]}"


def _fingerprint() -> str:
    """Hash of all that a library must fit."""
    parts = [*flags(), torch.__version__, platform.machine(), instruction_sets(), *source_texts()]
    return hash_of(parts)[:16]


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
        compile_library(compiler, built)
        beside = checksum_file(built)
        beside.write_text(checksum(built))
        beside.replace(checksum_file(library))
        built.replace(library)
    return library

"""Kernels that come with the package, each compiled for a version of torch and a kind of processor.

A wheel for Linux on x86-64 has them in :data:`FOLDER`; a clone has none. The name of a library tells what it
was made for, and ends in a hash of its sources and flags, so that none is taken that does not belong to the
installed sources; a checksum lies beside it. Where none fits, the kernel is compiled at its first use
(:mod:`mnm_rl.kernels.build`).

Environment variable: ``MNM_RL_PREBUILT=0`` leaves them alone, to have the kernel compiled for this very
processor.

Imports nothing of this package but the compiler's command line, as whoever builds a wheel has torch alone.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import NamedTuple

import torch

from mnm_rl.kernels import compiler

FOLDER = Path(__file__).parent / "prebuilt"


class Capability(NamedTuple):
    """A kind of processor."""

    target: tuple[str, ...]
    """The compiler's flags for it."""
    needs: frozenset[str]
    """What such a processor has, as /proc/cpuinfo calls it."""


_AVX2 = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"})
_AVX512 = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
CAPABILITIES = {
    "avx512wide": Capability(("-march=x86-64-v4", "-mavxvnni"), _AVX2 | _AVX512 | {"avx_vnni"}),
    "avx512": Capability(("-march=x86-64-v4",), _AVX2 | _AVX512),
    "avx2": Capability(("-march=x86-64-v3",), _AVX2),
}
"""Name -> kind of processor, the best first. With ``avx512wide`` vectors have 64 bytes, else 32."""


class Prebuilt(NamedTuple):
    """The library that fits, or none, and why."""

    library: Path | None
    reason: str


def usable_capabilities() -> list[str]:
    """Those of :data:`CAPABILITIES` that this processor has, the best first; none on other systems."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return []
    has = set(compiler.instruction_sets().partition(":")[2].split())
    return [name for name, kind in CAPABILITIES.items() if kind.needs <= has]


def torch_tag(version: str = torch.__version__) -> str:
    """The part of a name for a version of torch, such as ``torch2_13``.

    Builds of one version for the CPU and for GPUs, and its patches, are taken to have the same C++ interface;
    torch does not promise it.
    """
    major, minor = version.split(".")[:2]
    return f"torch{major}_{minor}"


def library_name(kind: str, version: str = torch.__version__) -> str:
    """The name of a library, without suffix.

    Args:
        kind: a key of :data:`CAPABILITIES`.
        version: of torch.
    """
    parts = [*compiler.flags(CAPABILITIES[kind].target), torch_tag(version), *compiler.source_texts()]
    return f"mnm_rl_{torch_tag(version)}_{kind}_{compiler.hash_of(parts)[:16]}"


def find() -> Prebuilt:
    """The library that fits the installed torch and sources, and this processor.

    Raises:
        BuildError: ``MNM_RL_SANITIZE`` names a sanitizer that there is not.
    """
    there = [path.stem for path in FOLDER.glob("mnm_rl_torch*.so")]
    if not there:
        return Prebuilt(None, "none has come with this installation")
    if os.environ.get("MNM_RL_PREBUILT") == "0":
        return Prebuilt(None, "MNM_RL_PREBUILT=0 leaves those of the installation alone")
    for_torch = [name for name in there if name.startswith(f"mnm_rl_{torch_tag()}_")]
    if not for_torch:
        versions = sorted(
            {name.removeprefix("mnm_rl_torch").replace("_", ".", 1).split("_")[0] for name in there}
        )
        return Prebuilt(None, f"made for torch {', '.join(versions)}, not for {torch.__version__}")
    usable = [kind for kind in usable_capabilities() if any(f"_{kind}_" in name for name in for_torch)]
    if not usable:
        return Prebuilt(None, "made for other processors than this one")
    fitting = {kind: FOLDER / f"{name}.so" for kind in usable if (name := library_name(kind)) in for_torch}
    for kind, library in fitting.items():
        if compiler.is_whole(library):
            return Prebuilt(library, f"made for torch {torch.__version__} and {kind}")
    if fitting:
        damaged = ", ".join(library.name for library in fitting.values())
        return Prebuilt(None, f"damaged, as the checksum beside it tells: {damaged}")
    return Prebuilt(None, "made of other sources, or with other flags, than those of this installation")


def compile_for(
    kind: str, folder: Path, version: str = torch.__version__, against: Path | None = None
) -> Path:
    """Compile a library, with its checksum beside it.

    Args:
        kind: a key of :data:`CAPABILITIES`.
        folder: where it goes.
        version: of torch.
        against: the folder of that version's package, if it is not the installed one.

    Returns:
        the file.

    Raises:
        BuildError: no compiler, or one that fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"{library_name(kind, version)}.so"
    compiler.compile_library(compiler.find_compiler(), library, CAPABILITIES[kind].target, against)
    compiler.checksum_file(library).write_text(compiler.checksum(library))
    return library

"""Say what the report of a fault needs: versions, which kernel runs and why, processor, devices, extras.

$ mnm-rl info
$ mnm-rl info --json
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from mnm_rl.commands.parsing import parse_all
from mnm_rl.kernels import build, compiler, prebuilt
from mnm_rl.processors import processor_name
from mnm_rl.training.command_line import one_sentence_errors

PACKAGES = ("mnm-rl", "torch", "gymnasium", "stable-baselines3", "minigrid", "numpy", "triton")
VARIABLES = ("MNM_RL_PREBUILT", "MNM_RL_CACHE", "MNM_RL_SANITIZE", "CXX", "OMP_NUM_THREADS")
"""What changes which kernel runs, and how."""


@dataclass(frozen=True)
class Args:
    """How to say it."""

    json: bool = False
    """For programs instead of people."""


def main(args: Args) -> None:
    """Print it."""
    found = collect()
    print(json.dumps(found, indent=2) if args.json else "\n".join(in_words(found)))


def collect() -> dict[str, Any]:
    """Everything, in the order in which it is shown; plain values."""
    kernel = build.find_kernel()
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
            "torch": torch.__version__,  # and which build of it
        },
        "installed in": str(Path(compiler.__file__).parents[1]),
        "kernel": {
            "origin": kernel.origin,
            "path": None if kernel.path is None else str(kernel.path),
            "reason": kernel.reason,
        },
        "compiler": _compiler(),
        "system": platform.platform(),
        "processor": {
            "name": processor_name(),
            "cores": os.cpu_count(),
            "kernel": next(iter(prebuilt.usable_capabilities()), None),
            "torch": torch.backends.cpu.get_cpu_capability(),
        },
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
        "extras": _extras(),
        "environment": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def in_words(found: Mapping[str, Any]) -> list[str]:
    """Lines for people."""
    rows: list[tuple[str, str]] = []
    for name, value in found.items():
        if name in ("versions", "extras", "environment"):
            prefix = "extra " if name == "extras" else ""
            rows += [
                (f"{prefix}{inner}", "not installed" if told is None else told)
                for inner, told in value.items()
            ]
        elif name == "kernel":
            where = f" ({value['path']})" if value["path"] else ""
            rows += [("kernel", f"{value['origin']}: {value['reason']}{where}")]
        elif name == "processor":
            rows += [
                ("processor", "{name}, {cores} cores; kernels: {kernel}, torch: {torch}".format(**value))
            ]
        else:
            rows.append((name, ", ".join(value) or "no GPU" if name == "devices" else str(value)))
    width = max(len(name) for name, _ in rows)
    return [f"{name:{width}}  {told}" for name, told in rows]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _compiler() -> str:
    try:
        command = compiler.find_compiler()
        return f"{command[0]}: {compiler.compiler_version(command).partition(chr(10))[0]}"
    except build.BuildError as error:
        return f"none: {error}"


def _extras() -> dict[str, str]:
    """Extra -> whether all of its packages are there, or which are not."""
    packages: dict[str, list[str]] = {}
    for requirement in metadata.requires("mnm-rl") or []:
        if found := re.match(r"([\w.-]+)[^;]*;.*extra == ['\"]([\w-]+)['\"]", requirement):
            packages.setdefault(found[2], []).append(found[1])
    lacking = {extra: [name for name in names if _version(name) is None] for extra, names in packages.items()}
    return {
        extra: f"lacks {', '.join(names)}" if names else "installed"
        for extra, names in sorted(lacking.items())
    }


def run_from_command_line() -> None:
    """Turn bad input into one sentence and exit status 2."""
    with one_sentence_errors("info.py"):
        main(parse_all(Args, __doc__))

"""A run's folder: its config, its checkpoint, its curves. Everything needed to go on, or to look back.

config.json      what the run is, and the software and hardware it ran on
checkpoint.pt    where it is
best.pt          the parameters with the lowest validation error
train.csv, valid.csv    its curves
"""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from mnm_rl.training.files import atomic_write, check_writable_directory, remove_partial_files

CONFIG_FILE = "config.json"
PACKAGES = ("mnm-rl", "torch", "numpy", "gymnasium", "stable-baselines3", "minigrid")


def create_run(directory: Path, kind: str, config: dict[str, Any]) -> None:
    """Make the folder of a new run and write its config.

    Args:
        directory: a folder that is empty or not there yet.
        kind: ``"supervised"``, ``"a2c"``: which script it belongs to.
        config: plain values.

    Raises:
        ValueError: if the folder has something in it, or cannot be written.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(
            f"{directory} is not an empty folder; give another --log-dir, or go on with --resume {directory}."
        )
    check_writable_directory(directory)
    _write(directory, {"kind": kind, "config": config, "versions": versions(), "hardware": hardware()})


def open_run(directory: Path, kind: str) -> dict[str, Any]:
    """The config of an existing run.

    Raises:
        ValueError: if there is no such run, or it is of another kind.
    """
    document = read_run(directory)
    if document["kind"] != kind:
        raise ValueError(f"{directory} holds a run of kind {document['kind']}, not {kind}.")
    check_writable_directory(directory)
    remove_partial_files(directory)
    return document["config"]


def read_run(directory: Path) -> dict[str, Any]:
    """The whole config document of a run, of any kind.

    Raises:
        ValueError: if there is none, or it cannot be read.
    """
    path = directory / CONFIG_FILE
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"There is no run in {directory}: {path} cannot be read.") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if not isinstance(document, dict) or not {"kind", "config"} <= document.keys():
        raise ValueError(f"{path} is not the config of a run.")
    return document


def change_config(directory: Path, config: dict[str, Any], at: str = "") -> None:
    """Give an existing run a new config; what it was before stays noted beside it.

    Args:
        directory: the run's folder.
        config: plain values.
        at: where the run was, such as "iteration 3000".
    """
    document = read_run(directory)
    changed = {
        name: {"from": document["config"].get(name), "to": value}
        for name, value in config.items()
        if value != document["config"].get(name)
    }
    changes = [*document.get("changes", []), {"at": at, **changed}]
    _write(directory, {**document, "config": config, "changes": changes})


def _write(directory: Path, document: dict[str, Any]) -> None:
    with atomic_write(directory / CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n")


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of tensors and plain values; never half."""
    with atomic_write(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        ValueError: if it is missing or incomplete.
    """
    if not path.exists():
        raise ValueError(f"There is no checkpoint at {path}.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"The checkpoint {path} is incomplete or damaged: {error}") from error


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, str | int]:
    """Processor, cores and accelerator, as far as they tell."""
    found: dict[str, str | int] = {"processor": _processor_name(), "cores": os.cpu_count() or 1}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()

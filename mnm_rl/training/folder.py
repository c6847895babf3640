"""What a run's folder holds. Everything needed to go on, or to look back; whoever needs a file asks here.

::

    config.json      what the run is, the changes since it began, and the software and hardware it began on
    checkpoint.*     where it is: .pt (supervised: tensors and plain values), .zip (an agent, as
                     Stable-Baselines3 saves it); written at the start, every few minutes and at the end
    best.pt          supervised: the parameters with the lowest validation error, without the optimizer
    model/           of an agent whose checkpoint was removed to save space (``save-pretrained --in-place``):
                     its parameters as a model (:mod:`mnm_rl.model_files.folder`). It does not go on.
    *.csv            its curves, a row at a time
    events.*         the same numbers, and pictures, for TensorBoard
    test.json        supervised, in experiments: errors on the test set, and the hash of what was tested
    README.md        in results/: the story of the run
    .lock            while a process trains there: its number
    .*.partial*      what a killed process left of a file that it was writing; removed when the run goes on

:data:`RUN_KINDS` says which of them a kind of run has.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import platform
import re
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from mnm_rl.files import atomic_write
from mnm_rl.model_files.folder import WEIGHTS_FILE, is_model, read_config, read_tensors
from mnm_rl.processors import processor_name
from mnm_rl.training.curves import check_curve
from mnm_rl.training.files import check_writable_directory
from mnm_rl.training.locks import LOCK_FILE
from mnm_rl.training.options import flat

CONFIG_FILE = "config.json"
TEST_FILE = "test.json"
MODEL_FOLDER = "model"
MAY_NAME_MODULES = ("env", "core", "task", "wrapper")
"""Settings whose values can be references into modules of others."""
PACKAGES = ("mnm-rl", "torch", "numpy", "gymnasium", "stable-baselines3", "minigrid")


@dataclass(frozen=True)
class RunKind:
    """A kind of run, by the files in its folder."""

    name: str
    """As in config.json."""
    curve: str
    """The curve whose last row says how far a run is ..."""
    counted: str
    """... in this column."""
    checkpoint: str | None
    """What a run goes on from; ``None`` if it always begins anew."""
    best: str | None = None
    """Its best parameters so far."""
    other_curves: tuple[str, ...] = ()
    """Further curves."""
    key: str = "iteration"
    """The column that grows from row to row in all its curves."""

    def check_curves(self, directory: Path) -> None:
        """Raise a ValueError for a curve that a run cannot go on with."""
        for name in (self.curve, *self.other_curves):
            check_curve(directory / name, self.key)

    def checkpoint_of(self, directory: Path) -> Path:
        """The file that a run in this folder goes on from.

        Raises:
            ValueError: runs of this kind have none.
        """
        if self.checkpoint is None:
            raise ValueError(f"A run of kind {self.name} has no checkpoint: it always begins anew.")
        return directory / self.checkpoint

    def has_begun(self, directory: Path) -> bool:
        """Whether a run has left more than its config; if not, it was killed before its first checkpoint."""
        names = (self.checkpoint, self.best, self.curve, *self.other_curves)
        return any((directory / name).exists() for name in names if name is not None)

    def parameters(self, run: Path) -> Path:
        """The file to evaluate.

        Args:
            run: the run's folder, for the best parameters, or the last ones if there are no best ones; that
                of a model (:mod:`mnm_rl.model_files.folder`); or a file, which is then meant itself.
        """
        if not run.is_dir():
            return run
        if self.best is not None and os.path.lexists(run / self.best):
            return run / self.best
        if not os.path.lexists(run / str(self.checkpoint)):
            for folder in (run, run / MODEL_FOLDER):
                if is_model(folder):
                    return folder / WEIGHTS_FILE
        return self.checkpoint_of(run)


SUPERVISED = RunKind(
    "supervised", "valid.csv", "iteration", "checkpoint.pt", best="best.pt", other_curves=("train.csv",)
)
A2C_AGENT = RunKind("a2c", "progress.csv", "episodes", "checkpoint.zip", key="updates")
PPO_AGENT = replace(A2C_AGENT, name="ppo")
AGENTS = (A2C_AGENT, PPO_AGENT)
"""Runs of reinforcement learning; the same files, whatever the algorithm."""
MEASUREMENT = RunKind("measurement", "measurement.csv", "round", None, key="round")
CONTRIB = RunKind("sb3-contrib", "progress.csv", "timesteps", None, key="timesteps")
"""Runs of sb3-contrib's RecurrentPPO, for comparison."""
RUN_KINDS = {kind.name: kind for kind in (SUPERVISED, *AGENTS, MEASUREMENT, CONTRIB)}


def run_directory(run: Path) -> Path:
    """The run's folder, from itself or from a file in it."""
    return run if run.is_dir() else run.parent


def create_run(directory: Path, kind: RunKind, config: Mapping[str, Any]) -> None:
    """Make the folder of a new run and write its config.

    Args:
        directory: a folder that is empty or not there yet.
        kind: of the run.
        config: plain values.

    Raises:
        ValueError: if the folder has something in it, or cannot be written.
    """
    if directory.exists() and not (directory.is_dir() and _is_empty(directory)):
        raise ValueError(
            f"{directory} is not an empty folder; give another --log-dir, or go on with --resume {directory}."
        )
    check_writable_directory(directory)
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory, {"kind": kind.name, "config": config, "versions": versions(), "hardware": hardware()})


def open_run(directory: Path, kind: RunKind, trusted: bool = False) -> dict[str, Any]:
    """The config of an existing run of a kind, which can be written to.

    Args:
        directory: the run's folder.
        kind: the kind that it should be of.
        trusted: as for :func:`read_kind`.

    Raises:
        ValueError: if there is no such run, it is of another kind, or as for :func:`read_kind`.
    """
    found, config = read_kind(directory, trusted)
    if found is not kind:
        raise ValueError(f"{directory} holds a run of kind {found.name}, not {kind.name}.")
    if kind.checkpoint is not None and kind.parameters(directory).name == WEIGHTS_FILE:
        raise ValueError(f"{directory} holds a model; a run cannot go on from it, its optimizer is not kept.")
    check_writable_directory(directory)
    return config


def read_kind(run: Path, trusted: bool = False) -> tuple[RunKind, dict[str, Any]]:
    """The kind and the config of a run.

    Args:
        run: its folder, or a file in it.
        trusted: whether the modules that its config names, of environments, cores and tasks of one's own, may
            be imported, which runs them.

    Raises:
        ValueError: if there is no such run, its kind is not known, or it names a module and is not trusted.
    """
    if not run.exists():
        raise ValueError(f"There is no run at {run}.")
    if not run.is_dir() and not (run.parent / CONFIG_FILE).exists():
        raise ValueError(f"{run} is neither the folder of a run nor a file in one.")
    document = read_run(run_directory(run))
    if document["kind"] not in RUN_KINDS:
        known = ", ".join(RUN_KINDS)
        where = run_directory(run)
        raise ValueError(f"{where} holds a run of kind {document['kind']}; known kinds: {known}.")
    if not trusted:
        _refuse_modules(run, document["config"])
    return RUN_KINDS[document["kind"]], document["config"]


def names_modules(config: Mapping[str, Any]) -> dict[str, str]:
    """What of a run's settings names modules of other packages: setting -> module."""
    found = {}
    for name, value in _references(config):
        module, colon, _ = value.partition(":")
        if colon and module.partition(".")[0] != "mnm_rl":
            found.setdefault(name, module)
    return found


def _references(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(setting, value) of all that may name a module."""
    wrappers = config.get("wrapper", ())
    wrappers = wrappers if isinstance(wrappers, list | tuple) else [wrappers]
    named = [(name, str(config.get(name, ""))) for name in ("env", "core", "task")]
    return [*named, *(("wrapper", str(each)) for each in wrappers)]


def _refuse_modules(run: Path, config: Mapping[str, Any]) -> None:
    for name, module in names_modules(config).items():
        raise ValueError(
            f"The {name} of {run} is {_shown(config[name])}, for which the module {module} would be imported "
            "and run; if you trust this run, say so with --trusted."
        )


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


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
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if is_model(directory) and isinstance(document, dict) and "config" not in document:
        raise ValueError(f"The model in {directory} does not say which run it is of, nor where it plays.")
    if not isinstance(document, dict) or not isinstance(document.get("config"), dict):
        raise ValueError(f"{path} is not the config of a run.")
    if not isinstance(document.get("kind"), str):
        raise ValueError(f"{path} is not the config of a run.")
    return document


def check_changes(
    directory: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any], changeable: Collection[str]
) -> None:
    """Make sure that a run that goes on changes nothing that it has to keep.

    Args:
        directory: the run's folder.
        saved: its settings, plain and maybe nested.
        wanted: those with which it is to go on.
        changeable: names of what may differ; nested ones are dotted.

    Raises:
        ValueError: something else differs.
    """
    before, after = flat(saved), flat(wanted)
    for name in after:
        if name not in changeable and before.get(name) != after[name]:
            option, kept = _last(name), ", ".join(map(_last, changeable))
            raise ValueError(
                f"The run in {directory} has {option} {before.get(name)}, not {after[name]}; a resumed run "
                f"keeps its settings{f', except for {kept}' if kept else ''}."
            )


def check_made_with(
    path: Path,
    saved: Any,
    directory: Path,
    wanted: Mapping[str, Any],
    complete: Callable[[Mapping[str, Any]], dict[str, Any]],
    changeable: Collection[str],
) -> None:
    """Make sure that a checkpoint was made with the settings that stand in its run's config.json.

    Where both fit the same parameters, nothing else would tell that the file was changed, or is of another
    run.

    Args:
        path: the checkpoint.
        saved: the settings that it holds; those of a former version lack what did not exist then.
        directory: the run's folder.
        wanted: all settings of the run, plain.
        complete: all settings, plain, from those that a checkpoint holds; errors are those of a config.
        changeable: dotted names of what may differ, because a run that goes on may be given it anew.

    Raises:
        ValueError: a setting differs, or those in the checkpoint cannot be used.
    """
    if not isinstance(saved, Mapping):
        raise ValueError(f"The checkpoint {path} does not hold the settings of its run.")
    # First what may name a module: nothing is imported because a checkpoint alone says so.
    for name in MAY_NAME_MODULES:
        if name in wanted:
            _check_made_with(path, directory, name, saved.get(name), wanted[name])
    try:
        before, after = flat(complete(saved)), flat(wanted)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"The checkpoint {path} holds settings that cannot be used: {error}") from error
    for name in {**before, **after}:
        if name not in changeable:
            _check_made_with(path, directory, name, before.get(name), after.get(name))


def _check_made_with(path: Path, directory: Path, name: str, made_with: Any, stands: Any) -> None:
    if made_with != stands:
        raise ValueError(
            f"The checkpoint {path} was made with {_last(name)} {made_with}, and {directory / CONFIG_FILE} "
            f"says {stands}: one of the two files was changed, or is of another run."
        )


def change_config(directory: Path, saved: Mapping[str, Any], config: Mapping[str, Any], at: str) -> None:
    """Give an existing run a new config; what it was before stays noted beside it.

    Args:
        directory: the run's folder.
        saved: its settings so far, in the form of ``config``.
        config: plain values.
        at: where the run was, such as "iteration 3000".
    """
    document = read_run(directory)
    before, after = flat(saved), flat(config)
    changed = {
        name: {"from": before.get(name), "to": value}
        for name, value in after.items()
        if value != before.get(name)
    }
    changes = [*document.get("changes", []), {"at": at, **changed}]
    _write(directory, {**document, "config": config, "changes": changes})


def _is_empty(directory: Path) -> bool:
    """Whether nothing is there but what a process left that was killed before it had written the config."""
    return all(path.name == LOCK_FILE or ".partial" in path.name for path in directory.iterdir())


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _write(directory: Path, document: dict[str, Any]) -> None:
    with atomic_write(directory / CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n")


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of tensors and plain values; never half."""
    # In memory first: a full disk is then an error of writing, which says what it is.
    whole = io.BytesIO()
    torch.save(state, whole)
    with atomic_write(path) as temporary:
        temporary.write_bytes(whole.getbuffer())


def load_state(path: Path, needed: Collection[str] = ("config", "model")) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is run, whoever wrote it.

    Args:
        path: a file of :func:`save_state`.
        needed: names of what has to be in it. Each of them is a mapping, as all parts of a checkpoint are.

    Raises:
        ValueError: if it is missing, incomplete, damaged (checksums are verified) or something else.
    """
    if not os.path.lexists(path):
        raise ValueError(f"There is no checkpoint at {path}.")
    if path.name == WEIGHTS_FILE:
        return _model_state(path.parent)
    try:
        _check_zip(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ValueError(f"Cannot read the checkpoint {path}: {error.strerror or error}.") from error
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = found[1] if found else "something"
        raise ValueError(
            f"The checkpoint {path} is not loaded: it holds {what}, neither a tensor nor a plain value."
        ) from error
    except Exception as error:
        raise ValueError(
            f"The checkpoint {path} is incomplete or damaged: {_first_sentence(error)}."
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} is not a checkpoint of a run: it holds a {type(state).__name__}.")
    lacking = [name for name in needed if not isinstance(state.get(name), Mapping)]
    if lacking:
        has = ", ".join(map(str, list(state)[:8])) or "nothing"
        raise ValueError(
            f"{path} is not the checkpoint that is needed: it lacks {', '.join(lacking)}; it has {has}."
        )
    return state


def _model_state(folder: Path) -> dict[str, Any]:
    """A model's folder in the form of a checkpoint."""
    config = read_config(folder)
    tensors = {name: torch.from_numpy(array) for name, array in read_tensors(folder, config).items()}
    return {"config": config.get("config"), "model": tensors, "task": config.get("task") or {}}


def _check_zip(path: Path) -> None:
    """Verify the checksums that torch writes but does not read, and that nothing in the file is compressed.

    Raises:
        zipfile.BadZipFile: something is wrong.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        # torch compresses nothing; a small file that claims to hold much is not its.
        compressed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if compressed or sum(member.file_size for member in members) > path.stat().st_size:
            raise zipfile.BadZipFile("it is compressed, which checkpoints are not")
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")


def _first_sentence(error: Exception) -> str:
    """What torch has to say, without its advice."""
    return str(error).split("\n")[0].split(". ")[0].rstrip(".") or type(error).__name__


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
    found: dict[str, str | int] = {"processor": processor_name(), "cores": os.cpu_count() or 1}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found

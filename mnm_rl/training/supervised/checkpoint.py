"""What a checkpoint of a supervised run holds, and whether it fits the run and the task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mnm_rl.state_dicts import state_dict_fault
from mnm_rl.tasks import Task
from mnm_rl.training.folder import SUPERVISED, check_made_with, load_state
from mnm_rl.training.supervised.config import SupervisedConfig, config_from_dict, config_to_dict
from mnm_rl.training.supervised.model import Model


def read_checkpoint(directory: Path, config: SupervisedConfig) -> dict[str, Any]:
    """The checkpoint of a run, from which it goes on; see :meth:`SupervisedTrainer.load`.

    Args:
        directory: the run's folder.
        config: the run.

    Raises:
        ValueError: if the checkpoint is missing, damaged, or was made with other settings.
    """
    path = SUPERVISED.checkpoint_of(directory)
    state = load_state(path, ("config", "model", "optimizer", "guard", "progress", "window"))
    check_config(state, config, path, directory)
    return state


def saved_task(state: dict[str, Any]) -> dict[str, Any] | None:
    """What the task of a checkpoint saved with the parameters, if anything."""
    # Earlier checkpoints hold bAbI's vocabulary by itself.
    former = {"vocabulary": state["vocabulary"]} if "vocabulary" in state else {}
    saved = state.get("task", former) or None
    if not isinstance(saved, dict | None):
        raise ValueError(f"The checkpoint holds {saved!r} as what its task has saved.")
    return saved


def check_config(state: dict[str, Any], config: SupervisedConfig, path: Path, directory: Path) -> None:
    """Make sure that a checkpoint was made with the settings of its run.

    Args:
        state: what the checkpoint holds.
        config: the run.
        path: the checkpoint.
        directory: the run's folder.

    Raises:
        ValueError: a setting differs that a run keeps.
    """
    check_made_with(
        path,
        state["config"],
        directory,
        config_to_dict(config),
        lambda saved: config_to_dict(config_from_dict(saved)),
        config.changeable,
    )


def load_parameters(model: Model, state: dict[str, Any], path: Path) -> None:
    """Put the parameters of a checkpoint into a model.

    Raises:
        ValueError: if they do not fit, or are not finite.
    """
    if fault := state_dict_fault(model, state["model"]):
        raise ValueError(f"The checkpoint {path} does not fit the settings of the run: {fault}.")
    model.load_state_dict(state["model"])


def check_same_task(saved: dict[str, Any] | None, task: Task, path: Path) -> None:
    """Make sure that a task was made with what a checkpoint has saved of it, such as its symbols.

    Raises:
        ValueError: it was made with something else.
    """
    own = task.saved()
    for name, value in (saved or {}).items():
        if name in own and _as_text(own[name]) != _as_text(value):
            raise ValueError(
                f"The task has another {name} than that of the checkpoint {path}, with which it must be made."
            )


def _as_text(value: Any) -> str:
    """A plain value, the same before it is saved and after; of what is not plain, nothing is known."""
    try:
        return json.dumps(value, sort_keys=True)
    except (TypeError, ValueError):
        return ""

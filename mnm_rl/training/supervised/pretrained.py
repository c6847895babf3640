"""A trained model of a supervised task as a folder of plain files; see :mod:`mnm_rl.model_files.folder`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from mnm_rl.model_files.card import Card, card_text
from mnm_rl.model_files.folder import write_model
from mnm_rl.tasks import Task
from mnm_rl.training.folder import SUPERVISED
from mnm_rl.training.supervised.config import SupervisedConfig, config_to_dict
from mnm_rl.training.supervised.evaluation import load_run
from mnm_rl.training.supervised.model import Model

TASK = "other"
"""Hugging Face has no name for predicting symbols of such sequences."""


class SupervisedModel(NamedTuple):
    """A model with what it was trained for."""

    config: SupervisedConfig
    task: Task
    model: Model


def save_model(
    folder: Path, config: SupervisedConfig, task: Task, model: Model, card: Card | None = None
) -> None:
    """Write a model.

    Args:
        folder: made if it is not there; a model in it is replaced.
        config: the run that trained it.
        task: its task, whose symbols are kept where it has its own.
        model: what was trained.
        card: what is known of it.

    Raises:
        ValueError: the folder has other things in it, or cannot be written.
    """
    card = Card() if card is None else card
    values = {
        "algorithm": SUPERVISED.name,
        "kind": SUPERVISED.name,
        "config": config_to_dict(config),
        "task": task.saved(),
    }
    tensors = {name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()}
    name = card.name or folder.name
    use = (
        "import mnm_rl\n\n"
        f'config, task, model = mnm_rl.load_pretrained("{name}")  # this folder\n'
        'batch = next(task.evaluation_batches("test", 32))\n'
        "logits, _, _ = model(batch.inputs, batch.lengths)"
    )
    tags = ["sequence-modeling", "recurrent", config.core, config.task]
    write_model(folder, values, tensors, card_text(card, TASK, tags, use))


def load_model(folder: Path, device: torch.device | str = "cpu", trusted: bool = False) -> SupervisedModel:
    """Read a model; nothing in its folder is run.

    Args:
        folder: by :func:`save_model`.
        device: where the model runs.
        trusted: whether modules that it names may be imported.

    Raises:
        ValueError: there is no such model, its files are damaged, or the task's data are not there.
    """
    config, task, model = load_run(folder, trusted)
    return SupervisedModel(config, task, model.to(device))

"""Trained models: those that come with the package, by name, and folders of one's own.

The models of the package lie in ``mnm_rl/models``; ``mnm-rl save-pretrained --shipped`` makes them from the
runs in ``results``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mnm_rl.model_files.card import read_score
from mnm_rl.model_files.folder import is_model, read_config

if TYPE_CHECKING:
    from mnm_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
    from mnm_rl.training.supervised.pretrained import SupervisedModel

MODELS_FOLDER = Path(__file__).parent / "models"
AGENT_ALGORITHMS = ("RecurrentA2C", "RecurrentPPO")
SUPERVISED_ALGORITHM = "supervised"


class Shipped(NamedTuple):
    """A model that comes with the package."""

    run: str
    """The run that it is made from, below ``results``."""
    what: str
    """What it does, for its card."""


SHIPPED = {
    "maze-highest": Shipped(
        "maze/highest",
        "An agent with MNM-p in the paper's maze: it finds the invisible goal, and then walks back to it "
        "from wherever it is put, for the rest of the 200 steps.",
    ),
    "maze-highest-lstm": Shipped(
        "maze/highest-lstm", "The same with an LSTM of the same width, trained for as long, for comparison."
    ),
    "cartpole-novel": Shipped(
        "rl/defaults/ppo-CartPoleNoVel-mnm-p",
        "An agent with MNM-p that balances CartPole's pole without being shown any velocity.",
    ),
    "repeat-previous-easy": Shipped(
        "rl/defaults/ppo-RepeatPreviousEasy-mnm-p",
        "An agent with MNM-p in POPGym's game of naming the card that was shown four steps before.",
    ),
    "dictionary-1": Shipped("dictionary/instance-1-mnm-p", "MNM-p on dictionary inference, instance 1."),
    "dictionary-2": Shipped(
        "dictionary/instance-2-in-turn-mnm-p", "MNM-p on dictionary inference, instance 2."
    ),
    "dictionary-3": Shipped(
        "dictionary/instance-3-in-turn-mnm-p", "MNM-p on dictionary inference, instance 3."
    ),
    "dictionary-4": Shipped(
        "dictionary/instance-4-in-turn-mnm-p", "MNM-p on dictionary inference, instance 4."
    ),
    "double-copy": Shipped(
        "double-copy/mnm-p", "MNM-p on double copy: it repeats a sequence of symbols twice."
    ),
    "babi": Shipped(
        "babi/all-tasks-mnm-p-7000-iterations", "MNM-p on the 20 bAbI tasks: it answers questions on stories."
    ),
    "babi-renamed": Shipped(
        "babi/all-tasks-mnm-p-renamed",
        "MNM-p on the 20 bAbI tasks, trained on stories whose people, places and things were exchanged.",
    ),
}
"""Name -> where it is from."""


def load_pretrained(
    model: str | os.PathLike, device: str = "cpu", trusted: bool = False
) -> RecurrentOnPolicyAlgorithm | SupervisedModel:
    """A trained model whose card says how good it is; nothing in its folder is run.

    Args:
        model: a name of :data:`SHIPPED`, or a folder by ``agent.save_pretrained`` or
            ``mnm-rl save-pretrained``.
        device: where it runs.
        trusted: whether modules that it names, such as that of a core of one's own, may be imported.

    Returns:
        an agent, or for a model of a supervised task its config, task and module.

    Raises:
        ValueError: there is no such model, its card has no score, or its files are damaged.
    """
    folder = model_folder(model)
    config = read_config(folder)
    read_score(folder)
    if config.get("algorithm") in AGENT_ALGORITHMS:
        return load_agent(folder, device, trusted)
    if config.get("algorithm") == SUPERVISED_ALGORITHM:
        from mnm_rl.training.supervised.pretrained import load_model

        return load_model(folder, device, trusted)
    raise ValueError(f"The model in {folder} is of an unknown kind, {str(config.get('algorithm'))[:40]!r}.")


def load_agent(
    model: str | os.PathLike, device: str = "cpu", trusted: bool = False
) -> RecurrentOnPolicyAlgorithm:
    """An agent by its name or folder, with a score on its card or without.

    Raises:
        ValueError: there is no such model, it is damaged, or no agent.
    """
    folder = model_folder(model)
    algorithm = read_config(folder).get("algorithm")
    if algorithm not in AGENT_ALGORITHMS:
        raise ValueError(f"The model in {folder} is no agent.")
    from mnm_rl.agents.a2c import RecurrentA2C
    from mnm_rl.agents.ppo import RecurrentPPO

    known: dict[str, Any] = {"RecurrentA2C": RecurrentA2C, "RecurrentPPO": RecurrentPPO}
    return known[algorithm].from_pretrained(folder, device=device, trusted=trusted)


def model_folder(model: str | os.PathLike) -> Path:
    """The folder of a model, by its name or itself.

    Raises:
        ValueError: it is neither a name that is known nor a folder with a model.
    """
    if isinstance(model, str) and model in SHIPPED:
        return MODELS_FOLDER / model
    path = Path(model)
    if not path.is_dir():
        raise ValueError(
            f"{str(model)!r} is neither a folder nor a model that comes with the package; "
            f"these are {', '.join(SHIPPED)}."
        )
    if not is_model(path):
        raise ValueError(f"{path} is not the folder of a model: it has no model.safetensors.")
    return path


def shipped_folder(run: Path) -> Path:
    """The folder of a model of the package where a path is its name, and nothing else; or the path itself.

    Raises:
        ValueError: it is a mere name, and neither a folder nor a model of the package is called so.
    """
    if run.exists() or len(run.parts) != 1:
        return run
    if str(run) not in SHIPPED:
        known = ", ".join(SHIPPED)
        raise ValueError(f"There is no run at {run}; models that come with the package are {known}.")
    return MODELS_FOLDER / str(run)

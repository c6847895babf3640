"""A model's folder, of which nothing is run when it is read.

Neither is torch needed::

model.safetensors    the parameters, by name
config.json          what the model is, in plain values, and the checksum of the parameters
README.md            its card (:mod:`mnm_rl.model_files.card`)
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnm_rl.files import atomic_write

FORMAT = 1
"""Of config.json; a reader refuses others."""
CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
CHECKSUM = "sha256"


def library_version() -> str:
    """Of mnm-rl, to be noted in what it writes."""
    try:
        return metadata.version("mnm-rl")
    except metadata.PackageNotFoundError:
        return "unknown"


def is_model(folder: str | os.PathLike) -> bool:
    """Whether a folder is one of a model, whole or not."""
    return os.path.lexists(Path(folder) / WEIGHTS_FILE)


def write_model(
    folder: str | os.PathLike, config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], card: str
) -> None:
    """Write a model; each file is replaced as a whole, and config.json, which knows the others, last.

    Args:
        folder: made if it is not there; a model in it is replaced.
        config: plain values.
        tensors: name -> parameter.
        card: text of README.md.

    Raises:
        ValueError: a value is not plain, or the folder has other things in it or cannot be written.
    """
    from safetensors.numpy import save

    folder = Path(folder)
    _check_folder(folder)
    weights = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
    document = {
        "format": FORMAT,
        "mnm_rl": library_version(),
        CHECKSUM: hashlib.sha256(weights).hexdigest(),
        **config,
    }
    try:
        text = json.dumps(document, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"The model's config cannot be written as plain values: {error}.") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (
            (WEIGHTS_FILE, weights),
            (CARD_FILE, card.encode()),
            (CONFIG_FILE, text.encode()),
        ):
            with atomic_write(folder / name) as temporary:
                temporary.write_bytes(content)
    except OSError as error:
        raise ValueError(f"The model cannot be written to {folder}: {error.strerror or error}.") from error


def _check_folder(folder: Path) -> None:
    if folder.is_dir() and not is_model(folder) and any(folder.iterdir()):
        raise ValueError(f"{folder} is neither empty nor the folder of a model; give another.")
    if os.path.lexists(folder) and not folder.is_dir():
        raise ValueError(f"{folder} is a file; a model needs a folder.")


def read_config(folder: str | os.PathLike) -> dict[str, Any]:
    """What a model is, as plain values.

    Raises:
        ValueError: there is no model, its config is damaged, or it is of another format.
    """
    folder = Path(folder)
    path = folder / CONFIG_FILE
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder} with a model.")
    if not is_model(folder) or not path.is_file():
        raise ValueError(f"{folder} is not the folder of a model: it needs {CONFIG_FILE} and {WEIGHTS_FILE}.")
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"The model's {path} is damaged: {error}.") from error
    if not isinstance(config, dict) or "format" not in config:
        raise ValueError(f"The model's {path} is not one that mnm-rl has written: it has no format.")
    if config["format"] != FORMAT:
        raise ValueError(
            f"The model in {folder} has the format {str(config['format'])[:20]}; this version reads {FORMAT}."
        )
    return config


def read_tensors(folder: str | os.PathLike, config: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The parameters of a model.

    Args:
        folder: the model's.
        config: by :func:`read_config`.

    Raises:
        ValueError: they are damaged, or not those that the config was written with.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = Path(folder) / WEIGHTS_FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"The model's {path} cannot be read: {error.strerror or error}.") from error
    if hashlib.sha256(content).hexdigest() != config.get(CHECKSUM):
        raise ValueError(
            f"The model's {path} is incomplete or damaged: its checksum is not that of {CONFIG_FILE}."
        )
    try:
        return load(content)
    # A dtype that numpy lacks is a KeyError there.
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"The model's {path} is damaged: {error}.") from error

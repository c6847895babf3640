"""Recurrent memories behind one interface; a new one is a file beside `mnm.py` and a line in `CORES`."""

from __future__ import annotations

import dataclasses
from typing import Any

from mnm_rl.cores.base import CoreOutput, MemoryCore, detach_state, reset_state
from mnm_rl.cores.lookup import LookupCore
from mnm_rl.cores.mnm import MNMCore
from mnm_rl.cores.plastic import PlasticCore
from mnm_rl.cores.recurrent import GRUCore, LSTMCore

CORES: dict[str, tuple[type[MemoryCore], dict[str, Any]]] = {
    "mnm-p": (MNMCore, {"write_rule": "local"}),
    "mnm-g": (MNMCore, {"write_rule": "gradient"}),
    "mnm-p-gated": (MNMCore, {"write_rule": "gated-local"}),
    "lstm": (LSTMCore, {}),
    "lstm-salu": (LookupCore, {}),
    "gru": (GRUCore, {}),
    "plastic": (PlasticCore, {"plasticity": "full"}),
    "plastic-homogenous": (PlasticCore, {"plasticity": "homogenous"}),
}
"""Name -> (class, settings that the name fixes)."""


def make_core(name: str, input_size: int, **settings: Any) -> MemoryCore:
    """Build a core by its name.

    Args:
        name: a key of :data:`CORES`.
        input_size: size of the vector that the core gets at every step.
        settings: fields of the core's config dataclass that differ from the defaults.

    Raises:
        ValueError: unknown name, or a setting with a value that is not allowed.
        TypeError: unknown setting.
    """
    core_class, config = core_config(name, **settings)
    return core_class(input_size, config)


def core_config(name: str, **settings: Any) -> tuple[type, Any]:
    """The class of a core and its config dataclass, checked, without building the core."""
    allowed = core_settings(name)
    core_class, fixed = CORES[name]
    unknown = [key for key in settings if key not in allowed]
    if unknown:
        raise TypeError(
            f"Core {name!r} has no setting {', '.join(unknown)}; its settings: {', '.join(allowed)}."
        )
    return core_class, _config_class(core_class)(**{**settings, **fixed})


def core_settings(name: str) -> list[str]:
    """The settings that a core has, other than those that its name fixes.

    Raises:
        ValueError: unknown name.
    """
    if name not in CORES:
        raise ValueError(f"Unknown core {name!r}; known cores: {', '.join(CORES)}.")
    core_class, fixed = CORES[name]
    fields = dataclasses.fields(_config_class(core_class))
    return [field.name for field in fields if field.name not in fixed]


def _config_class(core_class: type[MemoryCore]) -> Any:
    return core_class.config_class  # pyright: ignore[reportAttributeAccessIssue]


__all__ = [
    "CORES",
    "CoreOutput",
    "MemoryCore",
    "core_config",
    "core_settings",
    "detach_state",
    "make_core",
    "reset_state",
]

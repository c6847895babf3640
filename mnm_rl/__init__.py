"""Metalearned neural memory (Munkhdalai et al. 2019): cores, tasks, environments and agents.

Importing it registers the environments with Gymnasium; the names below are imported when they are first used,
because torch takes a while.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mnm_rl.envs import register_envs

if TYPE_CHECKING:
    from mnm_rl.cores import make_core, register_core
    from mnm_rl.pretrained import load_pretrained
    from mnm_rl.tasks import register_task

register_envs()

__version__ = "0.1.0"
__all__ = ["__version__", "load_pretrained", "make_core", "register_core", "register_task"]
_MODULES = {
    "load_pretrained": "pretrained",
    "make_core": "cores",
    "register_core": "cores",
    "register_task": "tasks",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

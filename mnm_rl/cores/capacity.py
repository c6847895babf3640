"""Sizes of a core that cannot be held in memory, found before the core is built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from mnm_rl.cores.base import MemoryCore
from mnm_rl.sizes import check_fits

NEVER_TOO_LARGE = 512
"""Sizes up to this one are not looked at: no core with three such sizes fills a machine."""
MOST_REPEATS = 1000
"""So often a core does a thing one after the other within a step, at most. More is a slip of the keyboard: it
would be built, or run, for hours, and training keeps something of each time."""


def check_core_fits(
    name: str, core_class: type[MemoryCore], input_size: int, config: Any, settings: Mapping[str, Any]
) -> None:
    """Make sure that a core's parameters and one state can be held in memory.

    Args:
        name: what the core is called.
        core_class: builds the core.
        input_size: ``I``.
        config: of the core.
        settings: the fields of the config.

    Raises:
        ValueError: they cannot.
    """
    sizes = {"input_size": input_size} | {
        setting: value for setting, value in settings.items() if _largest(value) > NEVER_TOO_LARGE
    }
    if max(map(_largest, sizes.values())) <= NEVER_TOO_LARGE:
        return
    needed = _bytes(core_class, input_size, config)
    given = " and ".join(f"{setting} {value}" for setting, value in sizes.items())
    check_fits(needed, f"the core {name} with {given}")


def _bytes(core_class: type[MemoryCore], input_size: int, config: Any) -> float:
    """Of a core and a state, found on torch's device that holds no numbers; 0 for a core that fails there."""
    try:
        with torch.device("meta"):
            core = core_class(input_size, config)
            parts = [*core.parameters(), *core.buffers(), *core.initial_state(1)]
    except (RuntimeError, TypeError, OverflowError) as error:
        return math.inf if "overflow" in str(error).lower() else 0
    return sum(part.numel() * part.itemsize for part in parts)


def _largest(value: Any) -> int:
    """The largest whole number in a setting."""
    if isinstance(value, tuple | list):
        return max(map(_largest, value), default=0)
    return value if isinstance(value, int) else 0

"""Settings for the maze under a name, for ``train_a2c.py --preset NAME``; curves are in docs/maze.md."""

from __future__ import annotations

from typing import Any, Literal

from mnm_rl.cores import core_settings
from mnm_rl.training.rl.config import A2CConfig

PresetName = Literal["paper", "soonest", "highest"]

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"previous_action": False, "core_settings": {"heads": 3}, "episodes": 1_000_000},
    "soonest": {"episodes": 30_000},
    "highest": {"episodes": 150_000, "gamma_end": 0.96, "ent_coef_end": 0.01},
}
"""``paper``: what Munkhdalai et al. 2019 tell of their setting, for MNM cores. ``soonest``: of the settings
tried, the one that passes a reward of 175 after the fewest episodes. ``highest``: the one
that ends highest."""


def preset_config(name: str, core: str = "mnm-p") -> A2CConfig:
    """The run of a preset, with seed 0.

    Args:
        name: which.
        core: the memory; the preset's number of heads is for cores that have heads.

    Raises:
        ValueError: an unknown preset or core.
    """
    if name not in PRESETS:
        raise ValueError(f"Unknown preset {name!r}; known presets: {', '.join(PRESETS)}.")
    known = core_settings(core)
    of_core = PRESETS[name].get("core_settings", {})
    fitting = {key: value for key, value in of_core.items() if key in known}
    return A2CConfig(core=core, **{**PRESETS[name], "core_settings": fitting})

"""The cores of the comparison, and the widths at which they have as many parameters as MNM-p."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from mnm_rl.training.rl.agent import make_agent
from mnm_rl.training.rl.config import AgentConfig, PPOConfig, config_from_dict
from mnm_rl.training.rl.environments import make_env

REFERENCE = "mnm-p"
"""Whose number of parameters the others are brought to."""
TOLERANCE = 0.02
"""Numbers of parameters count as equal within this fraction."""
SMALL_MNM: dict[str, Any] = {"key_size": 32, "value_size": 32, "memory_widths": [32, 32]}
GATED_DELTA_NET: dict[str, Any] = {
    **{"layers": 2, "heads": 2, "key_size": 32, "value_size": 32},
    **{"forgetting": "head", "output_gate": True},
}


@dataclass(frozen=True)
class Contender:
    """A core at the width that all share."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Beside the width."""
    width: int = 64
    width_setting: str = "hidden_size"
    """What is changed until the numbers of parameters are equal."""

    def at(self, width: int) -> dict[str, Any]:
        """All settings at a width."""
        return {self.width_setting: width, **self.settings}


CONTENDERS: dict[str, Contender] = {
    "mnm-p": Contender(SMALL_MNM),
    "mnm-g": Contender(SMALL_MNM),
    "lstm": Contender(),
    "gru": Contender(),
    "fwm": Contender({"entity_size": 16, "relation_size": 16}),
    "delta-net": Contender(GATED_DELTA_NET),
}
"""Name of a core -> what takes part of it. A further core is a further line."""
CONTRIB = "sb3-contrib"
"""Among the cores on the command line: sb3-contrib's RecurrentPPO with its LSTM."""


def count_parameters(settings: Mapping[str, Any]) -> int:
    """Parameters of the policy of a run.

    Args:
        settings: of a run of PPO, plain.

    Raises:
        ValueError: the environment cannot be made.
    """
    config = config_from_dict(settings, PPOConfig.kind)
    others = {name: value for name, value in settings.items() if name not in ("core", "core_settings")}
    agent = make_agent(config, _environment(repr(sorted(others.items())), config.n_envs, config))
    return sum(parameter.numel() for parameter in agent.policy.parameters())


_ENVIRONMENTS: dict[str, Any] = {}


def _environment(key: str, n_envs: int, config: AgentConfig) -> Any:
    """One for all cores of the same settings."""
    if key not in _ENVIRONMENTS:
        _ENVIRONMENTS[key] = make_env(config, n_envs)
    return _ENVIRONMENTS[key]


def matching_width(contender: Contender, wanted: int, count: Callable[[int], int]) -> int:
    """The width at which a core has the number of parameters that is nearest to the one wanted.

    Args:
        contender: the core.
        wanted: number of parameters.
        count: parameters at a width, growing with it.

    Raises:
        ValueError: no width is within :data:`TOLERANCE`.
    """
    count = cache(count)
    low, high = 1, contender.width
    while count(high) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < wanted else (low, middle)
    nearest = min((low, high), key=lambda width: abs(count(width) - wanted))
    if not are_equal(count(nearest), wanted):
        raise ValueError(
            f"No {contender.width_setting} gives {wanted:,} parameters: {nearest} has {count(nearest):,}."
        )
    return nearest


def are_equal(one: int, other: int) -> bool:
    """Whether two numbers of parameters count as equal."""
    return abs(one - other) <= TOLERANCE * other

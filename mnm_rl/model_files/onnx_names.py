"""What an exported agent is called in its ONNX file; who writes one and who reads one look here."""

from __future__ import annotations

from gymnasium import spaces

PREFIX = "mnm_rl."
FORMAT_KEY, FORMAT = f"{PREFIX}format", 1
"""In the file's metadata, with ``mnm_rl.version``, ``algorithm``, ``core``, ``observation_space`` and
``action_space``."""


def observation_names(space: spaces.Space) -> list[str]:
    """Names of the inputs that an observation is given by."""
    if isinstance(space, spaces.Dict):
        return [f"observation.{key}" for key in space.spaces]
    return ["observation"]

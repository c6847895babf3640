"""Options of the command line that need more than a type."""

from __future__ import annotations

import json
from typing import Any


def parse_json_object(text: str, name: str) -> dict[str, Any]:
    """Settings given as JSON.

    Args:
        text: such as ``'{"heads": 3}'``.
        name: the option, for the error message.

    Raises:
        ValueError: if the text is not a JSON object.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} must be JSON, got {text!r}: {error}.") from error
    if not isinstance(value, dict):
        raise ValueError(f'{name} must be a JSON object such as {{"key": 1}}, got {text!r}.')
    return value

"""Settings of a run: from and to plain values, checks of numbers, and the settings of its core.

Both kinds of run have a frozen dataclass of settings. A run's ``config.json`` holds all of them, those of the
core included, so that the run can be built again whatever the defaults are by then.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import math
import textwrap
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin

from mnm_rl.cores import core_config, core_names, core_settings
from mnm_rl.field_types import check_field_types
from mnm_rl.sizes import LARGEST_NUMBER

ConfigT = TypeVar("ConfigT")
LARGEST_FLOAT = 1e38
"""Larger ones are beyond what float32 holds."""


def parse_json_object(text: str, name: str) -> dict[str, Any]:
    """Settings given as JSON.

    Args:
        text: such as ``'{"heads": 3}'``.
        name: the option, for the error message.

    Raises:
        ValueError: if the text is not a JSON object.
    """
    if not isinstance(text, str):
        raise ValueError(f"{name} must be a text of JSON, got {text!r}.")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} must be JSON, got {text!r}: {error}.") from error
    if not isinstance(value, dict):
        raise ValueError(f'{name} must be a JSON object such as {{"key": 1}}, got {text!r}.')
    return value


def full_core_settings(core: str, given: Mapping[str, Any], preferred: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a core.

    Args:
        core: its name.
        given: settings that were asked for.
        preferred: settings to be used where none are given, in cores that have them.

    Raises:
        ValueError: unknown core, or a value that is not allowed.
        TypeError: a setting that the core does not have.
    """
    known = core_settings(core)
    settings = {name: value for name, value in preferred.items() if name in known}
    _, config = core_config(core, **{**settings, **given})
    return {name: getattr(config, name) for name in known}


def core_help() -> str:
    """What can be written after ``--core``."""
    return f"The memory: {', '.join(core_names())}, or module:Class for one of your own."


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they come back from a JSON file: tuples are lists there."""
    return json.loads(json.dumps(values))


def from_plain(config_class: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """A config from plain values.

    Raises:
        ValueError: an option that this version does not know.
    """
    known = {field.name for field in dataclasses.fields(config_class)}  # pyright: ignore[reportArgumentType]
    unknown = sorted(values.keys() - known)
    if unknown:
        raise ValueError(f"The run has an option that this version does not know: {', '.join(unknown)}.")
    check_field_types(config_class, values)
    return config_class(**values)


def upgraded_core_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of a run, also from the time of ``hidden_size``, ``heads`` and JSON in ``core_kwargs``.

    Raises:
        ValueError: ``core_kwargs`` is not JSON.
        TypeError: the values are no dictionary of options.
    """
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise TypeError(f"A config must be a dictionary of options, got {values!r}.")
    values = dict(values)
    given = {name: values.pop(name) for name in ("hidden_size", "heads") if values.get(name) is not None}
    for name in ("hidden_size", "heads"):
        values.pop(name, None)
    if "core_kwargs" in values:
        given |= parse_json_object(values.pop("core_kwargs"), "core_kwargs")
    return {**values, "core_settings": values.get("core_settings", given)}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names, such as ``core_settings.heads``."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        dotted = prefix + name
        found |= flat(value, f"{dotted}.") if isinstance(value, Mapping) else {dotted: value}
    return found


def check_numbers(
    config: Any,
    at_least_one: Iterable[str] = (),
    positive: Iterable[str] = (),
    not_negative: Iterable[str] = (),
    fractions: Iterable[str] = (),
) -> None:
    """Make sure that values are of their types and numbers in range; ``None`` is in every range.

    Raises:
        ValueError: a number is out of range, or not finite.
        TypeError: a value is of another type.
    """
    check_field_types(type(config), vars(config))
    rules = (
        (at_least_one, lambda value: value >= 1, "at least 1"),
        (positive, lambda value: value > 0, "positive"),
        (not_negative, lambda value: value >= 0, "not negative"),
        (fractions, lambda value: 0 <= value <= 1, "between 0 and 1"),
    )
    for name, value in vars(config).items():
        if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            raise ValueError(f"{name} must be at most 2^53, got {value}.")
        if isinstance(value, float) and math.isfinite(value) and abs(value) > LARGEST_FLOAT:
            raise ValueError(f"{name} must be at most {LARGEST_FLOAT:g}, got {value:g}.")
    for names, holds, what in rules:
        for name in names:
            value = getattr(config, name)
            if value is not None and not (math.isfinite(value) and holds(value)):
                must = "must not be negative" if what == "not negative" else f"must be {what}"
                raise ValueError(f"{name} {must}, got {value}.")
    check_seed(getattr(config, "seed", 0))


def check_seed(seed: int) -> None:
    """Raise a ValueError for a seed that numpy or torch would not take."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must not be negative and less than 2^32, got {seed}.")


def field_texts(kind: type) -> dict[str, str]:
    """The strings below the fields of a dataclass, as far as its source can be read."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    except (OSError, TypeError, SyntaxError):
        return {}
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for before, after in zip(body.body, body.body[1:], strict=False):
        if not (isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name)):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            texts[before.target.id] = " ".join(str(after.value.value).split())
    return texts


def flag(options: type, name: str) -> str:
    """The option of the command line for a field of a dataclass, ``--like-this``."""
    hint = typing.get_type_hints(options, include_extras=True)[name]
    if get_origin(hint) is Annotated:
        for extra in get_args(hint)[1:]:
            name = getattr(extra, "name", None) or name
    return "--" + name.replace("_", "-")


def command_line(options: type, values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Words of a command line that set fields of a dataclass.

    Args:
        options: the dataclass.
        values: field -> value.
        prefix: before the names of the flags, such as ``core.``.
    """
    words = []
    hints = typing.get_type_hints(options)
    for name, value in values.items():
        option = flag(options, name).replace("--", f"--{prefix}", 1)
        if hints[name] is bool:
            words.append(option if value else option.replace("--", "--no-", 1))
        else:
            words += [option, *map(str, value if isinstance(value, tuple | list) else [value])]
    return words

"""Whether the values of a dataclass are of the types that its fields declare."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
    type(None): "nothing",
}


def check_field_types(kind: type, values: Mapping[str, Any]) -> None:
    """Make sure that values are of the types that the fields of a dataclass declare.

    A whole number is a number; true and false are neither. A list does for a tuple, as in JSON. Types that
    are not known here are let through, and so are names of no field.

    Args:
        kind: the dataclass.
        values: field -> value.

    Raises:
        TypeError: a value of another type.
        ValueError: one that is not among the few that are allowed.
    """
    hints = _hints(kind)
    for name, value in values.items():
        if name in hints and not _fits(value, hints[name]):
            error = ValueError if _has_choices(hints[name]) else TypeError
            raise error(f"{name} must be {_describe(hints[name])}, got {value!r}.")


def check_own_fields(instance: Any, *sizes: str) -> None:
    """The same for the values that an instance of a dataclass has; to be called first in ``__post_init__``.

    Args:
        instance: of the dataclass.
        sizes: fields that must be at least 1, or ``None`` where they may be.

    Raises:
        TypeError: as :func:`check_field_types`.
        ValueError: as there, or a size is less than 1.
    """
    names = [field.name for field in dataclasses.fields(instance) if field.init]
    check_field_types(type(instance), {name: getattr(instance, name) for name in names})
    for name in sizes:
        size = getattr(instance, name)
        if size is not None and size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}.")


def check_whole(name: str, value: Any, least: int) -> None:
    """Make sure that an argument is a whole number, of Python or of numpy, that is not too small.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is less than ``least``.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, got {value!r}.")
    if int(value) < least:
        must = "must not be negative" if least == 0 else f"must be at least {least}"
        raise ValueError(f"{name} {must}, got {value}.")


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(kind)
    except (NameError, TypeError):  # of a class inside a function, names cannot be found
        return {}
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def _has_choices(hint: Any) -> bool:
    return get_origin(hint) is Literal or any(map(_has_choices, get_args(hint)))


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fits(value, arguments[0])
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in arguments)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in arguments)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        if arguments[-1:] == (...,):
            return all(_fits(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _fits(name, arguments[0]) and _fits(item, arguments[1]) for name, item in value.items()
        )
    if origin is list:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if hint in WORDS else True


def _describe(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _describe(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(each) for each in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple and arguments[-1:] == (...,):
        return f"several of: {_describe(arguments[0])}"
    if origin is tuple:
        return f"({', '.join(map(_describe, arguments))})"
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return "settings by their names" if arguments[0] is str else "a mapping"
    if origin is list:
        return f"a list of: {_describe(arguments[0])}"
    return WORDS.get(hint, getattr(hint, "__name__", str(hint)))

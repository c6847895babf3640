"""Cores by name: the project's own, and those that others register or refer to."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from mnm_rl.cores.base import MemoryCore
from mnm_rl.cores.capacity import check_core_fits
from mnm_rl.cores.checks import check_input_size
from mnm_rl.field_types import check_field_types
from mnm_rl.sizes import LARGEST_NUMBER

CoreChoice = str | type[MemoryCore]
"""What stands for a kind of core: a registered name, a reference ``package.module:ClassName``, or a class."""

CORES: dict[str, tuple[type[MemoryCore], dict[str, Any]]] = {}
"""Registered name -> (class, settings that the name fixes); filled by :func:`register_core`."""


def register_core(name: str, core_class: type[MemoryCore], /, **fixed_settings: Any) -> None:
    """Make a core known by a name, wherever a name of a core is taken.

    A class that is defined again under the same reference, as by a notebook's cell that runs twice, takes the
    place of the first.

    Args:
        name: without a colon, which marks references.
        core_class: takes the input size and a config, and names the config's dataclass in ``config_class``.
        fixed_settings: settings that the name stands for; they cannot be changed where it is used.

    Raises:
        ValueError: the name is taken by another core or is not a name, or a fixed setting has a value that is
            not allowed.
        TypeError: the class is not a core, has no such setting, or one of another type.
    """
    if not isinstance(name, str) or not name or ":" in name or name != name.strip():
        raise ValueError(f"A core's name must be a word without a colon, got {name!r}.")
    _check_class(core_class)
    config_class = core_class.config_class
    _check_known(fixed_settings, [field.name for field in dataclasses.fields(config_class)], name)
    if name in CORES and (core_reference(CORES[name][0]), CORES[name][1]) != (
        core_reference(core_class),
        fixed_settings,
    ):
        raise ValueError(f"The name {name!r} is taken by the core {core_reference(CORES[name][0])}.")
    check_field_types(config_class, fixed_settings)
    if not _missing(config_class, fixed_settings):
        config_class(**fixed_settings)
    CORES[name] = (core_class, dict(fixed_settings))


def find_core(core: CoreChoice) -> tuple[type[MemoryCore], dict[str, Any]]:
    """The class that a choice stands for, and the settings that a registered name fixes.

    Raises:
        ValueError: unknown name, or a reference that cannot be imported.
        TypeError: what the reference leads to, or what was given, is not a core.
    """
    if isinstance(core, str) and core in CORES:
        return CORES[core]
    if isinstance(core, str) and ":" not in core:
        raise ValueError(f"Unknown core {core!r}; known cores: {', '.join(CORES)}.")
    found = _import(core) if isinstance(core, str) else core
    _check_class(found, core if isinstance(core, str) else None)
    return found, {}


def core_names() -> tuple[str, ...]:
    """The registered names, the project's own first."""
    return tuple(CORES)


def core_reference(core_class: type[MemoryCore]) -> str:
    """``package.module:ClassName``, by which :func:`find_core` finds a class."""
    return f"{core_class.__module__}:{core_class.__qualname__}"


def core_name(core: CoreChoice | MemoryCore) -> str:
    """What a core is called in checkpoints, tables and messages.

    Args:
        core: a name or reference stays as it is; a class goes by its reference; a core by the registered name
            under which :func:`make_core` builds such a core, or else by its class's reference.
    """
    if isinstance(core, str):
        return core
    if isinstance(core, type):
        return core_reference(core)
    config = getattr(core, "config", None)
    for name, (core_class, fixed) in CORES.items():
        if type(core) is core_class and all(getattr(config, key) == value for key, value in fixed.items()):
            return name
    return core_reference(type(core))


def make_core(core: CoreChoice, input_size: int, **settings: Any) -> MemoryCore:
    """Build a core.

    Args:
        core: a name of :func:`core_names`, a reference ``package.module:ClassName``, or a class.
        input_size: size of the vector that the core gets at every step.
        settings: fields of the core's config dataclass that differ from the defaults.

    Raises:
        ValueError: unknown name, a setting with a value that is not allowed, or more parameters than there is
            memory for.
        TypeError: unknown setting, or something that is not a core.
    """
    check_input_size(input_size)
    core_class, config = core_config(core, **settings)
    chosen = {name: getattr(config, name) for name in core_settings(core)}
    check_core_fits(core_name(core), core_class, input_size, config, chosen)
    return core_class(input_size, config)


def core_config(core: CoreChoice, **settings: Any) -> tuple[type[MemoryCore], Any]:
    """The class of a core and its config dataclass, checked, without building the core.

    Raises:
        ValueError: as :func:`make_core`.
        TypeError: as :func:`make_core`, or a setting without a default is not given.
    """
    core_class, fixed = find_core(core)
    _check_known(settings, core_settings(core), core_name(core))
    chosen = {**settings, **fixed}
    if missing := _missing(core_class.config_class, chosen):
        raise TypeError(f"Core {core_name(core)!r} needs the setting {', '.join(missing)}.")
    check_field_types(core_class.config_class, chosen)
    for name, value in chosen.items():
        _check_countable(name, value)
    return core_class, core_class.config_class(**chosen)


def default_config(core: CoreChoice, **settings: Any) -> Any:
    """The core's config dataclass, with the defaults of all settings but those given.

    Raises:
        ValueError: as :func:`make_core`.
        TypeError: as :func:`core_config`.
    """
    return core_config(core, **settings)[1]


def core_settings(core: CoreChoice) -> list[str]:
    """The settings that a core has, other than those that its name fixes.

    Raises:
        ValueError: unknown name, or a reference that cannot be imported.
        TypeError: not a core.
    """
    core_class, fixed = find_core(core)
    return [field.name for field in dataclasses.fields(core_class.config_class) if field.name not in fixed]


def has_setting(core: CoreChoice, setting: str) -> bool:
    """Whether a core has a setting, such as ``"heads"``; errors as of :func:`core_settings`."""
    return setting in core_settings(core)


def _import(reference: str) -> Any:
    module, _, path = reference.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:  # anything may happen in a module that is imported
        raise ValueError(f"The core {reference!r} cannot be imported: {error}.") from error
    return found


def _check_class(found: Any, reference: str | None = None) -> None:
    name = reference or (core_reference(found) if isinstance(found, type) else repr(found))
    if not (isinstance(found, type) and issubclass(found, MemoryCore)):
        raise TypeError(f"{name} is not a core: a core is a class derived from mnm_rl.cores.MemoryCore.")
    if inspect.isabstract(found):
        left = ", ".join(sorted(found.__abstractmethods__))
        raise TypeError(f"The core {name} is abstract: it lacks {left}.")
    config_class = getattr(found, "config_class", None)
    if not (isinstance(config_class, type) and dataclasses.is_dataclass(config_class)):
        raise TypeError(f"The core {name} must name the dataclass of its settings in config_class.")


def _check_known(settings: Mapping[str, Any], allowed: list[str], name: str) -> None:
    if unknown := [key for key in settings if key not in allowed]:
        raise TypeError(
            f"Core {name!r} has no setting {', '.join(unknown)}; its settings: {', '.join(allowed)}."
        )


def _check_countable(name: str, value: Any) -> None:
    """Raise a ValueError for whole numbers, alone or in a list, that torch's own would not hold."""
    for each in value if isinstance(value, tuple | list) else [value]:
        if isinstance(each, int) and abs(each) > LARGEST_NUMBER:
            raise ValueError(f"{name} must be at most 2^53, got {each}.")


def _missing(config_class: type, given: Mapping[str, Any]) -> list[str]:
    nothing = dataclasses.MISSING
    return [
        field.name
        for field in dataclasses.fields(config_class)
        if field.init
        and field.default is nothing
        and field.default_factory is nothing
        and field.name not in given
    ]

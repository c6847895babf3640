"""Command lines of runs: the options of the run, then those of its task and its core, each with its type.

Which options there are depends on ``--task`` and ``--core``, so these two are looked for first. Settings of
the core stand behind ``--core.``, such as ``--core.key-size 64``; ``--hidden-size`` and ``--heads`` may be
written without it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import io
import itertools
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import tyro

from mnm_rl.cores import core_config, core_settings
from mnm_rl.tasks import TASKS
from mnm_rl.training.options import field_texts, flag

ArgsT = TypeVar("ArgsT")

SHORT = {"--hidden-size": "--core.hidden-size", "--heads": "--core.heads"}
"""Settings of the core that may be written without its prefix."""
MAY_BE_EMPTY = ("--title", "--labels", "--mark-labels", "--drop-observations", "--babi-repeat")
"""Options for which no text is a text."""


class Choices(NamedTuple):
    """What decides which options there are, and whether code of others may run; ``None``: not given."""

    task: str | None
    core: str | None
    preset: str | None
    resume: Path | None
    trusted: bool
    env: str | None = None
    settings: str | None = None


def find_choices(words: Sequence[str]) -> Choices:
    """Look for the choices in a command line, whatever else is in it.

    Raises:
        ValueError: an option is given twice, or without a value.
    """
    _refuse_repetition(words)
    _refuse_empty(words)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("task", "core", "preset", "env", "settings"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--trusted", action="store_true")
    try:
        found, _ = parser.parse_known_args(list(words))
    except argparse.ArgumentError as error:
        raise ValueError(f"{error.argument_name} needs a value.") from error
    return Choices(
        found.task, found.core, found.preset, found.resume, found.trusted, found.env, found.settings
    )


def check_resume(resume: str | None, log_dir: str | None, trusted: bool) -> None:
    """Make sure that what is said of a run that goes on fits together.

    Raises:
        ValueError: it is to go on in another folder, or there is no run to trust.
    """
    if resume is not None and log_dir is not None:
        raise ValueError("A run that goes on stays in its folder; leave out --log-dir or --resume.")
    if trusted and resume is None:
        raise ValueError(
            "--trusted is about the run that --resume goes on with; leave it out, or give --resume."
        )


def parse_run(args: ArgsT, description: str | None) -> ArgsT:
    """Parse the command line of a program that trains.

    Args:
        args: the defaults: a frozen dataclass with the run's config as its field ``run``, whose task and core
            are the chosen ones.
        description: for ``--help``.

    Returns:
        the same with what the command line says.

    Raises:
        ValueError: an option that does not exist, or a value that is not allowed; the message says what is.
    """
    config: Any = args.run  # pyright: ignore[reportAttributeAccessIssue]
    core = _core_options(config.core, config.all_core_settings())
    parts: dict[str, tuple[Any, Any]] = {"program": (tyro.conf.OmitArgPrefixes[type(args)], args)}
    if hasattr(config, "options"):
        parts["task"] = (tyro.conf.OmitArgPrefixes[type(config.options)], config.options)
    parts["core"] = (type(core), core)
    whole = dataclasses.make_dataclass(
        "Options",
        [(name, kind, dataclasses.field(default=default)) for name, (kind, default) in parts.items()],
        frozen=True,
    )
    parsed, unknown = parse(whole, description, _with_values(_with_prefixes(sys.argv[1:]), type(config)))
    if unknown:
        raise ValueError(_unknown_option(unknown[0], whole, config))
    changes: dict[str, Any] = {"core_settings": vars(parsed.core)}
    if "task" in parts:
        changes["task_options"] = vars(parsed.task)
    run = dataclasses.replace(parsed.program.run, **changes)
    return dataclasses.replace(parsed.program, run=run)


def parse_all(args: type[ArgsT], description: str | None) -> ArgsT:
    """Parse the command line of any other program.

    Raises:
        ValueError: an option that does not exist, or a value that is not one.
    """
    parsed, unknown = parse(args, description, sys.argv[1:])
    if unknown:
        raise ValueError(_unknown_option(unknown[0], args, None))
    return parsed


def parse(kind: type[ArgsT], description: str | None, words: Sequence[str]) -> tuple[ArgsT, list[str]]:
    """Words to a dataclass, and the words that no option explains.

    Raises:
        ValueError: a value that is not one, in one sentence instead of tyro's box.
    """
    _refuse_repetition(words)
    _refuse_empty(words)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, description=description, args=list(words), return_unknown_args=True)
    except SystemExit as stop:
        if stop.code == 0:
            raise
        raise ValueError(_first_sentence(said.getvalue())) from None


def _refuse_repetition(words: Sequence[str]) -> None:
    names = [word.partition("=")[0].replace("_", "-") for word in words if re.match("--[a-z]", word)]
    plain = [name.replace("--no-", "--") for name in names]
    if repeated := next(
        (name for name, bare in zip(names, plain, strict=True) if plain.count(bare) > 1), None
    ):
        raise ValueError(f"{repeated} is given twice.")


def _refuse_empty(words: Sequence[str]) -> None:
    """An empty word is a variable of the shell that is not set; as a path it would be the current folder."""
    option = ""
    for word in words:
        name, equals, value = word.partition("=")
        is_option = re.match("--[a-z]", word) is not None
        option = name if is_option else option
        if option not in MAY_BE_EMPTY and not (value if is_option and equals else word).strip():
            where = f"behind {option} " if option else ""
            raise ValueError(f"A word {where}on the command line is empty.")


def _core_options(core: str, settings: Mapping[str, Any]) -> Any:
    """An instance of a dataclass with the settings that a core has, under ``settings`` as its defaults."""
    _, config = core_config(core)
    hints = typing.get_type_hints(type(config), include_extras=True)
    texts = field_texts(type(config))
    fields = [
        (
            name,
            Annotated[hints[name], tyro.conf.arg(help=texts.get(name, ""))],
            dataclasses.field(default=settings[name]),
        )
        for name in core_settings(core)
    ]
    return dataclasses.make_dataclass(type(config).__name__, fields, frozen=True)()


def _with_prefixes(words: Sequence[str]) -> list[str]:
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        name = name.replace("_", "-") if name.startswith("--") else name
        if name == "--core-kwargs":
            raise ValueError(
                "Settings of the core are options of their own: --core.key-size 64 instead of --core-kwargs."
            )
        found.append(f"{SHORT[name]}{equals}{value}" if name in SHORT else word)
    return found


def _with_values(words: Sequence[str], config_class: type) -> list[str]:
    """Words in which options of yes, no or nothing said have values: ``--name`` is yes, ``--no-name`` no."""
    hints = typing.get_type_hints(config_class)
    open_flags = {flag(config_class, name) for name, hint in hints.items() if hint == bool | None}
    found = []
    for word, after in itertools.pairwise([*words, "--"]):
        name = word.replace("_", "-")
        if name in open_flags and after.startswith("--"):
            found += [name, "True"]
        elif name.startswith("--no-") and name.replace("--no-", "--", 1) in open_flags:
            found += [name.replace("--no-", "--", 1), "False"]
        else:
            found.append(word)
    return found


def _first_sentence(box: str) -> str:
    """What tyro says below the title of its box, up to the next rule, on one line."""
    parts: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line.strip("│╭╮╰╯ ")
        if re.search("[─-]{3,}", text):
            parts.append([])
        elif text:
            parts[-1].append(text)
    # The title stands in the frame, or, where frames cannot be drawn, above the first rule.
    told = [" ".join(part) for part in parts[1:] if part]
    text = told[0] if told else "The command line cannot be understood"
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _unknown_option(word: str, kind: type, config: Any) -> str:
    """A sentence about a word that no option explains."""
    if not word.startswith("--"):
        return f"Unexpected {word!r}; --help lists the options."
    name = word.partition("=")[0].replace("_", "-").replace("--no-", "--")
    if config is not None:
        if name.startswith("--core."):
            setting, has = name.removeprefix("--core."), ", ".join(core_settings(config.core))
            return f"The core {config.core} has no setting {setting}; its settings: {has}."
        owners = [task for task, options in TASKS.items() if name in _flags(options)]
        if owners and hasattr(config, "task"):
            return f"{name} is an option of the task {' and '.join(owners)}, not of {config.task}."
    near = difflib.get_close_matches(name, _flags(kind), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "--help lists all."
    return f"There is no option {name}; {hint}"


def _flags(kind: Any) -> list[str]:
    """All options of a dataclass, those of dataclasses in it included."""
    found = []
    hints = typing.get_type_hints(kind, include_extras=False)
    for each in dataclasses.fields(kind):
        inner = hints[each.name]
        nested = [part for part in (inner, *typing.get_args(inner)) if dataclasses.is_dataclass(part)]
        found += _flags(nested[0]) if nested else [flag(kind, each.name)]
    return found

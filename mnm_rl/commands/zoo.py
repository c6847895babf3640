"""RL Baselines3 Zoo (rl_zoo3) with recurrenta2c and recurrentppo_mnm among its algorithms.

$ mnm-rl zoo train --algo recurrentppo_mnm --env CartPoleNoVel-v1
$ mnm-rl zoo train --algo recurrentppo_mnm --env CartPoleNoVel-v1 --core lstm -params learning_rate:0.002
$ mnm-rl zoo train --algo recurrenta2c --env MNMMaze-9x9 -params policy_kwargs:"dict(core='mnm-g')"
$ mnm-rl zoo train --algo recurrentppo_mnm --env CartPoleNoVel-v1 -optimize --n-trials 20
$ mnm-rl zoo enjoy --algo recurrentppo_mnm --env CartPoleNoVel-v1 --no-render

Sub-commands and options are RL Zoo's; mnm-rl zoo train --help lists them. Without -conf, settings are those
of mnm-rl train-a2c and train-ppo for the environment and the core. --core NAME, which RL Zoo does not have,
chooses the core of such a run; mnm-p or what the environment's settings say is the default. It needs
pip install 'mnm-rl[zoo]'.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium

from mnm_rl.cores import core_settings
from mnm_rl.training.command_line import one_sentence_errors

COMMANDS = {
    "train": "train an agent, or with -optimize search its settings",
    "enjoy": "play with a trained agent",
    "plot_train": "draw training curves (pip install 'rl_zoo3[plots]')",
    "all_plots": "draw evaluations of several runs (the same)",
    "plot_from_file": "draw what all_plots wrote (the same)",
}
"""Those of RL Zoo's own command line; the functions behind them have the same names."""


def main(words: Sequence[str]) -> None:
    """Run one of RL Zoo's programs.

    Args:
        words: its name and options.

    Raises:
        ValueError: there is no such program or core, RL Zoo is not installed, or it refuses something.
    """
    if not words or words[0] in ("-h", "--help"):
        print(f"{(__doc__ or '').strip()}\n")
        print("\n".join(f"  {name:18}{text}" for name, text in COMMANDS.items()))
        return
    if words[0] not in COMMANDS:
        raise ValueError(f"unknown sub-command {words[0]!r}; known: {', '.join(COMMANDS)}.")
    core, options = taken_core(words[1:])
    if core is not None and words[0] != "train":
        raise ValueError("--core is an option of train; enjoy takes the core that was trained.")
    if core is not None:
        core_settings(core)  # whether there is such a core
    zoo = _rl_zoo()
    zoo.register()
    zoo.RecurrentExperiments.core = core
    if words[0] == "enjoy":
        options = [*folder_of_ours(options, tuple(zoo.KINDS)), *options]
    # RL Zoo parses these; the first is what argparse calls the program.
    sys.argv = [f"{sys.argv[0]} {words[0]}", *options]
    with _said_by_rl_zoo():
        _program(words[0])()


def taken_core(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of ``--core``, and the words without it.

    Raises:
        ValueError: it has no value, or is given twice.
    """
    rest: list[str] = []
    found: list[str] = []
    left = iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if name != "--core":
            rest.append(word)
            continue
        value = value if equals else next(left, "")
        if not value or value.startswith("-"):
            raise ValueError("--core needs a value, the name of a core such as mnm-p or lstm.")
        found.append(value)
    if len(found) > 1:
        raise ValueError("--core is given twice.")
    return (found[0] if found else None), rest


def folder_of_ours(words: Sequence[str], ours: Sequence[str]) -> list[str]:
    """Options that have ``enjoy`` look where ``train`` writes, if the words name no folder.

    RL Zoo looks where its own trained agents are, and asks Hugging Face for what is not there, which has none
    of our algorithms.

    Args:
        words: options of enjoy.
        ours: names of our algorithms.
    """
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--algo")
    parser.add_argument("-f", "--folder")
    try:
        given = parser.parse_known_args(words)[0]
    except argparse.ArgumentError:  # RL Zoo says what is wrong
        return []
    return ["-f", "logs"] if given.algo in ours and given.folder is None else []


def _rl_zoo() -> Any:
    """The adapter, whose import needs RL Zoo.

    Raises:
        ValueError: RL Zoo, or something that it needs, is not installed.
    """
    with warnings.catch_warnings():
        # RL Zoo has environments without velocities, too, the same under the same names.
        warnings.filterwarnings("ignore", message=".*Overriding environment")
        try:
            importlib.import_module("rl_zoo3.train")
        except ImportError as error:
            raise ValueError(
                f"RL Baselines3 Zoo is not installed ({error}): pip install 'mnm-rl[zoo]'."
            ) from error
    from mnm_rl.training.rl import zoo

    return zoo


def _program(name: str) -> Callable[[], None]:
    """The function behind a name of :data:`COMMANDS`.

    RL Zoo's own dispatcher imports the plots, too, which need packages that training does not.
    """
    if name in ("train", "enjoy"):
        return getattr(importlib.import_module(f"rl_zoo3.{name}"), name)
    try:
        return getattr(importlib.import_module("rl_zoo3.plots"), name)
    except ImportError as error:
        raise ValueError(f"{name} cannot be had ({error}): pip install 'rl_zoo3[plots]'.") from error


@contextmanager
def _said_by_rl_zoo() -> Iterator[None]:
    """Turn what RL Zoo raises for bad input into a ValueError.

    Raises:
        ValueError: an assertion of RL Zoo's own files failed, Gymnasium refused the environment, a module
            that was named is not there, or a value is no Python.
    """
    try:
        yield
    except (gymnasium.error.Error, ImportError) as error:
        raise ValueError(str(error)) from error
    except SyntaxError as error:
        raise ValueError(f"a value is no Python, in which RL Zoo reads it: {error}.") from error
    except (AssertionError, NameError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        if not ("rl_zoo3" in last or last == "<string>") or not str(error):
            raise
        if isinstance(error, NameError):
            raise ValueError(
                f"a value is no Python, in which RL Zoo reads it: {error}; texts are in quotes, as in "
                "policy_kwargs:\"dict(core='mnm-p')\"."
            ) from error
        raise ValueError(str(error)) from error


def run_from_command_line() -> None:
    """Turn bad input into one sentence and exit status 2."""
    with one_sentence_errors("zoo.py"):
        main(sys.argv[1:])

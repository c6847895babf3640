"""The installed command: ``mnm-rl NAME ...`` runs the command line of that name."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

COMMANDS = {
    "train-a2c": "train a recurrent A2C agent: by default MNM-p on the invisible-goal maze",
    "train-ppo": "train a recurrent PPO agent",
    "tune": "search settings for an environment and a core",
    "zoo": "RL Baselines3 Zoo's train and enjoy, with the recurrent agents among its algorithms",
    "train-supervised": "train a memory core on a supervised task",
    "evaluate": "returns of an agent's episodes, or test errors of a supervised model",
    "save-pretrained": "make a model for others of a run, with its score on a card",
    "analyze": "pictures and numbers of what a trained memory does",
    "reproduce": "train and draw a figure or table of the paper",
    "generate-babi": "write the bAbI tasks as files, generated anew",
    "plot-curves": "draw training curves of several runs in one picture",
    "info": "versions, which kernel runs and why, processor and devices: for the report of a fault",
}
"""Name -> what it does; each is a module of this package."""


def main() -> None:
    """Run the command that the first argument names, with the others as its options."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("usage: mnm-rl NAME [OPTIONS]\n")
        print("\n".join(f"  {command:18}{text}" for command, text in COMMANDS.items()))
        print("\nmnm-rl NAME --help tells the options of a command.")
        return
    if name not in COMMANDS:
        print(f"mnm-rl: unknown command {name!r}; known: {', '.join(COMMANDS)}.", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"mnm-rl {name}", *sys.argv[2:]]
    run(name)


def run(name: str) -> None:
    """Run a command on the words of ``sys.argv``.

    Modules of one's own in the current folder can be named on the command line, as with ``python -m``.

    Args:
        name: a key of :data:`COMMANDS`.
    """
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    command = _imported(f"mnm_rl.commands.{name.replace('-', '_')}")
    try:
        command.run_from_command_line()
    except KeyboardInterrupt:
        sys.exit(130)


def _imported(module: str) -> Any:
    """The module; Ctrl-C while it and all that it needs are imported ends the process at once.

    An exception there would come out of the middle of somebody's module, as a traceback or worse.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.default_int_handler:
        return importlib.import_module(module)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return importlib.import_module(module)
    finally:
        signal.signal(signal.SIGINT, handler)

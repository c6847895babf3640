"""Train a recurrent A2C agent: by default MNM-p on the invisible-goal maze.

$ mnm-rl train-a2c
$ mnm-rl train-a2c --core lstm --seed 1
$ mnm-rl train-a2c --preset soonest
$ mnm-rl train-a2c --env CartPoleNoVel-v1
$ mnm-rl train-a2c --resume runs/MNMMaze-9x9-mnm-p-seed0 --episodes 100000
$ torchrun --nproc-per-node 2 -m mnm_rl train-a2c --n-envs 32
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field, replace

import tyro

from mnm_rl.commands.parsing import Choices, find_choices, parse_run
from mnm_rl.commands.train_agent import Options, check_preset, config_to_go_on_with, new_config, train_run
from mnm_rl.training.command_line import one_sentence_errors
from mnm_rl.training.devices import leave_processes
from mnm_rl.training.folder import A2C_AGENT
from mnm_rl.training.rl.config import A2CConfig
from mnm_rl.training.rl.environments import is_maze
from mnm_rl.training.rl.presets import PresetName, preset_config


@dataclass(frozen=True)
class Args(Options):
    """Where to run, and what."""

    run: tyro.conf.OmitArgPrefixes[A2CConfig] = field(default_factory=A2CConfig)
    preset: PresetName | None = None
    """Settings of the maze under a name, see docs/maze.md; what else is given goes before them."""


def main(args: Args) -> None:
    """Set up the run and train."""
    if args.preset is not None and not is_maze(args.run.env):
        raise ValueError(f"The preset {args.preset} is for the maze (MNMMaze-9x9), not for {args.run.env}.")
    train_run(args, args.run)


def _new(chosen: Choices) -> A2CConfig:
    """The settings of a new run; a preset's, if there is one."""
    if chosen.preset is None:
        config = new_config(chosen, A2C_AGENT, sys.argv[1:])
        assert isinstance(config, A2CConfig)
        return config
    config = preset_config(chosen.preset, chosen.core or "mnm-p")
    if any(re.match("--timesteps(=|$)", word) for word in sys.argv):
        config = replace(config, episodes=None)  # what is given goes before the preset
    return config


def _parse() -> Args:
    """The options; a preset's settings, or those of a run that goes on, are the defaults."""
    chosen = find_choices(sys.argv[1:])
    check_preset(chosen)
    config = _new(chosen) if chosen.resume is None else config_to_go_on_with(chosen.resume, chosen, A2C_AGENT)
    assert isinstance(config, A2CConfig)
    return parse_run(Args(run=config), __doc__)


def run_from_command_line() -> None:
    """Turn bad input into one sentence and exit status 2."""
    try:
        with one_sentence_errors("train_a2c.py"):
            main(_parse())
    finally:
        leave_processes()

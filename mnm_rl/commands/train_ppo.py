"""Train a recurrent PPO agent: by default MNM-p on the invisible-goal maze.

$ python scripts/train_ppo.py
$ python scripts/train_ppo.py --env CartPoleNoVel-v1 --timesteps 200000
$ python scripts/train_ppo.py --core lstm --seed 1
$ python scripts/train_ppo.py --resume runs/MNMMaze-9x9-lstm-ppo-seed1 --episodes 100000
$ torchrun --nproc-per-node 2 scripts/train_ppo.py --n-envs 32
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import tyro

from mnm_rl.commands.parsing import find_choices, parse_run
from mnm_rl.commands.train_agent import Options, config_to_go_on_with, new_config, train_run
from mnm_rl.training.command_line import one_sentence_errors
from mnm_rl.training.devices import leave_processes
from mnm_rl.training.folder import PPO_AGENT
from mnm_rl.training.rl.config import PPOConfig


@dataclass(frozen=True)
class Args(Options):
    """Where to run, and what."""

    run: tyro.conf.OmitArgPrefixes[PPOConfig] = field(default_factory=PPOConfig)


def _parse() -> Args:
    """The options; the settings of a run that goes on are the defaults."""
    chosen = find_choices(sys.argv[1:])
    if chosen.resume is None:
        config = new_config(chosen, PPO_AGENT, sys.argv[1:])
    else:
        config = config_to_go_on_with(chosen.resume, chosen, PPO_AGENT)
    assert isinstance(config, PPOConfig)
    return parse_run(Args(run=config), __doc__)


def run_from_command_line() -> None:
    """Turn bad input into one sentence and exit status 2."""
    try:
        with one_sentence_errors("train_ppo.py"):
            args = _parse()
            train_run(args, args.run)
    finally:
        leave_processes()

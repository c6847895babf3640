"""Train a recurrent PPO agent: by default MNM-p on the invisible-goal maze.

$ mnm-rl train-ppo
$ mnm-rl train-ppo --env CartPoleNoVel-v1 --timesteps 200000
$ mnm-rl train-ppo --core lstm --seed 1
$ mnm-rl train-ppo --resume runs/MNMMaze-9x9-lstm-ppo-seed1 --episodes 100000
$ torchrun --nproc-per-node 2 -m mnm_rl train-ppo --n-envs 32
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace

import tyro

from mnm_rl.agents.minibatches import find_cuts
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
    args = parse_run(Args(run=config), __doc__)
    is_given = any(word.replace("_", "-").startswith("--batch-size") for word in sys.argv[1:])
    if chosen.resume is not None or is_given:
        return args
    return replace(args, run=_with_fitting_batches(args.run, config))


def _with_fitting_batches(run: PPOConfig, settings: PPOConfig) -> PPOConfig:
    """A run whose rollouts may have another size than in its settings, with about as many minibatches."""
    size = (run.rollout_steps, run.n_envs, run.bptt_steps)
    if run.batch_size is None or size == (settings.rollout_steps, settings.n_envs, settings.bptt_steps):
        return run
    wanted = find_cuts(
        settings.rollout_steps, settings.n_envs, settings.bptt_steps, settings.batch_size
    ).minibatches
    sequences = find_cuts(*size, None).sequences // int(os.environ.get("WORLD_SIZE", 1))
    count = max((each for each in range(1, wanted + 1) if sequences % each == 0), default=1)
    return replace(run, batch_size=run.rollout_steps * run.n_envs // count)


def run_from_command_line() -> None:
    """Turn bad input into one sentence and exit status 2."""
    try:
        with one_sentence_errors("train_ppo.py"):
            args = _parse()
            train_run(args, args.run)
    finally:
        leave_processes()

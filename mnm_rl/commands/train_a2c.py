"""Train a recurrent A2C agent: by default MNM-p on the invisible-goal maze.

$ python scripts/train_a2c.py
$ python scripts/train_a2c.py --core lstm --seed 1
$ python scripts/train_a2c.py --preset soonest
$ python scripts/train_a2c.py --env CartPole-v1 --drop-observations 1,3 --timesteps 200000
$ python scripts/train_a2c.py --resume runs/MNMMaze-9x9-mnm-p-seed0 --episodes 100000
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import tyro
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback

from mnm_rl.agents import RecurrentA2C
from mnm_rl.analysis.maze.watcher import MemoryWatcher
from mnm_rl.commands.parsing import find_choices, parse_run
from mnm_rl.envs import MazeVecEnv
from mnm_rl.training.command_line import command_words, one_sentence_errors
from mnm_rl.training.devices import set_up_torch
from mnm_rl.training.folder import AGENT, change_config, create_run, names_modules
from mnm_rl.training.locks import hold_run
from mnm_rl.training.rl.agent import changed_config, load_agent, make_agent, make_logger, read_a2c_config
from mnm_rl.training.rl.config import A2CConfig, config_to_dict
from mnm_rl.training.rl.display import AgentDisplay
from mnm_rl.training.rl.environments import make_env
from mnm_rl.training.rl.presets import PresetName, preset_config
from mnm_rl.training.rl.recorder import LinearSettings, RunRecorder
from mnm_rl.training.stopping import stop_on_signals


@dataclass(frozen=True)
class Args:
    """Where to run, and what."""

    run: tyro.conf.OmitArgPrefixes[A2CConfig] = field(default_factory=A2CConfig)
    preset: PresetName | None = None
    """Settings of the maze under a name, see docs/maze.md; what else is given goes before them."""
    log_dir: str | None = None
    """Folder of the run; runs/ENV-CORE-seedN if not given."""
    resume: str | None = None
    """Folder of a run to go on with. Its settings are used; its length, --learning-rate, --schedule, --gamma,
    --gamma-end, --gae-lambda, --ent-coef and --ent-coef-end may be given anew."""
    trusted: bool = False
    """The run to go on with is your own or of somebody you trust: modules that it names are imported, and its
    files may run code, as Stable-Baselines3's can."""
    device: str = "cpu"
    """cpu or cuda."""
    threads: int = 1
    """Processor threads."""
    tensorboard: bool = True
    """Write TensorBoard files beside progress.csv, in the maze with pictures of episodes."""
    quiet: bool = False
    """No progress display."""


def main(args: Args) -> None:
    """Set up the run and train."""
    set_up_torch(args.device, args.threads)
    if args.resume is not None:
        if args.log_dir is not None:
            raise ValueError("A run that goes on stays in its folder; leave out --log-dir or --resume.")
        directory = Path(args.resume)
        with hold_run(directory):
            _train(args, *_resume(args, directory), directory)
    else:
        args.run.check()
        directory = Path(args.log_dir or f"runs/{_name(args.run)}")
        agent = make_agent(args.run, make_env(args.run, args.run.n_envs), args.device)
        create_run(directory, AGENT, config_to_dict(args.run))
        with hold_run(directory):
            _train(args, agent, args.run, directory)


def _name(config: A2CConfig) -> str:
    """Of a run's folder."""
    environment = config.env.rpartition(":")[2].replace("/", "-")
    return f"{environment}-{config.core.replace(':', '-')}-seed{config.seed}"


def _resume(args: Args, directory: Path) -> tuple[RecurrentA2C, A2CConfig]:
    """An existing run, at its checkpoint, or at its start if it was killed before there was one."""
    saved = read_a2c_config(directory, args.trusted)
    config = changed_config(directory, saved, args.run)
    env = make_env(config, config.n_envs)
    if AGENT.has_begun(directory):
        agent = load_agent(directory, config, env, args.device, args.trusted)
    else:
        agent = make_agent(config, env, args.device)
    before, after = config_to_dict(saved), config_to_dict(config)
    if after != before:
        change_config(directory, before, after, f"timestep {agent.num_timesteps}")
    return agent, config


def _train(args: Args, agent: RecurrentA2C, config: A2CConfig, directory: Path) -> None:
    """To the end of the run, or until it is stopped."""
    agent.set_logger(make_logger(directory, args.tensorboard, agent.num_timesteps if args.resume else None))
    console = Console(quiet=args.quiet)
    parameters = sum(parameter.numel() for parameter in agent.policy.parameters())
    console.print(
        f"{config.env} with {config.core}, seed {config.seed}, {parameters:,} parameters: {directory}"
    )
    per_update = agent.n_steps * agent.n_envs
    display = AgentDisplay(console, config.total_timesteps, per_update, agent._n_updates)
    recorder = RunRecorder(directory, config.log_every, config.checkpoint_minutes, display.update)
    settings = LinearSettings(config.total_timesteps, config.linear_settings)
    trust = " --trusted" if names_modules(config_to_dict(config)) else ""
    stop_on_signals(recorder.request_stop)
    try:
        with display:
            agent.learn(
                max(config.total_timesteps - agent.num_timesteps, 0),  # a finished run has taken a few more
                [recorder, settings, *_watchers(config)],
                log_interval=config.log_every,
                reset_num_timesteps=not args.resume,
            )
    except KeyboardInterrupt:
        again = f"{command_words('train-a2c')} --resume {directory}{trust}"
        console.print(f"Stopped after {recorder.saved_updates} updates. Go on with: {again}", soft_wrap=True)
        sys.exit(130)
    finally:
        agent.logger.close()
    console.print(f"Done. Evaluate it with: {command_words('evaluate')} {directory}{trust}", soft_wrap=True)


def _watchers(config: A2CConfig) -> list[BaseCallback]:
    """What shows an episode and the memory in TensorBoard, in the maze."""
    every = config.updates_between_watches
    if every == 0:
        return []
    env = make_env(config, 1)
    assert isinstance(env, MazeVecEnv)
    return [MemoryWatcher(env, every)]


def _parse() -> Args:
    """The options; a preset's settings, or those of a run that goes on, are the defaults."""
    chosen = find_choices(sys.argv[1:])
    if chosen.preset is not None and chosen.resume is not None:
        raise ValueError("A preset is for a new run; leave out --preset or --resume.")
    if chosen.resume is not None:
        config = read_a2c_config(chosen.resume, chosen.trusted)
        if chosen.core is not None:
            changed_config(chosen.resume, config, replace(config, core=chosen.core, core_settings={}))
    elif chosen.preset is not None:
        config = preset_config(chosen.preset, chosen.core or "mnm-p")
        if any(re.match("--timesteps(=|$)", word) for word in sys.argv):
            config = replace(config, episodes=None)  # what is given goes before the preset
    else:
        config = A2CConfig(core=chosen.core or "mnm-p")
    return parse_run(Args(run=config), __doc__)


def run_from_command_line() -> None:
    """Turn bad input into one sentence and exit status 2."""
    with one_sentence_errors("train_a2c.py"):
        main(_parse())

"""What ``mnm-rl train-a2c`` and ``mnm-rl train-ppo`` share: all but their settings."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback

from mnm_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from mnm_rl.agents.processes import wait_for_all
from mnm_rl.analysis.maze.watcher import MemoryWatcher
from mnm_rl.commands.parsing import Choices, check_resume
from mnm_rl.envs import MazeVecEnv
from mnm_rl.training.command_line import command_words, is_installed_command
from mnm_rl.training.devices import first_process_only, join_processes, own_device, set_up_torch
from mnm_rl.training.folder import A2C_AGENT, RunKind, change_config, create_run, names_modules
from mnm_rl.training.locks import hold_run
from mnm_rl.training.rl.agent import (
    changed_config,
    keep_config,
    load_agent,
    make_agent,
    make_logger,
    read_agent_config,
    updates_made,
)
from mnm_rl.training.rl.config import AgentConfig, config_to_dict
from mnm_rl.training.rl.display import AgentDisplay
from mnm_rl.training.rl.environments import EnvConfig, environments_here, is_maze, make_env
from mnm_rl.training.rl.own_environments import try_out
from mnm_rl.training.rl.recorder import LinearSettings, RunRecorder
from mnm_rl.training.rl.settings_files import NONE, PACKAGE, config_for, find_entry
from mnm_rl.training.stopping import stop_on_signals

DEFAULT_ENV = EnvConfig().env


@dataclass(frozen=True)
class Options:
    """Where to run, and how."""

    log_dir: str | None = None
    """Folder of the run; runs/ENV-CORE-seedN if not given, runs/ENV-CORE-ppo-seedN for PPO."""
    resume: str | None = None
    """Folder of a run to go on with. Its settings are used; its length, --learning-rate, --schedule, --gamma,
    --gamma-end, --gae-lambda, --ent-coef and --ent-coef-end may be given anew."""
    settings: str = PACKAGE
    """Where the settings of the environment come from, which are the defaults of the other options: package
    (of the file in the package, if it has any), none, or a YAML file in the format of RL Zoo."""
    trusted: bool = False
    """The run to go on with is your own or of somebody you trust: modules that it names are imported, and its
    files may run code, as Stable-Baselines3's can."""
    device: str = "cpu"
    """cpu or cuda."""
    threads: int = 1
    """Processor threads of each process."""
    tensorboard: bool = True
    """Write TensorBoard files beside progress.csv, in the maze with pictures of episodes."""
    quiet: bool = False
    """No progress display."""


def train_run(options: Options, run: AgentConfig) -> None:
    """Set up the run and train."""
    set_up_torch(options.device, options.threads)
    check_resume(options.resume, options.log_dir, options.trusted)
    is_main = join_processes(options.device)
    if options.resume is not None:
        if options.settings != PACKAGE:
            raise ValueError("A run that goes on has its settings; leave out --settings or --resume.")
        directory = Path(options.resume)
        with ExitStack() as held:
            first_process_only(lambda: held.enter_context(hold_run(directory)))
            _train(options, *_resume(options, run, directory, is_main), directory, is_main)
    else:
        run.check()
        if entry := find_entry(run.kind, run.env, run.core, options.settings):
            Console(quiet=options.quiet or not is_main).print(str(entry), soft_wrap=True, highlight=False)
        directory = Path(options.log_dir or f"runs/{_name(run)}")
        if is_main and not is_maze(run.env) and not run.tabulated:
            try_out(make_env(run, 1))
        agent = make_agent(run, make_env(run, environments_here(run.n_envs)), str(own_device(options.device)))
        first_process_only(lambda: create_run(directory, run.kind, config_to_dict(run)))
        with ExitStack() as held:
            first_process_only(lambda: held.enter_context(hold_run(directory)))
            _train(options, agent, run, directory, is_main)


def _name(config: AgentConfig) -> str:
    """Of a run's folder."""
    environment = config.env.rpartition(":")[2].replace("/", "-")
    algorithm = "" if config.kind is A2C_AGENT else f"-{config.kind.name}"
    return f"{environment}-{config.core.replace(':', '-')}{algorithm}-seed{config.seed}"


def _resume(
    options: Options, run: AgentConfig, directory: Path, is_main: bool
) -> tuple[RecurrentOnPolicyAlgorithm, AgentConfig]:
    """An existing run, at its checkpoint, or at its start if it was killed before there was one."""
    saved = read_agent_config(directory, run.kind, options.trusted)
    config = changed_config(directory, saved, run)
    env, device = make_env(config, environments_here(config.n_envs)), str(own_device(options.device))
    if run.kind.has_begun(directory):
        agent = load_agent(directory, config, env, device, options.trusted)
    else:
        agent = make_agent(config, env, device)
    before, after = config_to_dict(saved), config_to_dict(config)
    if config.total_timesteps < min(agent.num_timesteps, saved.total_timesteps):
        done = f"{agent.num_timesteps} timesteps of {saved.total_timesteps}"
        raise ValueError(f"The run has made {done}; timesteps and episodes cannot make it shorter than that.")
    run.kind.check_curves(directory)
    wait_for_all()  # nobody reads any more
    if after != before and is_main:
        change_config(directory, before, after, f"timestep {agent.num_timesteps}")
    return agent, config


def _train(
    options: Options,
    agent: RecurrentOnPolicyAlgorithm,
    config: AgentConfig,
    directory: Path,
    is_main: bool,
) -> None:
    """To the end of the run, or until it is stopped."""
    writes_tensorboard = options.tensorboard and is_main
    agent.set_logger(
        make_logger(directory, writes_tensorboard, agent.num_timesteps if options.resume else None)
    )
    console = Console(quiet=options.quiet or not is_main)
    parameters = sum(parameter.numel() for parameter in agent.policy.parameters())
    console.print(
        f"{config.env} with {config.core}, seed {config.seed}, {parameters:,} parameters: {directory}"
    )
    per_update = agent.n_steps * config.n_envs
    display = AgentDisplay(console, config.total_timesteps, per_update, updates_made(agent))
    recorder = RunRecorder(directory, config.log_every, config.checkpoint_minutes, display.update)
    keep_config(agent, config)
    settings = LinearSettings(config.total_timesteps, config.linear_settings)
    trust = " --trusted" if names_modules(config_to_dict(config)) else ""
    stop_on_signals(recorder.request_stop)
    try:
        with display:
            agent.learn(
                max(config.total_timesteps - agent.num_timesteps, 0),  # a finished run has taken a few more
                [recorder, settings, *(_watchers(config) if is_main else [])],
                log_interval=config.log_every,
                reset_num_timesteps=not options.resume,
            )
    except KeyboardInterrupt:
        again = f"{_launch_words(agent.n_processes, f'train-{config.kind.name}')} --resume {directory}{trust}"
        console.print(f"Stopped after {recorder.saved_updates} updates. Go on with: {again}", soft_wrap=True)
        sys.exit(130)
    finally:
        agent.logger.close()
    console.print(f"Done. Evaluate it with: {command_words('evaluate')} {directory}{trust}", soft_wrap=True)


def _launch_words(processes: int, name: str) -> str:
    """How a run of so many processes is started again."""
    if processes == 1:
        return command_words(name)
    program = f"-m mnm_rl {name}" if is_installed_command() else f"scripts/{name.replace('-', '_')}.py"
    return f"torchrun --nproc-per-node {processes} {program}"


def _watchers(config: AgentConfig) -> list[BaseCallback]:
    """What shows an episode and the memory in TensorBoard, in the maze."""
    every = config.updates_between_watches
    if every == 0:
        return []
    env = make_env(config, 1)
    assert isinstance(env, MazeVecEnv)
    return [MemoryWatcher(env, every)]


def new_config(chosen: Choices, kind: RunKind, words: Sequence[str]) -> AgentConfig:
    """The settings of a new run before what the command line says: its environment's, if there are any.

    Args:
        chosen: what was found in the command line.
        kind: of the run.
        words: the command line.

    Raises:
        ValueError: there are none where the user says that they are, or they are not allowed.
    """
    config = config_for(kind, chosen.env or DEFAULT_ENV, chosen.core, chosen.settings or PACKAGE)
    if any(re.match("--episodes(=|$)", word) for word in words):
        config = replace(config, timesteps=None)  # what is given goes before the file
    return config


def check_preset(chosen: Choices) -> None:
    """Raise a ValueError for a preset where something else says what the settings are."""
    if chosen.preset is None:
        return
    if chosen.resume is not None:
        raise ValueError("A preset is for a new run; leave out --preset or --resume.")
    if chosen.settings not in (None, PACKAGE, NONE):
        raise ValueError("Settings come from a preset or from a file; leave out --preset or --settings.")


def config_to_go_on_with(resume: Path, chosen: Choices, kind: RunKind) -> AgentConfig:
    """The settings of the run that goes on, before what the command line says.

    Args:
        resume: the run's folder.
        chosen: what was found in the command line.
        kind: of the run.

    Raises:
        ValueError: there is no such run, it is of another kind, or has another core.
    """
    config = read_agent_config(resume, kind, chosen.trusted)
    if chosen.core is not None:
        changed_config(resume, config, replace(config, core=chosen.core, core_settings={}))
    return config

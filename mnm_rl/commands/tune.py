"""Search settings for an environment and a core; the best become an entry of a file of settings.

$ python scripts/tune.py --algorithm ppo --env CartPoleNoVel-v1 --core lstm --trials 20 --timesteps 60000
$ python scripts/tune.py --algorithm a2c --env CartPoleNoVel-v1 --core mnm-p --core.key-size 16 --n-steps 32

What is given stays as it is, everything else of the search space (docs/rl.md) is searched. The same command
goes on with a search that was stopped.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from mnm_rl.commands.parsing import find_choices, parse_run
from mnm_rl.training.command_line import one_sentence_errors
from mnm_rl.training.devices import set_up_torch
from mnm_rl.training.folder import AGENT, PPO_AGENT
from mnm_rl.training.locks import hold_run
from mnm_rl.training.rl.config import A2CConfig, AgentConfig, PPOConfig
from mnm_rl.training.rl.environments import EnvConfig, make_env
from mnm_rl.training.rl.search import SPACES
from mnm_rl.training.rl.study import (
    BEST_FILE,
    Plan,
    Trial,
    best_trial,
    check_optuna,
    open_search,
    run_search,
)
from mnm_rl.training.stopping import stop_on_signals

OF_A_RUN = ("log_every", "checkpoint_minutes", "watch_every")
"""Options of a single run, of which a search has none."""
SHOWN = (
    "n_steps",
    "n_epochs",
    "batch_size",
    "learning_rate",
    "gamma",
    "gae_lambda",
    "ent_coef",
    "clip_range",
)
"""Settings that are printed with each trial."""


@dataclass(frozen=True)
class Options:
    """What to search, and where."""

    algorithm: Literal["a2c", "ppo"] = "ppo"
    """What trains."""
    trials: int = 20
    """How many in all; a search that has fewer goes on."""
    objective: Literal["final", "area"] = "final"
    """final: mean reward of the episodes in the last fifth of the steps; area: mean reward over all steps."""
    prune: bool = False
    """End trials early that are below the median of the others."""
    out: str | None = None
    """Folder of the search; runs/tune/ENV-CORE-ALGORITHM if not given."""
    threads: int = 1
    """Processor threads."""
    quiet: bool = False
    """Print nothing."""


@dataclass(frozen=True)
class A2CArgs(Options):
    """A search for A2C."""

    run: tyro.conf.OmitArgPrefixes[A2CConfig] = field(default_factory=A2CConfig)


@dataclass(frozen=True)
class PPOArgs(Options):
    """A search for PPO."""

    run: tyro.conf.OmitArgPrefixes[PPOConfig] = field(default_factory=PPOConfig)


def main(args: A2CArgs | PPOArgs) -> None:
    """Search until there are as many trials as wanted, or until it is stopped."""
    if args.trials < 1:
        raise ValueError(f"trials must be at least 1, got {args.trials}.")
    check_optuna()
    set_up_torch("cpu", args.threads)
    plan = plan_of(args, sys.argv[1:])
    plan.config.check()
    make_env(plan.config, 1).close()
    directory = Path(args.out or f"runs/tune/{_name(plan.config)}")
    open_search(directory, plan)
    console = Console(quiet=args.quiet, highlight=False, soft_wrap=True)
    config = plan.config
    console.print(
        f"{config.env} with {config.core}, {config.kind.name}: {args.trials} trials of "
        f"{config.total_timesteps:,} steps, searching {', '.join(plan.space)}: {directory}"
    )
    stops: list[bool] = []
    stop_on_signals(lambda: stops.append(True))
    with hold_run(directory):
        ended: list[Trial] = []

        def tell(trial: Trial) -> None:
            ended.append(trial)
            console.print(_in_words(trial))

        try:
            trials = run_search(directory, plan, args.trials, lambda: bool(stops), tell)
        except KeyboardInterrupt:
            console.print(f"Stopped after {len(ended)} more trials. The same command goes on.")
            sys.exit(130)
    if (best := best_trial(trials)) is None:
        console.print(f"Done: no trial could be judged; the reasons are in {directory / 'trials.csv'}.")
    else:
        console.print(f"Done. The best is trial {best.number}; its settings are in {directory / BEST_FILE}.")


def plan_of(args: A2CArgs | PPOArgs, words: Sequence[str]) -> Plan:
    """The search that a command line asks for: what it gives of the search space stays.

    Raises:
        ValueError: an option is given that a search has no use for, or nothing is left to search.
    """
    given = _given(words)
    if unused := [name for name in OF_A_RUN if name in given]:
        raise ValueError(f"{unused[0]} is an option of a single run, not of a search; leave it out.")
    known = (*SPACES[args.run.kind.name], "batch_size")
    fixed = tuple(name for name in known if name in given)
    plan = Plan(args.run, fixed, args.objective, args.prune)
    _ = plan.space  # whether something is left
    return plan


def _given(words: Sequence[str]) -> set[str]:
    """Names of the options in a command line."""
    names = (word.partition("=")[0] for word in words if re.match("--[a-z]", word))
    return {name.removeprefix("--").replace("-", "_").removeprefix("no_") for name in names}


def _name(config: AgentConfig) -> str:
    """Of the folder."""
    environment = config.env.rpartition(":")[2].replace("/", "-")
    return f"{environment}-{config.core.replace(':', '-')}-{config.kind.name}"


def _in_words(trial: Trial) -> str:
    """A line about a trial."""
    numbers, entry = trial.numbers, trial.entry
    if trial.state == "complete":
        how = (
            f"final {numbers['final']:.4g}, area {numbers['area']:.4g}, "
            f"{numbers['steps_per_second']:,.0f} steps/s, {numbers['seconds']:.1f} s"
        )
    else:
        how = f"{trial.state} {trial.reason}".strip()
    settings = " ".join(f"{name} {entry[name]}" for name in SHOWN if name in entry)
    return f"trial {trial.number}: {how}; {settings}"


def _parse() -> A2CArgs | PPOArgs:
    """The options, which depend on the algorithm, the environment and the core."""
    words = sys.argv[1:]
    chosen = find_choices(words)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--algorithm", default=PPO_AGENT.name)
    try:
        algorithm = parser.parse_known_args(words)[0].algorithm
    except argparse.ArgumentError as error:
        raise ValueError("--algorithm needs a value.") from error
    start: dict[str, Any] = {"env": chosen.env or EnvConfig().env, "core": chosen.core or "mnm-p"}
    if algorithm == AGENT.name:
        return parse_run(A2CArgs(run=A2CConfig(**start), algorithm="a2c"), __doc__)
    return parse_run(PPOArgs(run=PPOConfig(**start)), __doc__)


def run_from_command_line() -> None:
    """Turn bad input into one sentence and exit status 2."""
    with one_sentence_errors("tune.py"):
        main(_parse())

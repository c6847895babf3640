"""Search settings for an environment or a task, and a core.

$ mnm-rl tune --algorithm ppo --env CartPoleNoVel-v1 --core lstm --trials 20 --timesteps 60000
$ mnm-rl tune --algorithm a2c --env CartPoleNoVel-v1 --core mnm-p --core.key-size 16 --n-steps 32
$ mnm-rl tune --task dictionary --instance 2 --core lstm-salu --trials 12 --iterations 2000

What is given stays as it is, everything else of the search space (docs/rl.md, docs/supervised.md) is
searched. The same command goes on with a search that was stopped.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from mnm_rl.commands.parsing import SHORT, find_choices, parse_run
from mnm_rl.training.command_line import one_sentence_errors
from mnm_rl.training.confirmation import confirm
from mnm_rl.training.devices import set_up_torch
from mnm_rl.training.folder import A2C_AGENT, PPO_AGENT
from mnm_rl.training.locks import hold_run
from mnm_rl.training.rl.config import A2CConfig, PPOConfig
from mnm_rl.training.rl.environments import EnvConfig, is_maze, make_env
from mnm_rl.training.rl.own_environments import try_out
from mnm_rl.training.rl.search import SPACES
from mnm_rl.training.rl.study import BEST_FILE, Plan
from mnm_rl.training.stopping import stop_on_signals
from mnm_rl.training.study import check_optuna, open_search, run_search
from mnm_rl.training.supervised import search as supervised_search
from mnm_rl.training.supervised.config import SupervisedConfig
from mnm_rl.training.supervised.search import OF_CORE, SupervisedSearch
from mnm_rl.training.supervised.trainer import SupervisedTrainer
from mnm_rl.training.trials import Trial, best_trial

OF_A_RUN = ("log_every", "checkpoint_minutes", "watch_every", "analyze_every")
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
    """How to search, and where."""

    trials: int = 20
    """How many in all; a search that has fewer goes on."""
    confirm: int = 0
    """Train so many of the best trials again with two further seeds; what is best with all three wins."""
    prune: bool = False
    """End trials early that are worse than the median of the others."""
    out: str | None = None
    """Folder of the search; runs/tune/ENV-CORE-ALGORITHM or runs/tune/TASK-CORE if not given."""
    threads: int = 1
    """Processor threads."""
    quiet: bool = False
    """Print nothing."""


@dataclass(frozen=True)
class AgentOptions(Options):
    """The same for an agent."""

    algorithm: Literal["a2c", "ppo"] = "ppo"
    """What trains."""
    objective: Literal["final", "area"] = "final"
    """final: mean reward of the episodes in the last fifth of the steps; area: mean reward over all steps."""


@dataclass(frozen=True)
class A2CArgs(AgentOptions):
    """A search for A2C."""

    run: tyro.conf.OmitArgPrefixes[A2CConfig] = field(default_factory=A2CConfig)


@dataclass(frozen=True)
class PPOArgs(AgentOptions):
    """A search for PPO."""

    run: tyro.conf.OmitArgPrefixes[PPOConfig] = field(default_factory=PPOConfig)


@dataclass(frozen=True)
class SupervisedArgs(Options):
    """A search for a supervised run."""

    run: tyro.conf.OmitArgPrefixes[SupervisedConfig] = field(default_factory=SupervisedConfig)


Args = A2CArgs | PPOArgs | SupervisedArgs


def main(args: Args) -> None:
    """Search until there are as many trials as wanted, or until it is stopped."""
    if args.trials < 1:
        raise ValueError(f"trials must be at least 1, got {args.trials}.")
    if not 0 <= args.confirm <= args.trials:
        raise ValueError(f"confirm must be between 0 and trials, {args.trials}, got {args.confirm}.")
    check_optuna()
    set_up_torch("cpu", args.threads)
    search = search_of(args, sys.argv[1:])
    search.config.check()
    _check_that_it_can_be_made(search)
    directory = Path(args.out or f"runs/tune/{_name(search)}")
    open_search(directory, search)
    console = Console(quiet=args.quiet, highlight=False, soft_wrap=True)
    console.print(f"{_what(search)}: {args.trials} trials, searching {', '.join(search.space)}: {directory}")
    stops: list[bool] = []
    stop_on_signals(lambda: stops.append(True))
    with hold_run(directory):
        ended: list[Trial] = []

        def tell(trial: Trial) -> None:
            ended.append(trial)
            console.print(_in_words(search, trial))

        def tell_again(trial: Trial) -> None:
            ended.append(trial)
            console.print(_again_in_words(search, trial))

        try:
            trials = run_search(directory, search, args.trials, lambda: bool(stops), tell)
            again = confirm(directory, search, trials, args.confirm, lambda: bool(stops), tell_again)
        except KeyboardInterrupt:
            console.print(f"Stopped after {len(ended)} more trials. The same command goes on.")
            sys.exit(130)
    best = best_trial(trials, search.is_minimised, again)
    if best is None:
        console.print(f"Done: no trial could be judged; the reasons are in {directory / 'trials.csv'}.")
        sys.exit(1)
    else:
        file = BEST_FILE if isinstance(search, Plan) else supervised_search.BEST_FILE
        console.print(f"Done. The best is trial {best.number}; its settings are in {directory / file}.")


def search_of(args: Args, words: Sequence[str]) -> Plan | SupervisedSearch:
    """The search that a command line asks for: what it gives of the search space stays.

    Raises:
        ValueError: an option is given that a search has no use for, or nothing is left to search.
    """
    given = _given(words)
    if unused := [name for name in OF_A_RUN if name in given]:
        raise ValueError(f"{unused[0]} is an option of a single run, not of a search; leave it out.")
    search: Plan | SupervisedSearch
    if isinstance(args, SupervisedArgs):
        known = {name.replace(OF_CORE, "core."): name for name in supervised_search.SPACE}
        search = SupervisedSearch(args.run, tuple(known[name] for name in known if name in given), args.prune)
    else:
        names = (*SPACES[args.run.kind.name], "batch_size")
        fixed = tuple(name for name in names if name in given)
        search = Plan(args.run, fixed, args.objective, args.prune)
    _ = search.space  # whether something is left
    return search


def _check_that_it_can_be_made(search: Plan | SupervisedSearch) -> None:
    if isinstance(search, Plan):
        env = make_env(search.config, 1)
        env.close() if is_maze(search.config.env) or search.config.tabulated else try_out(env)
    else:
        SupervisedTrainer(search.config, search.config.make_task(), directory=None).check_batches()


def _given(words: Sequence[str]) -> set[str]:
    """Names of the options in a command line; settings of the core with their prefix."""
    names = (word.partition("=")[0].replace("_", "-") for word in words if re.match("--[a-z]", word))
    full = (SHORT.get(name, name) for name in names)
    return {name.removeprefix("--").replace("-", "_").removeprefix("no_") for name in full}


def _name(search: Plan | SupervisedSearch) -> str:
    """Of the folder."""
    core = search.config.core.replace(":", "-")
    if isinstance(search, Plan):
        environment = search.config.env.rpartition(":")[2].replace("/", "-")
        return f"{environment}-{core}-{search.config.kind.name}"
    return f"{search.config.task}-{core}"


def _what(search: Plan | SupervisedSearch) -> str:
    """What is trained, for how long."""
    config = search.config
    if isinstance(config, SupervisedConfig):
        return f"{config.task} with {config.core}, {config.iterations:,} iterations"
    return f"{config.env} with {config.core}, {config.kind.name}, {config.total_timesteps:,} steps"


def _in_words(search: Plan | SupervisedSearch, trial: Trial) -> str:
    """A line about a trial."""
    if isinstance(search, Plan):
        shown = {name: trial.entry[name] for name in SHOWN if name in trial.entry}
    else:
        shown = {name: _setting(trial.entry, name) for name in search.space}
    settings = " ".join(f"{name} {value}" for name, value in shown.items())
    return f"trial {trial.number}: {_how_it_went(search, trial)}; {settings}"


def _again_in_words(search: Plan | SupervisedSearch, trial: Trial) -> str:
    """A line about a trial that was trained again."""
    return f"trial {trial.number}, seed {trial.entry['seed']}: {_how_it_went(search, trial)}"


def _how_it_went(search: Plan | SupervisedSearch, trial: Trial) -> str:
    numbers = trial.numbers
    if trial.state != "complete":
        return f"{trial.state} {trial.reason}".strip()
    if isinstance(search, Plan):
        return (
            f"final {numbers['final']:.4g}, area {numbers['area']:.4g}, "
            f"{numbers['steps_per_second']:,.0f} steps/s, {numbers['seconds']:.1f} s"
        )
    return f"best {numbers['value']:.2%}, last {numbers['final']:.2%} wrong, {numbers['seconds']:.0f} s"


def _setting(entry: Mapping[str, Any], name: str) -> Any:
    """A setting of a supervised run, by its name in the search space."""
    inner = name.removeprefix(OF_CORE)
    return entry[name] if inner == name else entry["core_settings"][inner]


def _parse() -> Args:
    """The options, which depend on the algorithm and the environment, or the task, and the core."""
    words = sys.argv[1:]
    chosen = find_choices(words)
    if chosen.task is not None:
        named: dict[str, Any] = {"task": chosen.task} | ({} if chosen.core is None else {"core": chosen.core})
        return parse_run(SupervisedArgs(run=SupervisedConfig(**named)), __doc__)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--algorithm", default=PPO_AGENT.name)
    try:
        algorithm = parser.parse_known_args(words)[0].algorithm
    except argparse.ArgumentError as error:
        raise ValueError("--algorithm needs a value.") from error
    start: dict[str, Any] = {"env": chosen.env or EnvConfig().env, "core": chosen.core or "mnm-p"}
    if algorithm == A2C_AGENT.name:
        return parse_run(A2CArgs(run=A2CConfig(**start), algorithm="a2c"), __doc__)
    return parse_run(PPOArgs(run=PPOConfig(**start)), __doc__)


def run_from_command_line() -> None:
    """Turn bad input into one sentence and exit status 2."""
    with one_sentence_errors("tune.py"):
        main(_parse())

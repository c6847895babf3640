"""The runs of the comparison: every environment with every core, at equal width and at equal parameters."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnm_rl.reproduction.experiments import COMPARISON, Experiment, check_size
from mnm_rl.reproduction.rl.cores import (
    CONTENDERS,
    CONTRIB,
    REFERENCE,
    are_equal,
    count_parameters,
    matching_width,
)
from mnm_rl.reproduction.rl.environments import (
    CONTRIB_ENVIRONMENTS,
    ENVIRONMENTS,
    SMOKE_SETTINGS,
    SMOKE_TIMESTEPS,
    Environment,
)
from mnm_rl.reproduction.trials import ProgramName, Trial
from mnm_rl.training.folder import PPO_AGENT
from mnm_rl.training.rl.settings_files import find_entry

WIDTH, PARAMETERS, BOTH = "width", "parameters", "both"
"""What is equal in a run: its width is that of the others, or its number of parameters MNM-p's, or both."""
SEEDS = {"smoke": 1, "laptop": 3, "paper": 5}
CORES = (*CONTENDERS, CONTRIB)


@dataclass(frozen=True)
class Entry:
    """What runs once for each seed in an environment."""

    core: str
    variant: str
    program: ProgramName
    core_settings: Mapping[str, Any]
    searched: Mapping[str, Any]
    """Settings of this core, which take the place of those that all share."""


def make_comparison(
    scale: str,
    seeds: int | None = None,
    environments: Collection[str] = (),
    cores: Collection[str] = (),
) -> Experiment:
    """The comparison, or a part of it.

    Args:
        scale: ``smoke``, ``laptop`` (the budgets of :data:`ENVIRONMENTS`) or ``paper`` (those of the
            published numbers).
        seeds: seeds 0 ... seeds - 1; 1, 3 and 5 at the three scales if not given.
        environments: some of :data:`ENVIRONMENTS`; all if none are given.
        cores: some of :data:`CORES`; all if none are given.

    Raises:
        ValueError: an unknown name, a number of seeds that is not allowed, or a package is missing.
    """
    check_size(scale, seeds)
    rows = [ENVIRONMENTS[name] for name in _chosen("environment", environments, list(ENVIRONMENTS))]
    chosen = _chosen("core", cores, CORES)
    entries = [(row, entry) for row in rows for entry in _entries(row, scale, chosen)]
    number = seeds or SEEDS[scale]
    trials = [_trial(row, entry, seed, scale) for seed in range(number) for row, entry in entries]
    if not trials:
        raise ValueError(f"{CONTRIB} runs in {', '.join(CONTRIB_ENVIRONMENTS)} only.")
    return Experiment(COMPARISON, scale, number, tuple(trials))


def settings_of(row: Environment, scale: str) -> dict[str, Any]:
    """What all runs in an environment share."""
    # A row for each update: otherwise the last updates of a run might be in none.
    settings = {"env": row.id, "log_every": 1, **row.settings}
    if scale == "smoke":
        settings |= SMOKE_SETTINGS
        settings.pop("batch_size", None)  # that of a table is for longer rollouts
    return settings


def searched_settings(env: str, core: str) -> dict[str, Any]:
    """What the package's file has for an environment and a core, without the core itself and the length.

    Nothing, where no search has been made: such a run has the settings that all share.
    """
    entry = find_entry(PPO_AGENT, env, core)
    return {} if entry is None else {name: entry.settings[name] for name in entry.settings.keys() - ELSEWHERE}


ELSEWHERE = {"core", "core_settings", "timesteps"}


def is_searched(trial: Trial) -> bool:
    """Whether a trial has settings that were searched for its core."""
    searched = searched_settings(str(trial.settings["env"]), trial.core)
    return bool(searched) and searched.items() <= trial.settings.items()


def _chosen(what: str, names: Collection[str], known: Sequence[str]) -> list[str]:
    for name in names:
        if name not in known:
            raise ValueError(f"Unknown {what} {name!r}; known: {', '.join(known)}.")
    return [name for name in known if name in names] if names else list(known)


def _entries(row: Environment, scale: str, cores: Collection[str]) -> Iterator[Entry]:
    settings = settings_of(row, scale)

    def searched(core: str) -> dict[str, Any]:
        return searched_settings(row.id, core) if scale != "smoke" else {}

    def count(core: str, width: int) -> int:
        core_settings = CONTENDERS[core].at(width)
        return count_parameters({**settings, "core": core, "core_settings": core_settings})

    wanted = count(REFERENCE, CONTENDERS[REFERENCE].width)
    for core, contender in CONTENDERS.items():
        if core not in cores:
            continue
        own = searched(core)
        if are_equal(count(core, contender.width), wanted):
            yield Entry(core, BOTH, "ppo", contender.at(contender.width), own)
            continue
        yield Entry(core, WIDTH, "ppo", contender.at(contender.width), own)
        width = matching_width(contender, wanted, lambda width, core=core: count(core, width))
        yield Entry(core, PARAMETERS, "ppo", contender.at(width), own)
    if CONTRIB in cores and row.name in CONTRIB_ENVIRONMENTS:
        lstm = CONTENDERS["lstm"]
        yield Entry("lstm", CONTRIB, CONTRIB, lstm.at(lstm.width), searched("lstm"))


def _trial(row: Environment, entry: Entry, seed: int, scale: str) -> Trial:
    length = {"smoke": SMOKE_TIMESTEPS, "laptop": row.timesteps, "paper": row.paper_timesteps}[scale]
    name = f"{row.name}-{entry.core.replace(':', '-')}-{entry.variant}-seed{seed}"
    settings = {**settings_of(row, scale), **entry.searched, "core_settings": entry.core_settings}
    return Trial(name, entry.program, row.name, entry.core, seed, length, settings, entry.variant)

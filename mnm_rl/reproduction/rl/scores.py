"""What the runs of the comparison have come to: scores, intervals over seeds, and tables of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnm_rl.reproduction.collect import Run, ordered
from mnm_rl.reproduction.paper import core_label
from mnm_rl.reproduction.rl.contrib import count_contrib_parameters
from mnm_rl.reproduction.rl.cores import CONTRIB, count_parameters
from mnm_rl.reproduction.rl.environments import ENVIRONMENTS, Environment
from mnm_rl.reproduction.rl.experiment import BOTH, PARAMETERS, WIDTH, is_searched
from mnm_rl.reproduction.tables import Table

Array = NDArray[np.float64]

LAST = 0.1
"""The score of a run is the mean reward of the episodes that end in the last tenth of its steps."""
REPETITIONS = 20_000
"""Of the bootstrap."""
EQUAL = {WIDTH: "width", PARAMETERS: "parameters", BOTH: "width and parameters", CONTRIB: "width"}
"""What is equal, as it stands in tables."""


class Interval(NamedTuple):
    """An interquartile mean, and the ends of its 95% interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """The runs of an environment that differ in their seeds alone."""

    environment: Environment
    core: str
    variant: str
    runs: Sequence[Run]

    @property
    def label(self) -> str:
        """The core, and what is equal if the core runs twice."""
        return group_label(self.core, self.variant)

    @property
    def core_label(self) -> str:
        """The core alone, or whose it is if it is not ours."""
        return group_label(self.core, WIDTH if self.variant != CONTRIB else CONTRIB)

    def values(self, of_run: Callable[[Run], float]) -> Array:
        """A number of each run that has it."""
        found = np.array([of_run(run) for run in self.runs], dtype=np.float64)
        return found[np.isfinite(found)]


def group_label(core: str, variant: str) -> str:
    """How runs are called in figures."""
    if variant == CONTRIB:
        return f"{CONTRIB}, {core_label(core)}"
    return core_label(core) + (", equal parameters" if variant == PARAMETERS else "")


def grouped(runs: Sequence[Run]) -> list[Group]:
    """All groups, in the order of the trials."""
    keys = dict.fromkeys((run.trial.panel, run.trial.core, run.trial.variant) for run in runs)
    return [
        Group(
            ENVIRONMENTS[panel],
            core,
            variant,
            [
                run
                for run in runs
                if (run.trial.panel, run.trial.core, run.trial.variant) == (panel, core, variant)
            ],
        )
        for panel, core, variant in keys
    ]


def compared(run: Run) -> dict[str, Array]:
    """The curve of a run up to the trial's length: one that has gone on since counts as far as the others."""
    curve = run.curve("progress.csv")
    if not curve:
        return curve
    # The rollout in which the length is reached is the last one of a run of this length.
    end = int(np.searchsorted(curve["timesteps"], run.trial.length)) + 1
    return {name: column[:end] for name, column in curve.items()}


def rewards(run: Run, places: Array, width: float, column: str = "timesteps") -> Array:
    """Mean reward of the episodes that ended in the ``width`` timesteps, or seconds, before each place.

    Args:
        run: of the comparison.
        places: timesteps, or values of another column that grows.
        width: in the same unit.
        column: which.

    Returns:
        NaN where no episode ended, and behind the end of the run.
    """
    curve = compared(run)
    if not curve:
        return np.full(len(places), np.nan)
    episodes = np.diff(curve["episodes"], prepend=0)
    total = np.concatenate([[0.0], np.cumsum(np.where(episodes > 0, curve["reward"], 0) * episodes)])
    count = np.concatenate([[0.0], np.cumsum(episodes)])
    ends = np.searchsorted(curve[column], places, side="right")
    starts = np.searchsorted(curve[column], places - width, side="right")
    played = count[ends] - count[starts]
    means = np.divide(total[ends] - total[starts], played, out=np.full(len(places), np.nan), where=played > 0)
    return np.where(places <= curve[column][-1] + 1e-9, means, np.nan)


def final_score(run: Run) -> float:
    """Mean reward of the episodes of the last tenth of the run's steps; of what there is, if it goes on."""
    end = last(run, "timesteps")
    return float(rewards(run, np.array([end]), LAST * run.trial.length)[0])


def best_score(run: Run) -> float:
    """The highest mean reward of the episodes of any tenth of the run's steps, as POPGym's MMER is meant."""
    places, width = compared(run)["timesteps"], LAST * run.trial.length
    means = rewards(run, places, width)[places >= min(width, places[-1])]
    return float(np.nanmax(means)) if np.isfinite(means).any() else np.nan


def last(run: Run, column: str) -> float:
    """The last value of a column of the curve, up to the trial's length."""
    return float(compared(run)[column][-1])


def steps_per_second(run: Run) -> float:
    """Over the whole run, learning included."""
    return last(run, "timesteps") / max(last(run, "seconds"), 1e-9)


def hours(run: Run) -> float:
    """Of training."""
    return last(run, "seconds") / 3600


def parameters(run: Run) -> int | None:
    """Of the policy; ``None`` if what it is made of is not installed."""
    settings = {**run.trial.settings, "core": run.trial.core}
    return (count_contrib_parameters if run.trial.variant == CONTRIB else count_parameters)(settings)


def interquartile_mean(scores: Array) -> float | Array:
    """The mean of what is left without the lowest and the highest quarter.

    Args:
        scores: the last axis is averaged over.
    """
    number = scores.shape[-1]
    cut = number // 4
    return np.sort(scores, axis=-1)[..., cut : number - cut].mean(-1)


def bootstrapped(scores: Array) -> Interval:
    """Interquartile mean over all scores, with a 95% interval by the stratified bootstrap.

    The interval is the one of rliable (Agarwal et al. 2021): the runs of each environment are drawn anew,
    with replacement and apart from those of the others, and the percentiles of the means are taken.

    Args:
        scores: ``[runs, environments]``.
    """
    runs, environments = scores.shape
    drawn = np.random.default_rng(0).integers(runs, size=(REPETITIONS, runs, environments))
    means = interquartile_mean(scores[drawn, np.arange(environments)].reshape(REPETITIONS, -1))
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(interquartile_mean(scores.ravel())), float(low), float(high))


def interval_of(group: Group, of_run: Callable[[Run], float]) -> Interval | None:
    """Over the runs of a group that have the number; ``None`` if none has."""
    values = group.values(of_run)
    return bootstrapped(values[:, None]) if len(values) else None


def aggregated(groups: Sequence[Group], equal: str) -> dict[str, tuple[Interval, int, int]]:
    """Normalised final scores over all environments that all cores have.

    Args:
        groups: all of them.
        equal: :data:`WIDTH` or :data:`PARAMETERS`; runs in which both are equal count in either.

    Returns:
        core -> interval, number of environments, number of seeds. Of each core so many seeds are taken as all
        have in all environments, the first ones.
    """
    own = [group for group in groups if group.variant in (equal, BOTH)]
    scores = {(group.core, group.environment.name): _normalised(group) for group in own}
    cores = ordered([group.core for group in own])
    names = ordered([group.environment.name for group in own])
    shared = [name for name in names if all(len(scores.get((core, name), ())) for core in cores)]
    if not shared:
        return {}
    seeds = min(len(scores[core, name]) for core in cores for name in shared)
    found = {}
    for core in cores:
        matrix = np.stack([scores[core, name][:seeds] for name in shared], axis=1)
        found[core] = (bootstrapped(matrix), len(shared), seeds)
    return found


def _normalised(group: Group) -> Array:
    low, high = group.environment.low, group.environment.high
    return (group.values(final_score) - low) / (high - low)


def score_table(groups: Sequence[Group]) -> Table:
    """A row for each group, and one for each published number."""
    columns = [
        *("environment", "core", "equal", "parameters", "settings", "runs", "steps"),
        *("score", "95% interval", "best", "95% interval of best", "steps/s", "hours"),
    ]
    rows: list[Sequence[str]] = []
    for environment in ordered_environments(groups):
        for group in groups:
            if group.environment is environment:
                rows.append(_score_row(group))
        for mark in environment.published:
            steps = f"{mark.timesteps:,}"
            rows.append(
                [environment.name, mark.who, "", "", "", "", steps, f"{mark.score:g}", *[""] * 5],
            )
    sources = ordered([mark.source for row in ordered_environments(groups) for mark in row.published])
    return Table(
        "rl",
        columns,
        rows,
        [
            f"Score: mean reward of the training episodes that ended in the last {LAST:.0%} of the steps; "
            f"best: the highest mean over any {LAST:.0%} of them. Both as interquartile means over runs with "
            "stratified bootstrap intervals; steps/s and hours are means over runs.",
            "Settings: searched for the core (sb3-contrib has those of our LSTM), or shared by all cores for "
            "which none were.",
            "Rows without a number of runs are published, at the steps that stand there: "
            f"{'; '.join(sources)}. They are the best means in training (POPGym) or means of evaluations (RL "
            "Zoo), of networks of other sizes.",
        ],
    )


def ordered_environments(groups: Sequence[Group]) -> list[Environment]:
    """Those that have runs, in the order of the table."""
    names = {group.environment.name for group in groups}
    return [row for name, row in ENVIRONMENTS.items() if name in names]


def _score_row(group: Group) -> list[str]:
    unfinished = sum(not run.trained for run in group.runs)
    count = f"{len(group.runs)}" + (f" ({unfinished} not finished)" if unfinished else "")
    size = parameters(group.runs[0])
    return [
        group.environment.name,
        group.core_label,
        EQUAL[group.variant],
        "" if size is None else f"{size:,}",
        "searched" if all(is_searched(run.trial) for run in group.runs) else "shared",
        count,
        f"{max(run.trial.length for run in group.runs):,}",
        *_cells(interval_of(group, final_score)),
        *_cells(interval_of(group, best_score)),
        f"{group.values(steps_per_second).mean():,.0f}",
        f"{group.values(hours).mean():.2f}",
    ]


def _cells(interval: Interval | None) -> list[str]:
    if interval is None:
        return ["", ""]
    return [f"{interval.mean:.3g}", f"{interval.low:.3g} to {interval.high:.3g}"]


def aggregate_table(groups: Sequence[Group]) -> Table:
    """Normalised scores over environments."""
    rows = []
    names = ", ".join(row.name for row in ordered_environments(groups))
    for equal in (WIDTH, PARAMETERS):
        for core, (interval, environments, seeds) in aggregated(groups, equal).items():
            rows.append([core_label(core), equal, str(environments), str(seeds), *_cells(interval)])
    columns = ["core", "equal", "environments", "seeds", "normalised score", "95% interval"]
    bounds = "; ".join(f"{row.name} {row.low:g} and {row.high:g}" for row in ordered_environments(groups))
    return Table(
        "rl-aggregate",
        columns,
        rows,
        [
            "Interquartile mean over seeds and all environments that all cores of a row's kind have, of "
            f"{names}. A score of the first number counts as 0, of the second as 1: {bounds}."
        ],
    )


def time_table(groups: Sequence[Group]) -> Table:
    """Where sb3-contrib runs: scores after the same steps, and after the same time."""
    rows = []
    for environment in ordered_environments(groups):
        own = [group for group in groups if group.environment is environment]
        ended = [group for group in own if all(run.trained for run in group.runs)]
        if not ended or not any(group.variant == CONTRIB for group in own):
            continue
        seconds = min(float(group.values(lambda run: last(run, "seconds")).mean()) for group in ended)
        for group in own:
            after_time = interval_of(group, partial(_score_at, seconds=seconds))
            cells = [*_cells(interval_of(group, final_score)), *_cells(after_time)]
            rows.append([environment.name, group.label, *cells, f"{seconds:,.0f}"])
    columns = ["environment", "core", "score", "95% interval", "score at equal time"]
    return Table(
        "rl-time",
        [*columns, "95% interval at equal time", "that time (s)"],
        rows,
        ["The time is that of the fastest core to the end of its run; scores are of the tenth of it before."],
    )


def _score_at(run: Run, seconds: float) -> float:
    end = min(seconds, last(run, "seconds"))
    return float(rewards(run, np.array([end]), LAST * seconds, "seconds")[0])


def run_table(groups: Sequence[Group]) -> Table:
    """A row for each run."""
    columns = [
        *("environment", "core", "equal", "seed", "finished", "score", "best", "steps", "steps/s", "hours"),
    ]
    rows: list[Sequence[str]] = [
        [
            *(group.environment.name, group.core_label, EQUAL[group.variant], str(run.trial.seed)),
            *("yes" if run.trained else "no", f"{final_score(run):.4g}", f"{best_score(run):.4g}"),
            *(f"{last(run, 'timesteps'):.0f}", f"{steps_per_second(run):.0f}", f"{hours(run):.3f}"),
        ]
        for group in groups
        for run in group.runs
    ]
    return Table("rl-runs", columns, rows, ["One row for each run; what is in the columns: see rl.md."])


def comparison_tables(runs: Sequence[Run]) -> list[Table]:
    """All tables."""
    groups = grouped(runs)
    tables = [score_table(groups), aggregate_table(groups), run_table(groups)]
    at_time = time_table(groups)
    return [*tables, at_time] if at_time.rows else tables

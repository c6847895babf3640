"""What each figure and table of the paper needs to be trained, in three sizes.

``smoke`` shows in minutes that everything runs, ``laptop`` is what two cores do overnight, ``paper`` is the
paper's own size; where the paper does not give one, the docstring of the experiment says what stands in for
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mnm_rl.cores import find_core, reads_sentences
from mnm_rl.reproduction.trials import ProgramName, Trial
from mnm_rl.training.supervised.config import check_sentences

SCALES = ("smoke", "laptop", "paper")
MODELS = ("lstm", "lstm-salu", "mnm-g", "mnm-p")
TABLE_1_MODELS = ("mnm-p", "mnm-g", "lstm-salu", "lstm", "tpr-rnn", "entnet", "dnc", "sdnc")
"""Those of table 1, and the two that its text compares."""
MAZE_MODELS = ("mnm-p", "lstm", "plastic", "plastic-homogenous")
STORIES: Mapping[str, Any] = {"task_options": {"format": "story", "max_length": 800}, "batch_size": 32}
"""bAbI for models that were published on whole stories: one sequence has all questions of a story."""
PUBLISHED_DNC = {"hidden_size": 256, "slots": 256, "slot_size": 64, "read_heads": 4}
"""Of Graves et al. 2016 on bAbI; for the sparse DNC none are given, so it has them, too."""
STORY_MODELS: Mapping[str, Mapping[str, Any]] = {
    "tpr-rnn": {**STORIES, "warmup": 50, "max_grad_norm": 5.0},
    "entnet": {**STORIES, "learning_rate": 3e-3, "max_grad_norm": 40.0},
    "dnc": {**STORIES, "core_settings": PUBLISHED_DNC},
    "sdnc": {**STORIES, "core_settings": PUBLISHED_DNC},
}
"""What they have beside the scale's settings, which go before these; see docs/baselines."""
TINY = {"core_settings": {"hidden_size": 8}, "embedding_size": 8, "batch_size": 4}
FEW_SLOTS: Mapping[str, Mapping[str, Any]] = {
    core: {"core_settings": {"hidden_size": 8, "slots": 8, "slot_size": 4}} for core in ("dnc", "sdnc")
}
"""The same for memories that have many slots."""
MOST_SEEDS = 1000
SOLVED = 0.0005
"""The error at which a run on an algorithmic task ends, as a fraction of the symbols."""


@dataclass(frozen=True)
class Experiment:
    """The trials behind a figure, or behind tables that come from the same runs."""

    name: str
    scale: str
    seeds: int
    trials: tuple[Trial, ...]
    timed: bool = False
    """Trials that measure time run one after the other, on this machine."""


@dataclass(frozen=True)
class Part:
    """One panel: what all its trials share."""

    panel: str
    program: ProgramName
    length: int
    settings: Mapping[str, Any]


def make_experiment(
    name: str,
    scale: str,
    seeds: int | None = None,
    cores: Sequence[str] = (),
    panels: Sequence[str] = (),
) -> Experiment:
    """The experiment of a name.

    Args:
        name: a key of :data:`EXPERIMENTS` or :data:`ALIASES`.
        scale: one of :data:`SCALES`.
        seeds: seeds 0 ... seeds - 1 of every model; the scale's own number if not given.
        cores: what is compared; the paper's models if not given.
        panels: some parts of a figure, such as ``instance-2``; all if not given.

    Raises:
        ValueError: an unknown name, scale, core or panel, or a number of seeds that is not allowed.
    """
    known = (*EXPERIMENTS, *ALIASES)
    if name not in known:
        raise ValueError(f"Unknown figure or table {name!r}; known: {', '.join((*known, COMPARISON))}.")
    check_size(scale, seeds)
    for core in cores:
        find_core(core)
    for what, given in (("core", cores), ("panel", panels)):
        if repeated := next((each for each in given if given.count(each) > 1), None):
            raise ValueError(f"The {what} {repeated} is given twice.")
    experiment = _only(panels, EXPERIMENTS[ALIASES.get(name, name)](scale, seeds, cores))
    for trial in experiment.trials:
        if trial.program == "supervised":
            check_sentences(trial.settings.get("task", "dictionary"), trial.core)
        elif reads_sentences(trial.core):
            raise ValueError(f"The core {trial.core} reads whole sentences, and {name} has none.")
    return experiment


def _only(panels: Sequence[str], experiment: Experiment) -> Experiment:
    """The trials of some panels; all of them if none is named."""
    known = list(dict.fromkeys(trial.panel for trial in experiment.trials))
    if unknown := next((panel for panel in panels if panel not in known), None):
        raise ValueError(
            f"Unknown panel {unknown!r} of {experiment.name}; known at this scale: {', '.join(known)}."
        )
    trials = tuple(trial for trial in experiment.trials if not panels or trial.panel in panels)
    return replace(experiment, trials=trials)


def check_size(scale: str, seeds: int | None) -> None:
    """Raise a ValueError for an unknown scale, or a number of seeds that is not allowed."""
    if scale not in SCALES:
        raise ValueError(f"Unknown scale {scale!r}; known: {', '.join(SCALES)}.")
    if seeds is not None and not 1 <= seeds <= MOST_SEEDS:
        raise ValueError(f"seeds must be from 1 to {MOST_SEEDS}, got {seeds}.")


def figure2(scale: str, seeds: int | None, cores: Sequence[str] = ()) -> Experiment:
    """Dictionary inference. Paper: 5 runs; it does not give the number of iterations, 10,000 stand in.

    On a laptop the learning rate falls to zero. On instances 1 and 2 a run goes on to its end, because half
    a symbol in a thousand is not yet none; on 3 and 4 the smaller instances take turns in training, which
    solves them in a fraction of the time, and on 3 the rate rises first; see docs/supervised.md.
    """
    parts = []
    for instance, length in ((1, 3000), (2, 5000), (3, 4000), (4, 4000)):
        options: dict[str, Any] = {"instance": instance}
        settings = _algorithmic(scale, 100 if instance == 1 else 200)
        if scale == "laptop":
            settings["schedule"] = "linear"
            if instance < 3:
                del settings["stop_error"]
            else:
                options["smaller_instances"] = True
            if instance == 3:
                settings["warmup"] = 300
        settings["task_options"] = options
        iterations = {"smoke": 20, "laptop": length, "paper": 10_000}[scale]
        parts.append(Part(f"instance-{instance}", "supervised", iterations, settings))
    return _cross("figure2", scale, parts, cores or MODELS, seeds or _number(scale, 5))


def figure3(scale: str, seeds: int | None, cores: Sequence[str] = ()) -> Experiment:
    """Time and memory against the length of the input, with lengths of our own."""
    lengths = {
        "smoke": (4, 8),
        "laptop": (25, 50, 100, 200, 400),
        "paper": (25, 50, 100, 200, 400, 800, 1600),
    }[scale]
    rounds = {"smoke": 1, "laptop": 5, "paper": 10}[scale]
    tiny = {"hidden_size": 8, "batch_size": 2} if scale == "smoke" else {}
    parts = [
        Part(f"length-{length}", "measurement", rounds, {"sequence_length": length, **tiny})
        for length in lengths
    ]
    return _cross("figure3", scale, parts, cores or MODELS, seeds or 1, timed=True)


def figure4(scale: str, seeds: int | None, cores: Sequence[str] = ()) -> Experiment:
    """Double copy and priority sort. The paper gives neither runs nor iterations: 5 and 10,000 stand in.

    On a laptop the learning rate of double copy falls, because at the paper's constant rate errors keep
    jumping back; see docs/supervised.md.
    """
    iterations = {"smoke": 20, "laptop": 5000, "paper": 10_000}[scale]
    parts = []
    for task, validate_every in (("double-copy", 200), ("priority-sort", 250)):
        settings = {"task": task, **_algorithmic(scale, validate_every)}
        if scale == "smoke" and task == "double-copy":
            settings["task_options"] = {"length": 3}
        if scale == "laptop" and task == "double-copy":
            settings["schedule"] = "linear"
        parts.append(Part(task, "supervised", iterations, settings))
    return _cross("figure4", scale, parts, cores or MODELS, seeds or _number(scale, 5))


def table1(scale: str, seeds: int | None, cores: Sequence[str] = ()) -> Experiment:
    """bAbI, all tasks jointly: tables 1, 3 and 4.

    Paper: 12 runs of MNM-p; it does not say how many of the others, and of the length only that runs were
    compared after 62,000 iterations and trained further. Here 12 runs of each, of 250,000 iterations.

    On a laptop the learning rate falls, and tasks with many errors are trained more often; see
    docs/supervised.md. Models of whole stories (:data:`STORY_MODELS`) have 15,600 iterations of 32 of them
    there, half a million stories in all, as the DNC was published with.
    """
    iterations, settings = {
        "smoke": (10, {**TINY, "task_options": {"tasks": "1,20", "size": "1k"}, "validate_every": 10}),
        "laptop": (
            7000,
            {"validate_every": 500, "schedule": "linear", "task_options": {"repeat": "auto"}},
        ),
        "paper": (250_000, {"validate_every": 1000}),
    }[scale]
    part = Part("babi", "supervised", iterations, {"task": "babi", **settings})
    experiment = _cross("table1", scale, [part], cores or TABLE_1_MODELS, seeds or _number(scale, 12))
    length = 15_600 if scale == "laptop" else iterations
    if scale == "smoke":
        experiment = _with_settings(experiment, FEW_SLOTS)
    trials = [
        replace(trial, length=length, settings=_merged(STORY_MODELS[trial.core], trial.settings))
        if trial.core in STORY_MODELS
        else trial
        for trial in experiment.trials
    ]
    return replace(experiment, trials=tuple(trials))


def _merged(settings: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of both; where both have one, those of the task side by side, of others the first's."""
    options = {**settings.get("task_options", {}), **first.get("task_options", {})}
    return {**settings, **first, "task_options": options}


def figure6(scale: str, seeds: int | None, cores: Sequence[str] = ()) -> Experiment:
    """The maze. Paper: 10 runs, up to 1,000,000 episodes, no previous action observed, three heads.

    Learning rate, number of mazes and the like are this project's at every scale; on a laptop they are those
    of the preset ``soonest``, see docs/maze.md.
    """
    length, settings = {
        "smoke": (40, {"n_envs": 4, "core_settings": {"hidden_size": 8}, "env": "MNMMaze-5x5"}),
        "laptop": (30_000, {}),
        "paper": (1_000_000, {"previous_action": False}),
    }[scale]
    experiment = _cross(
        "figure6",
        scale,
        [Part("maze", "a2c", length, settings)],
        cores or MAZE_MODELS,
        seeds or _number(scale, 10),
    )
    if scale != "paper":
        return experiment
    return _with_settings(experiment, {"mnm-p": {"core_settings": {"heads": 3}}})


EXPERIMENTS: dict[str, Callable[[str, int | None, Sequence[str]], Experiment]] = {
    "figure2": figure2,
    "figure3": figure3,
    "figure4": figure4,
    "figure6": figure6,
    "table1": table1,
}
ALIASES = {"table3": "table1", "table4": "table1"}
"""Tables that come from the same runs as another one."""
COMPARISON = "rl"
"""The comparison of cores, which :func:`mnm_rl.reproduction.rl.experiment.make_comparison` makes."""


def _algorithmic(scale: str, validate_every: int) -> dict[str, Any]:
    """Settings of an algorithmic task; the paper's sizes are the trainer's defaults."""
    if scale == "smoke":
        return {**TINY, "validate_every": 20, "log_every": 5}
    return {"validate_every": validate_every, "stop_error": SOLVED}


def _number(scale: str, paper: int) -> int:
    return paper if scale == "paper" else 1


def _cross(
    name: str, scale: str, parts: Sequence[Part], models: Sequence[str], seeds: int, timed: bool = False
) -> Experiment:
    """Every part with every model and seed; all models of a seed come before the next seed."""
    trials = [
        Trial(
            f"{part.panel}-{core}-seed{seed}",
            part.program,
            part.panel,
            core,
            seed,
            part.length,
            part.settings,
        )
        for seed in range(seeds)
        for part in parts
        for core in models
    ]
    return Experiment(name, scale, seeds, tuple(trials), timed)


def _with_settings(experiment: Experiment, of_cores: Mapping[str, Mapping[str, Any]]) -> Experiment:
    """The experiment with more settings for some of the cores."""
    trials = [
        replace(trial, settings={**trial.settings, **of_cores.get(trial.core, {})})
        for trial in experiment.trials
    ]
    return replace(experiment, trials=tuple(trials))

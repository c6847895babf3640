"""A second look at the best trials of a search, with seeds of their own.

The best of many trials of one seed each is in part the luckiest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mnm_rl.training.study import FailedTrial, Search
from mnm_rl.training.trials import (
    CONFIRMED_FILE,
    Trial,
    best_trial,
    complete,
    order,
    read_confirmed,
    write_trials,
)

FURTHER_SEEDS = 2
"""With so many seeds besides the search's own the best trials are trained again."""


def confirm(
    directory: Path,
    search: Search,
    trials: Sequence[Trial],
    count: int,
    is_stopped: Callable[[], bool] = lambda: False,
    tell: Callable[[Trial], None] = lambda trial: None,
) -> list[Trial]:
    """Train the best trials again, with :data:`FURTHER_SEEDS` other seeds, as far as that was not done yet.

    The settings that are best with all seeds (:func:`~mnm_rl.training.trials.best_trial`) are then those of
    the search.

    Args:
        directory: of :func:`~mnm_rl.training.study.run_search`, owned by this process.
        search: what is searched.
        trials: all of it.
        count: so many of them; 0 for none.
        is_stopped: asked now and then.
        tell: told of every training when it has ended: a trial with the number of the one that it is of, and
            its seed as its only setting.

    Returns:
        All such trainings.

    Raises:
        KeyboardInterrupt: ``is_stopped`` wanted it; what is finished is saved.
        ValueError: the table of those that were made before is damaged.
    """
    again = read_confirmed(directory)
    made = {(each.number, each.entry.get("seed")) for each in again}
    best = sorted(complete(trials), key=order(search.is_minimised))[:count]
    for seed in range(search.seed + 1, search.seed + 1 + FURTHER_SEEDS):
        for trial in best:
            if (trial.number, seed) in made:
                continue
            again.append(_train_again(search, trial, seed, is_stopped))
            write_trials(directory / CONFIRMED_FILE, again)
            tell(again[-1])
    chosen = best_trial(trials, search.is_minimised, again)
    if chosen is not None:
        search.write_best(directory, chosen, trials, again)
    return again


def _train_again(search: Search, trial: Trial, seed: int, is_stopped: Callable[[], bool]) -> Trial:
    started = time.monotonic()
    state, reason = "complete", ""
    numbers: Mapping[str, float]
    try:
        numbers = search.train_again(trial.entry, seed, is_stopped)
        if not math.isfinite(numbers["value"]):
            state, reason = "failed", f"its {search.measure} is {numbers['value']}"
    except FailedTrial as error:
        state, reason, numbers = "failed", str(error), {"seconds": time.monotonic() - started}
    numbers = {name: numbers.get(name, math.nan) for name in search.numbers}
    return Trial(trial.number, state, numbers, reason, {"seed": seed})

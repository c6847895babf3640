"""A search of an agent's settings.

Its folder has, besides what every search has (``training/study.py``), ``best.yml``: the best trial as an
entry of a file of settings (see ``settings_files.py``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from mnm_rl.files import atomic_write
from mnm_rl.training.folder import RUN_KINDS
from mnm_rl.training.options import plain
from mnm_rl.training.rl.config import CONFIGS, AgentConfig, config_from_dict, config_to_dict
from mnm_rl.training.rl.search import Objective, chosen_config, drawn_from, search_space, train_trial
from mnm_rl.training.rl.settings_files import entry_key, read_entry, write_entry
from mnm_rl.training.study import Search, Space, read_search
from mnm_rl.training.trials import Trial, best_trial

BEST_FILE = "best.yml"
NUMBERS = ("value", "final", "area", "timesteps", "seconds", "steps_per_second")


@dataclass(frozen=True)
class Plan(Search):
    """A search: what stays, what is searched, and for what."""

    config: AgentConfig
    """With the settings that stay; its seed is the search's, too."""
    fixed: tuple[str, ...] = ()
    """Settings that are in the search space, but stay."""
    objective: Objective = "final"
    prune: bool = False
    """Whether trials that are below the median of the others on their way are ended early."""
    measure: ClassVar[str] = "reward"
    is_minimised: ClassVar[bool] = False
    numbers: ClassVar[tuple[str, ...]] = NUMBERS

    @property
    def seed(self) -> int:
        """Of the search and of its trials."""
        return self.config.seed

    @property
    def prunes(self) -> bool:
        """Whether trials are ended early."""
        return self.prune

    @property
    def space(self) -> Space:
        """What is searched."""
        return search_space(self.config, self.fixed)

    def document(self) -> dict[str, Any]:
        """Plain values for search.json."""
        return plain(
            {
                "algorithm": self.config.kind.name,
                "objective": self.objective,
                "prune": self.prune,
                "config": config_to_dict(self.config),
                "space": {name: dataclasses.asdict(each) for name, each in self.space.items()},
            }
        )

    def first_draw(self) -> dict[str, Any]:
        """The program's own settings, as far as they lie in the space."""
        return drawn_from(self.config, self.space)

    def entry(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """A trial as an entry of a file of settings."""
        return write_entry(chosen_config(self.config, drawn))

    def train(
        self,
        drawn: Mapping[str, Any],
        is_stopped: Callable[[], bool],
        report: Callable[[int, float], bool],
    ) -> dict[str, float]:
        """See :meth:`mnm_rl.training.study.Search.train`."""
        result = train_trial(chosen_config(self.config, drawn), is_stopped, report)
        return {"value": result.value(self.objective), **result._asdict()}

    def train_again(
        self, entry: Mapping[str, Any], seed: int, is_stopped: Callable[[], bool]
    ) -> dict[str, float]:
        """See :meth:`mnm_rl.training.study.Search.train_again`."""
        settings = read_entry(entry, type(self.config), "the trial")
        result = train_trial(dataclasses.replace(self.config, **settings, seed=seed), is_stopped)
        return {"value": result.value(self.objective), **result._asdict()}

    def write_best(
        self, directory: Path, best: Trial, trials: Sequence[Trial], again: Sequence[Trial] = ()
    ) -> None:
        """Write the entry of the best trial."""
        numbers = best.numbers
        title = (
            f"# The best of {len(trials)} trials by {self.objective} reward, trial {best.number}: final "
            f"{numbers['final']:.4g}, area {numbers['area']:.4g}; seed {self.seed}.\n"
        )
        if further := [each for each in again if each.number == best.number]:
            rewards = ", ".join(f"{each.entry['seed']}: {each.numbers['value']:.4g}" for each in further)
            title += f"# Chosen by the mean over seeds; with further seeds its reward is {rewards}.\n"
        entry = best_entry(self.config.env, trials, again)
        with atomic_write(directory / BEST_FILE) as temporary:
            temporary.write_text(title + yaml.safe_dump(entry, sort_keys=False, width=100))


def searched_config(directory: Path) -> AgentConfig:
    """The settings that stay in a search; errors as of :func:`~mnm_rl.training.study.read_search`.

    Raises:
        ValueError: it is not a search of an agent's settings.
    """
    document = read_search(directory)
    if document["algorithm"] not in CONFIGS:
        raise ValueError(f"{directory} is not a search of an agent's settings.")
    return config_from_dict(document["config"], RUN_KINDS[document["algorithm"]])


def best_entry(env: str, trials: Sequence[Trial], again: Sequence[Trial] = ()) -> dict[str, Any] | None:
    """The best trial as what stands in a file of settings, key and entry; ``None`` if none is complete."""
    best = best_trial(trials, again=again)
    if best is None:
        return None
    return {entry_key(env, best.entry["policy_kwargs"]["core"]): dict(best.entry)}

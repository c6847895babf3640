"""The settings in the package are the best of the searches under results/, as their tables have them."""

import importlib
import json
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from mnm_rl.training.folder import RUN_KINDS, SUPERVISED
from mnm_rl.training.rl.config import config_to_dict
from mnm_rl.training.rl.settings_files import package_file, read_entries
from mnm_rl.training.rl.study import NUMBERS, Plan, best_entry, searched_config
from mnm_rl.training.study import read_search
from mnm_rl.training.supervised import config as supervised_config
from mnm_rl.training.supervised import search as supervised_search
from mnm_rl.training.trials import Trial, best_trial, read_trials, write_trials

ROOT = Path(__file__).parent.parent
SEARCHES = sorted(path.parent.relative_to(ROOT) for path in (ROOT / "results").rglob("search.json"))
OF_RUNS = [each for each in SEARCHES if read_search(ROOT / each)["algorithm"] == SUPERVISED.name]
OF_AGENTS = [each for each in SEARCHES if each not in OF_RUNS]


def fault_of_settings(search: Path, file: Path) -> str | None:
    """Why what a file has for the environment and core of a search is not the search's best, if it is not.

    The length of the runs may be another one than that of the trials.
    """
    trials = read_trials(search / "trials.csv")
    best = best_entry(searched_config(search).env, trials)
    if best is None:
        return "no trial is complete"
    ((key, entry),) = best.items()
    if yaml.safe_load((search / "best.yml").read_text()) != best:
        return "best.yml is not the best trial of trials.csv"
    found = read_entries(file).get(key)
    if found is None:
        return f"{file.name} has no entry {key}"
    differing = [
        name
        for name in sorted(found.keys() | entry.keys())
        if name != "n_timesteps" and found.get(name) != entry.get(name)
    ]
    return f"{file.name}, {key} differs in {', '.join(differing)}" if differing else None


@pytest.mark.parametrize("search", OF_RUNS, ids=str)
def test_the_settings_of_a_supervised_search_are_those_of_its_best_trial(search):
    best = best_trial(read_trials(ROOT / search / "trials.csv"), is_minimised=True)
    assert best is not None
    found = supervised_search.read_best(ROOT / search / supervised_search.BEST_FILE)
    assert found == supervised_config.config_from_dict(best.entry)


@pytest.mark.parametrize("search", OF_AGENTS, ids=str)
def test_the_settings_of_the_package_are_the_best_of_the_search(search):
    kind = RUN_KINDS[read_search(ROOT / search)["algorithm"]]
    assert fault_of_settings(ROOT / search, package_file(kind)) is None


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_a_search_has_a_page_with_the_command_that_made_it(search, monkeypatch):
    page = (ROOT / search / "README.md").read_text()
    made_by, reached = page.index("## Made by"), page.index("## Reached")
    limits = page.index("## What it does not show")
    assert len(page[limits:].splitlines()) > 2
    words = shlex.split(page[made_by:reached].split("```")[1].strip().splitlines()[0], comments=True)
    assert words[:2] == ["python", "scripts/tune.py"]
    monkeypatch.setattr(sys, "argv", words[1:])
    tune = importlib.import_module("mnm_rl.commands.tune")
    args = tune._parse()
    assert args.out == str(search)
    assert args.trials == len(read_trials(ROOT / search / "trials.csv"))
    document, plan = read_search(ROOT / search), tune.search_of(args, words[2:])
    assert plan.prune == document["prune"]
    if isinstance(plan, Plan):
        assert (args.algorithm, plan.objective) == (document["algorithm"], document["objective"])
    assert set(plan.space) == set(document["space"])
    # Defaults may have changed since; what is given may not.
    given = tune._given(words[2:])
    found = (
        config_to_dict(plan.config)
        if isinstance(plan, Plan)
        else supervised_config.config_to_dict(plan.config)
    )
    kept = {name for name in found if name in given or name in ("env", "task", "core", "seed")}
    assert {name: found[name] for name in kept} == {name: document["config"][name] for name in kept}


def test_a_difference_is_found(tmp_path):
    search, file = tmp_path / "search", tmp_path / "ppo.yml"
    search.mkdir()
    config = {"env": "CartPole-v1", "core": "lstm", "core_settings": {"hidden_size": 4}}
    (search / "search.json").write_text(json.dumps({"algorithm": "ppo", "config": config}))

    def trial(number: int, value: float, gamma: float) -> Trial:
        entry = {"n_timesteps": 100, "policy_kwargs": {"core": "lstm"}, "gamma": gamma}
        return Trial(number, "complete", {**dict.fromkeys(NUMBERS, 1.0), "value": value}, "", entry)

    trials = [trial(0, 1.0, 0.9), trial(1, 3.0, 0.99), trial(2, 3.0, 0.999)]
    write_trials(search / "trials.csv", trials)
    best = {"CartPole-v1/lstm": trials[1].entry}
    (search / "best.yml").write_text(yaml.safe_dump(best))
    file.write_text(yaml.safe_dump({"CartPole-v1/lstm": {**trials[1].entry, "n_timesteps": 500}}))
    assert fault_of_settings(search, file) is None
    file.write_text(yaml.safe_dump({"CartPole-v1/lstm": dict(trials[2].entry)}))
    assert fault_of_settings(search, file) == "ppo.yml, CartPole-v1/lstm differs in gamma"
    file.write_text(yaml.safe_dump({"CartPole-v1": dict(trials[1].entry)}))
    assert fault_of_settings(search, file) == "ppo.yml has no entry CartPole-v1/lstm"
    (search / "best.yml").write_text(yaml.safe_dump({"CartPole-v1/lstm": dict(trials[0].entry)}))
    assert fault_of_settings(search, file) == "best.yml is not the best trial of trials.csv"

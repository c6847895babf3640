"""The best trials of a search are trained again with further seeds, and the mean over seeds decides."""

import dataclasses
import math

import pytest
import yaml
from test_scripts_a2c import run_script  # noqa: F401 - a fixture

pytest.importorskip("optuna")

from test_tune import WORDS, searched, tiny_plan, without_times

from mnm_rl.training.confirmation import FURTHER_SEEDS, confirm
from mnm_rl.training.folder import PPO_AGENT
from mnm_rl.training.rl import study as agent_study
from mnm_rl.training.rl.search import Result
from mnm_rl.training.rl.settings_files import config_for
from mnm_rl.training.rl.study import Plan
from mnm_rl.training.study import FailedTrial, open_search, run_search
from mnm_rl.training.supervised.config import SupervisedConfig, config_from_dict
from mnm_rl.training.supervised.search import SupervisedSearch, read_best
from mnm_rl.training.trials import CONFIRMED_FILE, Trial, best_trial, read_confirmed, read_trials


def trial(number: int, value: float, seed: int | None = None, state: str = "complete") -> Trial:
    return Trial(number, state, {"value": value}, "", {} if seed is None else {"seed": seed})


def number_of(trials: list[Trial], again: list[Trial], is_minimised: bool = False) -> int:
    best = best_trial(trials, is_minimised, again)
    assert best is not None
    return best.number


def test_the_mean_over_seeds_decides_among_what_was_trained_again():
    trials = [trial(0, 5), trial(1, 4), trial(2, 3), trial(3, math.nan, state="failed")]
    assert number_of(trials, []) == 0
    again = [trial(0, 0, 1), trial(1, 3, 1), trial(0, 1, 2), trial(1, 3, 2)]
    assert number_of(trials, again) == 1
    assert number_of(trials, again, is_minimised=True) == 0
    lost = [trial(0, math.nan, 1, "failed"), trial(1, -9, 1)]
    assert number_of(trials, lost) == 1
    assert number_of(trials, lost, is_minimised=True) == 1
    assert number_of(trials, [trial(number, math.nan, 1, "failed") for number in (1, 0)]) == 0
    assert best_trial([trials[3]]) is None
    assert number_of(trials, [trial(7, 9, 1), trial(3, 9, 1), trial(1, 3, 1)]) == 1, "7 and 3 are none"


def test_the_value_of_the_chosen_trial_stays_its_own():
    best = best_trial([trial(0, 5)], again=[trial(0, 1, 1)])
    assert best is not None
    assert best.numbers == {"value": 5}


def lucky(result: dict[tuple[float, int], float]):
    """Instead of the training: rewards by gamma and seed."""

    def train_trial(config, is_stopped=lambda: False, report=lambda part, reward: False):
        if is_stopped():
            raise KeyboardInterrupt
        value = result[config.gamma, config.seed]
        if math.isnan(value):
            raise FailedTrial("It did not stay finite.")
        return Result(value, value, 128, 1.0, 128.0)

    return train_trial


def test_seeds_and_settings_of_what_is_trained_again(tmp_path, monkeypatch):
    plan = tiny_plan()
    trials = searched(tmp_path, plan, 5)
    seen = []

    def train_trial(config, is_stopped=lambda: False, report=lambda part, reward: False):
        seen.append(config)
        return Result(float(len(seen)), 0.0, 128, 1.0, 128.0)

    monkeypatch.setattr(agent_study, "train_trial", train_trial)
    told: list[Trial] = []
    again = confirm(tmp_path, plan, trials, 2, tell=told.append)
    assert again == told
    best = sorted(trials, key=lambda each: -each.numbers["value"])[:2]
    assert [each.number for each in again] == [each.number for each in best] * FURTHER_SEEDS
    assert [each.entry for each in again] == [{"seed": 1}, {"seed": 1}, {"seed": 2}, {"seed": 2}]
    assert [config.seed for config in seen] == [1, 1, 2, 2]
    for config, of in zip(seen, best * FURTHER_SEEDS, strict=True):
        assert dataclasses.replace(config, seed=0) == dataclasses.replace(
            plan.config, **agent_study.read_entry(of.entry, type(plan.config), "here")
        )
    assert without_times(read_confirmed(tmp_path)) == without_times(again)


@pytest.fixture
def five_trials(monkeypatch) -> Plan:
    """A search in which the best trial is lucky with one seed."""
    config = dataclasses.replace(tiny_plan().config, learning_rate=1e-3)
    names = ("n_steps", "learning_rate", "schedule", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm")
    names += ("normalize", "n_epochs", "minibatches", "clip_range")
    rewards = {}
    for gamma, values in {
        0.9: (1, 9, 9),
        0.95: (2, 2, 2),
        0.98: (6, 5, 5),
        0.99: (7, math.nan, 9),
        0.995: (8, 0, 0),
        0.999: (0, 9, 9),
    }.items():
        rewards |= {(gamma, seed): value for seed, value in enumerate(values)}
    monkeypatch.setattr(agent_study, "train_trial", lucky(rewards))
    return Plan(config, names)


def test_the_settings_of_the_search_are_those_that_are_best_with_all_seeds(tmp_path, five_trials):
    trials = searched(tmp_path, five_trials, 40)
    gammas = {each.number: each.entry["gamma"] for each in trials}
    assert {*gammas.values()} == {0.9, 0.95, 0.98, 0.99, 0.995, 0.999}
    count = sum(gamma in (0.98, 0.99, 0.995) for gamma in gammas.values())

    def chosen() -> float:
        found = config_for(PPO_AGENT, "CartPole-v1", "lstm", str(tmp_path / "best.yml"))
        return found.discount

    assert chosen() == 0.995
    confirm(tmp_path, five_trials, trials, count)
    assert chosen() == 0.98
    title = (tmp_path / "best.yml").read_text().splitlines()[1]
    assert title == "# Chosen by the mean over seeds; with further seeds its reward is 1: 5, 2: 5."
    # A search that goes on keeps it.
    run_search(tmp_path, five_trials, 41)
    assert chosen() == 0.98
    failed = [each for each in read_confirmed(tmp_path) if each.state == "failed"]
    assert {gammas[each.number] for each in failed} == {0.99}
    assert {each.reason for each in failed} == {"It did not stay finite."}


def test_what_was_stopped_goes_on_and_nothing_is_trained_twice(tmp_path, five_trials):
    trials = searched(tmp_path, five_trials, 12)
    asked = 0

    def stop_soon() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    with pytest.raises(KeyboardInterrupt):
        confirm(tmp_path, five_trials, trials, 3, is_stopped=stop_soon)
    assert len(read_confirmed(tmp_path)) == 3
    told: list[Trial] = []
    again = confirm(tmp_path, five_trials, trials, 3, tell=told.append)
    assert (len(told), len(again)) == (3, 6)
    assert len({(each.number, each.entry["seed"]) for each in again}) == 6
    confirm(tmp_path, five_trials, trials, 3, tell=told.append)
    confirm(tmp_path, five_trials, trials, 0, tell=told.append)
    assert len(told) == 3


def test_a_supervised_search_is_confirmed_too(tmp_path):
    config = SupervisedConfig(
        **{"task": "double-copy", "core": "lstm", "core_settings": {"hidden_size": 8}},
        **{"task_options": {"length": 2}, "iterations": 4, "batch_size": 2, "validate_every": 2},
    )
    search = SupervisedSearch(config, ("core_layers", "core_settings.hidden_size"))
    open_search(tmp_path, search)
    trials = run_search(tmp_path, search, 2)
    again = confirm(tmp_path, search, trials, 2)
    assert [each.state for each in again] == ["complete"] * 4
    of = {each.number: [each.numbers["value"]] for each in trials}
    for each in again:
        of[each.number].append(each.numbers["value"])
    best = min(of, key=lambda number: sum(of[number]))
    assert read_best(tmp_path / "best.json") == config_from_dict(dict(trials[best].entry))


def test_the_command(run_script, tmp_path):  # noqa: F811
    out = tmp_path / "search"
    words = [*WORDS, "--trials", "2", "--out", str(out)]
    status, _, said = run_script("tune", *words, "--confirm", "3")
    assert status == 2
    assert "confirm must be between 0 and trials, 2, got 3." in said
    assert not out.exists()
    status, said, _ = run_script("tune", *words, "--confirm", "1")
    assert status == 0
    best = best_trial(read_trials(out / "trials.csv"))
    assert best is not None
    assert [line.split(":")[0] for line in said.splitlines()[-3:-1]] == [
        f"trial {best.number}, seed {seed}" for seed in (1, 2)
    ]
    assert f"Done. The best is trial {best.number};" in said
    (entry,) = yaml.safe_load((out / "best.yml").read_text()).values()
    assert entry == best.entry
    (out / CONFIRMED_FILE).write_text("number,state\n")
    status, _, said = run_script("tune", *words, "--confirm", "1")
    assert status == 2
    assert f"The trials {out / CONFIRMED_FILE} are damaged" in said

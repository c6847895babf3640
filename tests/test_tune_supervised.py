"""The search of settings of supervised runs."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from test_scripts_a2c import run_script  # noqa: F401 - a fixture

pytest.importorskip("optuna")

from mnm_rl.training.folder import SUPERVISED, read_run
from mnm_rl.training.study import Choice, open_search, run_search
from mnm_rl.training.supervised import search as supervised_search
from mnm_rl.training.supervised.config import SupervisedConfig, config_to_dict
from mnm_rl.training.supervised.search import SupervisedSearch, read_best, searched_config
from mnm_rl.training.trials import Trial, best_trial, read_trials
from mnm_rl.updates import NonFiniteError

TINY = SupervisedConfig(
    task="double-copy",
    task_options={"length": 2},
    core="lstm-salu",
    core_settings={"key_size": 4, "value_size": 4},
    iterations=4,
    validate_every=2,
    batch_size=2,
)
WORDS = ["--task", "double-copy", "--length", "2", "--core", "lstm", "--hidden-size", "6"]
WORDS += ["--iterations", "4", "--validate-every", "2", "--batch-size", "2"]


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    small = {**supervised_search.SPACE, "core_settings.hidden_size": Choice((3, 5))}
    monkeypatch.setattr(supervised_search, "SPACE", small)


def searched(folder: Path, search: SupervisedSearch, trials: int, **options: Any) -> list[Trial]:
    open_search(folder, search)
    return run_search(folder, search, trials, **options)


def without_times(trials: list[Trial]) -> list[Any]:
    return [
        (trial.number, trial.state, {**trial.numbers, "seconds": 0}, dict(trial.entry)) for trial in trials
    ]


def test_the_space_has_what_the_core_has_and_what_is_not_given():
    names = SupervisedSearch(TINY).space.keys()
    assert {"core_settings.attention_scale", "core_settings.layer_norm", "core_settings.forget_bias"} <= names
    gru = SupervisedSearch(dataclasses.replace(TINY, core="gru", core_settings={}), ("warmup",)).space.keys()
    assert "core_settings.hidden_size" in gru
    assert not gru & {"core_settings.attention_scale", "core_settings.forget_bias", "warmup"}
    with pytest.raises(ValueError, match="Nothing is left to search"):
        _ = SupervisedSearch(TINY, tuple(supervised_search.SPACE)).space


def test_the_first_trial_has_the_settings_of_the_program_and_each_is_a_run():
    search = SupervisedSearch(dataclasses.replace(TINY, learning_rate=0.5, warmup=300))
    drawn = search.first_draw()
    assert "learning_rate" not in drawn, "it lies outside"
    assert (drawn["warmup"], drawn["core_settings.layer_norm"]) == (300, False)
    for name, each in search.space.items():
        for value in each.values if isinstance(each, Choice) else (each.low, each.high):
            chosen = search.chosen({**drawn, name: value})
            chosen.check()
            flat = {**vars(chosen), **{f"core_settings.{k}": v for k, v in chosen.core_settings.items()}}
            assert flat[name] == value
            assert flat["core_settings.key_size"] == 4, "what stays, stays"


def test_the_lowest_error_wins_and_its_settings_make_the_trial_again(tmp_path):
    trials = searched(tmp_path, SupervisedSearch(TINY), 4)
    assert {trial.state for trial in trials} == {"complete"}
    best = best_trial(trials, is_minimised=True)
    assert best is not None
    assert best.numbers["value"] == min(trial.numbers["value"] for trial in trials)
    assert all(trial.numbers["value"] <= trial.numbers["final"] for trial in trials)
    config = read_best(tmp_path / "best.json")
    assert config_to_dict(config) == best.entry
    assert without_times(read_trials(tmp_path / "trials.csv")) == without_times(trials)
    assert config_to_dict(searched_config(tmp_path)) == config_to_dict(TINY)
    again = SupervisedSearch(config, tuple(supervised_search.SPACE)).train(
        {}, lambda: False, lambda *_: False
    )
    assert (again["value"], again["final"], again["area"]) == tuple(
        best.numbers[name] for name in ("value", "final", "area")
    )


def test_it_goes_on_as_if_it_had_not_been_stopped(tmp_path):
    whole = searched(tmp_path / "whole", SupervisedSearch(TINY), 5)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 10  # of four iterations a trial

    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "parts", SupervisedSearch(TINY), 5, is_stopped=stop)
    assert len(read_trials(tmp_path / "parts" / "trials.csv")) == 2
    parts = searched(tmp_path / "parts", SupervisedSearch(TINY), 5)
    assert without_times(parts) == without_times(whole)


def test_what_is_worse_than_others_is_ended_and_what_fails_is_no_end(tmp_path, monkeypatch):
    from mnm_rl.training import study

    monkeypatch.setattr(study, "PRUNE_AFTER_TRIALS", 1)
    monkeypatch.setattr(study, "PRUNE_AFTER_PARTS", 0)
    errors = iter([[0.5, 0.4], [0.9], NonFiniteError("The loss is\nNaN."), [0.2, 0.3]])

    def train(self: Any, report: Any, tick: Any) -> None:
        found = next(errors)
        if isinstance(found, Exception):
            raise found
        for self.last_error in found:
            report("valid", {})

    monkeypatch.setattr(supervised_search.SupervisedTrainer, "train", train)
    trials = searched(tmp_path, SupervisedSearch(TINY, prune=True), 4)
    assert [trial.state for trial in trials] == ["complete", "pruned", "failed", "complete"]
    assert trials[2].reason == "The loss is NaN."
    assert trials[1].numbers["value"] == 0.9, "where it was ended"
    assert math.isnan(trials[1].numbers["final"])
    best = best_trial(trials, is_minimised=True)
    assert best is not None
    assert (best.number, best.numbers["value"], best.numbers["final"], best.numbers["area"]) == (
        *(3, 0.2),
        *(0.3, 0.25),
    )


def test_from_the_command_line(run_script, tmp_path):  # noqa: F811
    out = tmp_path / "search"
    status, said, error = run_script("tune", *WORDS, "--warmup", "2", "--trials", "2", "--out", out)
    assert (status, error) == (0, "")
    assert said.count("\ntrial ") == 2
    assert str(out / "best.json") in said.replace("\n", "")
    trials = read_trials(out / "trials.csv")
    assert {trial.entry["warmup"] for trial in trials} == {2}
    assert {trial.entry["core_settings"]["hidden_size"] for trial in trials} == {6}
    run = tmp_path / "run"
    words = ["--settings", out / "best.json", "--iterations", "6", "--log-dir", run, "--quiet"]
    assert run_script("train_supervised", *words)[0] == 0
    saved = read_run(run)
    assert saved["kind"] == SUPERVISED.name
    assert saved["config"] == {**json.loads((out / "best.json").read_text()), "iterations": 6}


@pytest.mark.parametrize(
    ("program", "words", "message"),
    [
        ("tune", [*WORDS, "--validate-every", "0"], "validate_every must be at least 1"),
        ("tune", [*WORDS, "--task", "sorting"], "Unknown task 'sorting'"),
        ("tune", [*WORDS, "--algorithm", "ppo"], "There is no option --algorithm"),
        ("tune", [*WORDS, "--analyze-every", "5"], "analyze_every is an option of a single run"),
        ("tune", [*WORDS, "--trials", "0"], "trials must be at least 1"),
        ("train_supervised", ["--settings", "nothing.json"], "nothing.json cannot be read"),
        ("train_supervised", ["--settings", "list.json"], "holds list instead of settings"),
        ("train_supervised", ["--settings", "other.json"], "does not know: colour"),
        (
            "train_supervised",
            ["--settings", "good.json", "--core", "gru"],
            "are of the core lstm-salu, not gru",
        ),
        ("train_supervised", ["--settings", "good.json", "--resume", "runs/x"], "runs/x"),
    ],
)
def test_bad_input_gets_one_sentence(run_script, tmp_path, monkeypatch, program, words, message):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    Path("list.json").write_text("[]")
    Path("other.json").write_text('{"colour": 1}')
    Path("good.json").write_text(json.dumps(config_to_dict(TINY)))
    options = dict(zip(words[::2], words[1::2], strict=True))  # the last of each counts
    kept = [word for pair in options.items() for word in pair]
    status, out, error = run_script(program, *kept)
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert message in error
    assert not Path("runs").exists()

"""The search of settings: what it draws, how it judges, and that stopping it changes nothing."""

import dataclasses
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_scripts_a2c import run_script  # noqa: F401 - a fixture

pytest.importorskip("optuna")

from mnm_rl.commands.tune import _given
from mnm_rl.training import study
from mnm_rl.training.curves import read_curve
from mnm_rl.training.folder import A2C_AGENT, PPO_AGENT
from mnm_rl.training.rl import search
from mnm_rl.training.rl import study as rl_study
from mnm_rl.training.rl.config import CONFIGS, A2CConfig, PPOConfig
from mnm_rl.training.rl.search import (
    area_under_curve,
    chosen_config,
    drawn_from,
    final_reward,
    search_space,
    train_trial,
)
from mnm_rl.training.rl.settings_files import config_for, find_entry
from mnm_rl.training.rl.study import NUMBERS, Plan, best_entry, searched_config
from mnm_rl.training.study import (
    Choice,
    FailedTrial,
    Range,
    StoppedTrial,
    open_search,
    read_search,
    run_search,
)
from mnm_rl.training.trials import Trial, best_trial, read_trials, write_trials
from mnm_rl.updates import NonFiniteError

SCRIPT = Path(__file__).parent.parent / "scripts" / "tune.py"
TINY: dict[str, Any] = {"env": "CartPole-v1", "core": "lstm", "core_settings": {"hidden_size": 4}}
TINY |= {"n_envs": 2, "n_steps": 16, "timesteps": 128}
WORDS = ["--env", "CartPole-v1", "--core", "lstm", "--hidden-size", "4", "--n-envs", "2"]
WORDS += ["--n-steps", "16", "--timesteps", "128"]
TIMES = ("seconds", "steps_per_second")


def tiny_plan(kind=PPO_AGENT, **changes: Any) -> Plan:
    return Plan(CONFIGS[kind.name](**TINY), ("n_steps",), **changes)


def without_times(trials: list[Trial]) -> list[Any]:
    kept = []
    for trial in trials:
        numbers = {name: value for name, value in trial.numbers.items() if name not in TIMES}
        kept.append((trial.number, trial.state, numbers, trial.entry))
    return kept


def searched(folder: Path, plan: Plan, trials: int, **options: Any) -> list[Trial]:
    open_search(folder, plan)
    return run_search(folder, plan, trials, **options)


def test_the_last_fifth_or_the_last_episodes_are_the_final_reward():
    episodes = [(10, 1.0), (80, 2.0), (81, 3.0), (100, 5.0)]
    assert final_reward(episodes, 100, n_envs=1) == 4
    assert final_reward(episodes, 100, n_envs=2) == 4
    assert final_reward(episodes, 100, n_envs=3) == pytest.approx(10 / 3)
    assert final_reward(episodes[:2], 100, n_envs=8) == 1.5


def test_the_area_is_the_mean_over_equal_parts_of_the_steps():
    parts = search.BINS
    assert area_under_curve([(step + 1, float(step)) for step in range(parts)], parts) == (parts - 1) / 2
    many = [(5 * parts, 1.0)] * 7 + [(10 * parts, 3.0)]
    assert area_under_curve(many, 10 * parts) == pytest.approx(1 + 2 / parts)
    assert area_under_curve([(10 * parts, 4.0)], 10 * parts) == 4


@pytest.mark.parametrize("kind", [A2C_AGENT, PPO_AGENT], ids=lambda kind: kind.name)
@pytest.mark.parametrize("n_envs", [1, 3, 16])
def test_everything_in_the_space_is_a_run(kind, n_envs):
    config = CONFIGS[kind.name](env="CartPole-v1", n_envs=n_envs)
    space = search_space(config)
    assert {"learning_rate", "gamma", "gae_lambda", "ent_coef", "vf_coef", "max_grad_norm"} <= space.keys()
    assert ("normalize" in space) == ("normalize" in {each.name for each in dataclasses.fields(config)})
    ends = {
        name: each.values if isinstance(each, Choice) else (each.low, each.high)
        for name, each in space.items()
    }
    sizes = [name for name in ("n_steps", "minibatches", "n_epochs") if name in ends]
    for values in itertools.product(*(ends[name] for name in sizes)):
        drawn = {name: each[0] for name, each in ends.items()} | dict(zip(sizes, values, strict=True))
        chosen = chosen_config(config, drawn)
        chosen.check()
        if isinstance(chosen, PPOConfig):
            assert chosen.batch_size == chosen.rollout_steps * n_envs // drawn["minibatches"]
    for name, each in ends.items():
        for value in each:
            chosen_config(config, {**{other: many[0] for other, many in ends.items()}, name: value}).check()


def test_what_is_fixed_is_not_searched():
    config = PPOConfig(env="CartPole-v1", bptt_steps=64)
    assert search_space(config)["n_steps"] == Choice((64, 128, 256))
    space = search_space(config, ("n_steps", "batch_size", "gamma"))
    assert not space.keys() & {"n_steps", "minibatches", "batch_size", "gamma"}
    with pytest.raises(ValueError, match="Nothing is left to search"):
        search_space(config, tuple(search.SPACES["ppo"]))
    words = ["--gamma=0.5", "--n_steps", "8", "--no-normalize-advantage", "--core.hidden-size", "8"]
    assert _given(words) == {"gamma", "n_steps", "normalize_advantage", "core.hidden_size"}


def test_numbers_are_rounded_and_the_first_trial_has_the_settings_of_the_program():
    config = PPOConfig(env="CartPole-v1", ent_coef=0.5, n_steps=32)
    drawn = drawn_from(config, search_space(config))
    assert "ent_coef" not in drawn, "it lies outside"
    for name in ("gamma", "n_steps", "learning_rate", "normalize"):
        assert drawn[name] == getattr(config, name)
    assert chosen_config(config, {"learning_rate": 0.00123456}).learning_rate == 0.00123


def test_a_trial_learns_as_the_program_does(run_script, tmp_path, monkeypatch):  # noqa: F811
    seen: list[Any] = []
    monkeypatch.setattr(search, "final_reward", lambda episodes, *_: seen.extend(episodes) or 0.0)
    config = PPOConfig(**{**TINY, "timesteps": 512}, ent_coef_end=0.01, schedule="linear")
    train_trial(config)
    words = [*WORDS[:-1], "512", "--ent-coef-end", "0.01", "--schedule", "linear", "--log-every", "1"]
    run_script("train_ppo", *words, "--log-dir", tmp_path / "run", "--quiet", "--no-tensorboard")
    curve = read_curve(tmp_path / "run" / "progress.csv")
    for steps, count, reward in zip(
        curve["timesteps"], np.diff([0, *curve["episodes"]]), curve["reward"], strict=True
    ):
        mine = [each for step, each in seen if steps - 32 < step <= steps]
        assert len(mine) == count
        if mine:
            assert np.mean(mine) == pytest.approx(reward)
    assert len(seen) > 10


@pytest.mark.parametrize("kind", [A2C_AGENT, PPO_AGENT], ids=lambda kind: kind.name)
def test_a_search_and_what_it_leaves(kind, run_script, tmp_path):  # noqa: F811
    out = tmp_path / "search"
    words = [*WORDS, "--algorithm", kind.name, "--vf-coef", "0.25", "--out", out]
    status, said, _ = run_script("tune", *words, "--trials", "3")
    assert status == 0
    assert said.count("\ntrial ") == 3
    assert "The best is trial" in said
    trials = read_trials(out / "trials.csv")
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert {trial.state for trial in trials} == {"complete"}
    assert {(trial.entry["vf_coef"], trial.entry["n_steps"]) for trial in trials} == {(0.25, 16)}
    assert (
        len({trial.entry["gae_lambda"] for trial in trials} | {trial.entry["gamma"] for trial in trials}) > 2
    )
    assert all(trial.numbers["value"] == trial.numbers["final"] > 0 for trial in trials)
    assert read_search(out)["algorithm"] == kind.name
    assert searched_config(out).env == "CartPole-v1"

    best = best_trial(trials)
    assert best is not None
    assert best.numbers["value"] == max(trial.numbers["value"] for trial in trials)
    written = yaml.safe_load((out / "best.yml").read_text())
    assert written == best_entry("CartPole-v1", trials) == {"CartPole-v1/lstm": best.entry}
    # The entry makes the very trial again.
    config = config_for(kind, "CartPole-v1", "lstm", str(out / "best.yml"))
    again = train_trial(config)
    assert (again.final, again.area) == (best.numbers["final"], best.numbers["area"])


def test_a_search_goes_on_as_if_it_had_not_been_stopped(tmp_path):
    plan = tiny_plan()
    whole = searched(tmp_path / "whole", plan, 11)
    assert len(without_times(whole)) == 11
    searched(tmp_path / "parts", plan, 1)
    asked = 0

    def stop_in_the_middle() -> bool:
        nonlocal asked
        asked += 1
        return asked > 21  # of about five rollouts a trial

    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "parts", plan, 11, is_stopped=stop_in_the_middle)
    before = read_trials(tmp_path / "parts" / "trials.csv")
    assert 2 < len(before) < 9
    # As if the process had been killed while it wrote.
    with (tmp_path / "parts" / "study.log").open("a") as file:
        file.write('{"op_code":4,"wor')
    (tmp_path / "parts" / "study.log.lock").symlink_to("study.log")
    (tmp_path / "parts" / "trials.csv").unlink()
    told: list[Trial] = []
    parts = searched(tmp_path / "parts", plan, 11, tell=told.append)
    assert len(told) == 11 - len(before)
    assert without_times(parts) == without_times(whole)
    assert without_times(read_trials(tmp_path / "parts" / "trials.csv")) == without_times(whole)
    # The eight first are drawn at random, all different; the others look at what was found.
    assert len({json.dumps(trial.entry, sort_keys=True) for trial in whole}) == 11
    assert len(searched(tmp_path / "parts", plan, 4)) == 11, "no trial is taken away"


def test_another_seed_draws_other_trials(tmp_path):
    first = searched(tmp_path / "first", tiny_plan(), 3)
    config = dataclasses.replace(tiny_plan().config, seed=1)
    second = searched(tmp_path / "second", Plan(config, ("n_steps",)), 3)
    assert first[0].entry == second[0].entry
    assert first[1].entry != second[1].entry != first[2].entry


def test_a_trial_that_fails_is_no_end(tmp_path, monkeypatch):
    made = itertools.count()

    def learn(self: Any, *_: Any, **__: Any) -> None:
        if (number := next(made)) in (1, 2):
            raise (NonFiniteError("The loss was not\nfinite."), ValueError("Expected NaN"))[number - 1]
        real(self, *_, **__)

    from mnm_rl.agents import RecurrentPPO

    real = RecurrentPPO.learn
    monkeypatch.setattr(RecurrentPPO, "learn", learn)
    trials = searched(tmp_path / "search", tiny_plan(), 4)
    assert [trial.state for trial in trials] == ["complete", "failed", "failed", "complete"]
    assert [trial.reason for trial in trials] == ["", "The loss was not finite.", "Expected NaN", ""]
    assert math.isnan(trials[1].numbers["value"])
    assert without_times(read_trials(tmp_path / "search" / "trials.csv"))[3] == without_times(trials)[3]
    monkeypatch.undo()
    assert len(searched(tmp_path / "search", tiny_plan(), 5)) == 5


def test_where_no_episode_ends_nothing_can_be_judged(tmp_path):
    config = PPOConfig(**{**TINY, "env": "Pendulum-v1"})
    with pytest.raises(FailedTrial, match="No episode ended in 128 timesteps"):
        train_trial(config)
    trials = searched(tmp_path / "search", Plan(config), 2)
    assert best_trial(trials) is None
    assert not (tmp_path / "search" / "best.yml").exists()


def test_trials_below_the_median_are_ended_where_this_is_wanted(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "PRUNE_AFTER_TRIALS", 1)
    monkeypatch.setattr(study, "PRUNE_AFTER_PARTS", 2)
    rewards = iter([9.0, 1.0])

    def trial(config: Any, is_stopped: Any, report: Any) -> search.Result:
        reward = next(rewards)
        for part in range(1, 6):
            if report(part, reward):
                raise StoppedTrial
        return search.Result(reward, reward, 1, 1.0, 1.0)

    monkeypatch.setattr(rl_study, "train_trial", trial)
    trials = searched(tmp_path / "search", tiny_plan(prune=True), 2)
    assert [each.state for each in trials] == ["complete", "pruned"]
    rewards = iter([9.0, 1.0])
    trials = searched(tmp_path / "other", tiny_plan(), 2)
    assert [each.state for each in trials] == ["complete", "complete"]


def test_the_objective_is_the_one_that_is_chosen(tmp_path, monkeypatch):
    results = [(3.0, 1.0), (1.0, 2.0)]
    made = iter(results * 2)
    monkeypatch.setattr(rl_study, "train_trial", lambda *_: search.Result(*next(made), 1, 1.0, 1.0))
    for objective, best in (("final", 0), ("area", 1)):
        trials = searched(tmp_path / objective, tiny_plan(objective=objective), 2)
        found = best_trial(trials)
        assert found is not None
        assert found.number == best
        assert f"by {objective} reward" in (tmp_path / objective / "best.yml").read_text()


def test_progress_is_reported_in_parts(monkeypatch):
    parts: list[int] = []

    def report(part: int, reward: float) -> bool:
        parts.append(part)
        return part > 12

    with pytest.raises(StoppedTrial):
        train_trial(PPOConfig(**{**TINY, "timesteps": 640}), report=report)
    assert parts == sorted(set(parts))
    assert max(parts[:-1]) <= 12 < parts[-1] <= search.BINS
    assert len(parts) > 5


def test_the_table_keeps_every_value(tmp_path):
    entry = {
        "policy_kwargs": {"core": "mnm-p", "core_kwargs": {"memory_widths": [8, 8]}, "net_arch": []},
        "learning_rate": "lin_0.001",
        "gamma": 0.1 + 0.2,
        "drop_observations": "2",
        "env_kwargs": {"a": "b,c"},
        "flag": False,
    }
    numbers = {name: 1 / 3 for name in NUMBERS}
    nothing = {name: math.nan for name in NUMBERS}
    trials = [
        Trial(0, "complete", numbers, "", entry),
        Trial(1, "failed", nothing, 'a "reason", of\nlines', {"policy_kwargs": {"core": "x"}, "extra": [1]}),
    ]
    write_trials(tmp_path / "trials.csv", trials)
    first, second = read_trials(tmp_path / "trials.csv")
    assert first == trials[0]
    assert (second.reason, second.entry, second.state) == (trials[1].reason, trials[1].entry, "failed")
    assert best_entry("A-v0", [first, second]) == {"A-v0": entry}
    for text in ("number\nx\n", "a,b\n1,2\n"):
        (tmp_path / "trials.csv").write_text(text)
        with pytest.raises(ValueError, match="are damaged"):
            read_trials(tmp_path / "trials.csv")
    with pytest.raises(ValueError, match="cannot be read"):
        read_trials(tmp_path / "nothing.csv")


def test_a_signal_saves_and_the_same_command_goes_on(tmp_path):
    out = tmp_path / "search"
    command = [sys.executable, str(SCRIPT), *WORDS[:-1], "2000", "--trials", "200", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        deadline = time.monotonic() + 120
        while not (out / "trials.csv").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        said = process.stdout.read()
    assert process.returncode == 130
    count = len(read_trials(out / "trials.csv"))
    assert 1 <= count < 200
    assert f"Stopped after {count} more trials. The same command goes on." in said
    assert not list(out.glob(".*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trials", "0"], "trials must be at least 1, got 0"),
        (["--algorithm", "dqn"], "Invalid choice 'dqn'"),
        (["--algorithm"], "--algorithm needs a value"),
        (["--objective", "best"], "Invalid choice 'best'"),
        (["--log-every", "5"], "log_every is an option of a single run, not of a search"),
        (["--algorithm", "a2c", "--n-epochs", "5"], "There is no option --n-epochs"),
        (["--env", "Nothing-v0"], "The environment 'Nothing-v0' cannot be made"),
        (["--core", "lstn"], "Unknown core 'lstn'"),
        (["--hidden-size", "0"], "hidden_size must be at least 1"),
        (["--gamma", "2"], "gamma must be between 0 and 1"),
        (["--batch-size", "7"], "batch_size"),
        (["--threads", "0"], "threads must be"),
        (["--out", "file"], "not an empty folder"),
        (["--out", "full"], "not an empty folder"),
        (["--out", ""], "is empty"),
        (["--preset", "soonest"], "There is no option --preset"),
    ],
)
def test_bad_options_get_one_sentence_and_leave_nothing_behind(
    run_script,  # noqa: F811
    tmp_path,
    monkeypatch,
    words,
    message,
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    before = sorted(tmp_path.rglob("*"))
    given = {word for word in words if word.startswith("--")}
    rest = [
        word for pair in zip(WORDS[::2], WORDS[1::2], strict=True) if pair[0] not in given for word in pair
    ]
    status, out, err = run_script("tune", *rest, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert sorted(tmp_path.rglob("*")) == before


def test_another_search_is_not_mixed_in(run_script, tmp_path):  # noqa: F811
    out = ["--out", tmp_path / "search", "--quiet"]
    assert run_script("tune", *WORDS, *out, "--trials", "1") == (0, "", "")
    for words, message in (
        (["--gamma", "0.5"], "gamma"),
        (["--objective", "area"], "objective final, not area"),
        (["--algorithm", "a2c"], "algorithm ppo, not a2c"),
        (["--seed", "4"], "seed 0, not 4"),
    ):
        status, _, err = run_script("tune", *WORDS, *out, "--trials", "2", *words)
        assert (status, err.count("\n")) == (2, 1)
        assert message in err
    (tmp_path / "search" / "study.log").write_text("nonsense\nnonsense\n")
    status, _, err = run_script("tune", *WORDS, *out, "--trials", "2")
    assert (status, err.count("\n")) == (2, 1)
    assert "study.log is damaged" in err
    (tmp_path / "search" / "search.json").write_text("[]")
    status, _, err = run_script("tune", *WORDS, *out, "--trials", "2")
    assert (status, err.count("\n")) == (2, 1)
    assert "search.json is not of a search" in err


def test_without_optuna_one_sentence_says_how_to_get_it(run_script, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sys.modules, "optuna", None)
    status, _, err = run_script("tune", *WORDS, "--out", tmp_path / "search")
    assert (status, err.count("\n")) == (2, 1)
    assert "pip install 'mnm-rl[tune]'" in err
    assert not (tmp_path / "search").exists()


def test_the_best_trial_is_an_entry_that_the_programs_take(tmp_path):
    searched(tmp_path / "search", tiny_plan(), 1)
    entry = find_entry(PPO_AGENT, "CartPole-v1", "lstm", str(tmp_path / "search" / "best.yml"))
    assert entry is not None
    assert entry.settings["core_settings"] == {"hidden_size": 4}
    assert isinstance(search_space(A2CConfig(env="CartPole-v1"))["ent_coef"], Range)

"""The comparison of cores: trials, equal numbers of parameters, scores and intervals, tables, figures."""

import importlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stable_baselines3.common.vec_env import VecNormalize

from mnm_rl.envs import popgym_games
from mnm_rl.reproduction.collect import collect
from mnm_rl.reproduction.rl import contrib, experiment, scores
from mnm_rl.reproduction.rl.contrib import read_settings
from mnm_rl.reproduction.rl.cores import CONTENDERS, Contender, are_equal, count_parameters, matching_width
from mnm_rl.reproduction.rl.environments import CONTRIB_ENVIRONMENTS, ENVIRONMENTS
from mnm_rl.reproduction.rl.experiment import (
    BOTH,
    PARAMETERS,
    WIDTH,
    is_searched,
    make_comparison,
    settings_of,
)
from mnm_rl.reproduction.rl.figures import draw_curves, draw_intervals
from mnm_rl.reproduction.rl.scores import (
    aggregated,
    best_score,
    bootstrapped,
    comparison_tables,
    final_score,
    grouped,
    interquartile_mean,
    rewards,
    time_table,
)
from mnm_rl.reproduction.trials import is_trained, start_command
from mnm_rl.training.folder import PPO_AGENT
from mnm_rl.training.options import flat
from mnm_rl.training.rl.config import PPOConfig, config_to_dict
from mnm_rl.training.rl.settings_files import find_entry

MAZE, SMALL_MAZE = "MNMMaze-9x9", "MNMMaze-5x5"


@pytest.fixture
def jobs_of(tmp_path):
    """The jobs of a part of the comparison in a temporary folder."""
    script = importlib.import_module("mnm_rl.commands.reproduce")
    return lambda *arguments: script._jobs(make_comparison(*arguments), tmp_path / "rl")


def write_run(job, rows: Sequence[tuple[float, float, float, float]]) -> None:
    """A run with timesteps, seconds, episodes so far and mean rewards."""
    job.folder.mkdir(parents=True)
    document = {"kind": job.program.kind.name, "config": {**job.given, "timesteps": job.trial.length}}
    (job.folder / "config.json").write_text(json.dumps(document))
    lines = [",".join(map(str, (number, *row))) for number, row in enumerate(rows, 1)]
    head = "updates,timesteps,seconds,episodes,reward"
    (job.folder / "progress.csv").write_text("\n".join([head, *lines]) + "\n")


def test_every_core_runs_at_equal_width_and_at_equal_parameters():
    trials = make_comparison("laptop", 2, [SMALL_MAZE]).trials
    found = {
        (trial.core, trial.variant): trial.settings["core_settings"]["hidden_size"]
        for trial in trials
        if trial.seed == 0
    }
    assert found.keys() == {
        ("mnm-p", BOTH),
        *(
            (core, variant)
            for core in ("mnm-g", "lstm", "gru", "fwm", "delta-net")
            for variant in (WIDTH, PARAMETERS)
        ),
    }
    assert {width for (_, variant), width in found.items() if variant != PARAMETERS} == {64}
    sizes = {
        trial.name: count_parameters({**trial.settings, "core": trial.core})
        for trial in trials
        if trial.variant != WIDTH
    }
    wanted = sizes[f"{SMALL_MAZE}-mnm-p-both-seed0"]
    assert all(abs(size - wanted) <= 0.02 * wanted for size in sizes.values())
    assert len({trial.name for trial in trials}) == len(trials) == 22
    assert [trial.seed for trial in trials] == [0] * 11 + [1] * 11


def test_a_core_has_the_settings_that_were_searched_for_it(monkeypatch):
    trials = make_comparison("laptop", 1, ["PendulumNoVel", "MNMMaze-5x5"], ["lstm", "gru"]).trials
    for trial in trials:
        entry = find_entry(PPO_AGENT, str(trial.settings["env"]), trial.core)
        assert is_searched(trial) == (entry is not None) == (trial.panel == "PendulumNoVel")
        if entry is not None:
            rest = {"core", "core_settings", "timesteps"}
            wanted = {name: value for name, value in entry.settings.items() if name not in rest}
            assert {name: trial.settings[name] for name in wanted} == wanted
            assert trial.length == 100_000
    assert ENVIRONMENTS["PendulumNoVel"].settings["gamma"] != trials[0].settings["gamma"], "of all alike"
    rates = {trial.core: trial.settings.get("learning_rate") for trial in trials[:4]}
    assert len(set(rates.values())) == 2, "each has its own"
    monkeypatch.setitem(CONTENDERS, "mnm-p-gated", CONTENDERS["mnm-p"])
    monkeypatch.setattr(experiment, "CORES", (*experiment.CORES, "mnm-p-gated"))
    again = make_comparison("laptop", 1, ["PendulumNoVel"]).trials
    assert {trial.name: trial for trial in trials if trial.panel == "PendulumNoVel"}.items() <= {
        trial.name: trial for trial in again
    }.items(), "a further core, not searched yet, changes nothing for the others"
    assert {is_searched(trial) for trial in again if trial.core == "mnm-p-gated"} == {False}
    assert not any(map(is_searched, make_comparison("smoke", 1, ["PendulumNoVel"]).trials))


@pytest.mark.skipif(importlib.util.find_spec("sb3_contrib") is None, reason="sb3-contrib is not installed")
def test_the_other_library_learns_by_the_same_schedule_in_the_same_environment(tmp_path, monkeypatch):
    seen: list[Any] = []
    learn = contrib.make_contrib

    def noted(config, env):
        seen.append((env, learn(config, env)))
        return seen[0][1]

    monkeypatch.setattr(contrib, "make_contrib", noted)
    settings = {"env": "CartPoleNoVel-v1", "core": "lstm", "n_steps": 8, "n_envs": 2, "n_epochs": 1}
    contrib.main(contrib.Args(json.dumps(settings), 64, str(tmp_path / "run")))
    env, agent = seen[0]
    assert isinstance(env, VecNormalize)
    assert PPOConfig.defaults.others["schedule"] == "linear"
    assert agent.lr_schedule(0.5) == PPOConfig.defaults.others["learning_rate"] / 2


def test_a_core_with_about_as_many_parameters_runs_once():
    trials = make_comparison("laptop", 1, ["MemoryS7"], ["mnm-p", "mnm-g"]).trials
    assert [(trial.core, trial.variant) for trial in trials] == [("mnm-p", BOTH), ("mnm-g", BOTH)]


def test_matching_width():
    core = Contender(width=8)
    assert matching_width(core, 10_000, lambda width: width**2) == 100
    assert matching_width(core, 9_901, lambda width: width**2) == 100
    assert matching_width(core, 9_700, lambda width: width**2) == 98
    assert matching_width(core, 4, lambda width: width**2) == 2
    with pytest.raises(ValueError, match="No hidden_size gives 3,000 parameters: 3 has 3,200"):
        matching_width(core, 3_000, lambda width: width * 1_000 + 200)
    assert are_equal(102, 100)
    assert not are_equal(103, 100)


def test_commands_say_what_the_trials_are(jobs_of, monkeypatch):
    module = importlib.import_module("mnm_rl.commands.train_ppo")
    for job in jobs_of("paper", 1, [MAZE, "MemoryS7"]):
        arguments = start_command(job)[len(job.program.command) :]
        if job.program.kind.name == "ppo":
            monkeypatch.setattr(sys, "argv", ["train-ppo", *arguments])
            config = module._parse().run
        else:
            assert arguments[::2] == ["--config", "--timesteps", "--log-dir"]
            config = read_settings(arguments[1], int(arguments[3]))
        config.check()
        length = {"timesteps": job.trial.length, "episodes": None}
        assert flat(config_to_dict(config)) == {**job.settings, **length}


@pytest.mark.parametrize("scale", ["smoke", "laptop", "paper"])
@pytest.mark.parametrize("name", list(ENVIRONMENTS))
def test_every_environment_has_settings_that_are_allowed(name, scale):
    config = PPOConfig(**settings_of(ENVIRONMENTS[name], scale))
    config.check()


def test_the_table_of_environments():
    assert set(CONTRIB_ENVIRONMENTS) <= ENVIRONMENTS.keys()
    for name, row in ENVIRONMENTS.items():
        assert name == row.name
        assert row.low < row.high
        assert row.timesteps <= row.paper_timesteps
        assert all(row.low <= mark.score <= row.high for mark in row.published)
        settings = settings_of(row, "laptop")
        assert not settings.keys() & {"core", "core_settings", "seed", "timesteps"}, "not of one core alone"
        assert row.timesteps > settings.get("n_steps", 200) * 16 * 10, "a tenth has an update in it"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("huge",), "Unknown scale 'huge'; known: smoke, laptop, paper."),
        (("smoke", 0), "seeds must be from 1 to 1000, got 0."),
        (("smoke", 1, ["Pong"]), "Unknown environment 'Pong'; known: CartPoleNoVel, "),
        (
            ("smoke", 1, [MAZE], ["rnn"]),
            "Unknown core 'rnn'; known: mnm-p, mnm-g, lstm, gru, fwm, delta-net, sb3-contrib.",
        ),
        (("smoke", 1, [MAZE], ["sb3-contrib"]), "sb3-contrib runs in CartPoleNoVel, RepeatPreviousEasy, "),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make_comparison(*arguments)


def test_without_popgym_it_is_one_sentence(monkeypatch):
    monkeypatch.setattr(popgym_games, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs popgym: pip install 'mnm-rl\[rl\]'\.$"):
        make_comparison("smoke", 1, ["CountRecallEasy"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"core": "gru"}, "sb3-contrib has the core lstm alone"),
        ({"core": "lstm", "n_steps": 64, "bptt_steps": 16}, "no bptt_steps"),
        ({"core": "lstm", "ent_coef_end": 0.0}, "or ent_coef_end"),
    ],
)
def test_settings_that_the_other_library_lacks(config, message):
    with pytest.raises(ValueError, match=message):
        read_settings(json.dumps({"env": SMALL_MAZE, **config}), 100)


def test_scores_weigh_episodes_not_rows(jobs_of):
    job = jobs_of("laptop", 1, [MAZE], ["lstm"])[0]
    end = job.trial.length
    rows = [
        (0.5 * end, 50, 10, 3.0),
        (0.85 * end, 85, 20, 9.0),
        (0.9 * end, 90, 20, float("nan")),
        (0.95 * end, 95, 21, 4.0),
        (end, 100, 24, 8.0),
    ]
    write_run(job, rows)
    (run,) = collect([job])
    assert run.trained
    assert final_score(run) == pytest.approx((4 + 3 * 8) / 4)
    assert best_score(run) == pytest.approx(9)
    at = rewards(run, np.array([0.4 * end, 0.5 * end, 0.9 * end, 0.99 * end, 1.1 * end]), 0.1 * end)
    np.testing.assert_allclose(at, [np.nan, 3, 9, 4, np.nan])
    np.testing.assert_allclose(rewards(run, np.array([90.0]), 10, "seconds"), [9])
    assert scores.steps_per_second(run) == pytest.approx(end / 100)
    assert scores.hours(run) == pytest.approx(100 / 3600)


def test_a_run_that_has_gone_on_counts_as_far_as_the_others(jobs_of):
    job = jobs_of("laptop", 1, [MAZE], ["lstm"])[0]
    end = job.trial.length
    write_run(job, [(0.9 * end, 90, 20, 3.0), (1.001 * end, 100, 24, 8.0), (2 * end, 300, 90, 99.0)])
    (run,) = collect([job])
    assert final_score(run) == best_score(run) == pytest.approx(8)
    assert scores.last(run, "timesteps") == pytest.approx(1.001 * end)
    assert scores.hours(run) == pytest.approx(100 / 3600)
    assert np.isnan(rewards(run, np.array([1.5 * end]), end)).all()


def test_interquartile_mean_and_interval():
    assert interquartile_mean(np.array([0.0, 1.0, 2.0, 100.0])) == 1.5
    assert interquartile_mean(np.array([3.0, 1.0, 5.0])) == 3
    values = np.random.default_rng(0).normal([0, 10, 20], size=(5, 3))
    found = bootstrapped(values)
    assert found.low < found.mean < found.high
    assert bootstrapped(values) == found, "the same every time"
    # Drawn apart in each environment, the differences between environments do not widen the interval.
    assert found.high - found.low < 3
    assert bootstrapped(np.full((3, 2), 7.0)) == (7, 7, 7)


def test_the_interval_is_rliables():
    try:
        library = importlib.import_module("rliable.library")
    except (ImportError, TypeError) as error:  # its arch 7 cannot be imported beside pandas 3
        pytest.skip(f"rliable cannot be imported: {error}")
    metrics = importlib.import_module("rliable.metrics")
    values = np.random.default_rng(1).normal(size=(6, 4)) * [1, 2, 3, 4]
    means, intervals = library.get_interval_estimates(
        {"": values}, lambda each: np.array([metrics.aggregate_iqm(each)]), reps=5000
    )
    found = bootstrapped(values)
    assert found.mean == pytest.approx(means[""][0], abs=1e-12)
    np.testing.assert_allclose(found[1:], intervals[""].ravel(), atol=0.1)


def make_runs(jobs, value) -> list:
    for job in jobs:
        end = job.trial.length
        rows = [(end * tenth / 10, tenth, tenth, value(job) * tenth / 10) for tenth in range(1, 11)]
        write_run(job, rows)
    assert all(map(is_trained, jobs))
    return collect(jobs)


def test_means_over_environments(jobs_of):
    jobs = jobs_of("laptop", 2, [SMALL_MAZE, MAZE], ["mnm-p", "lstm"])
    highs = {name: ENVIRONMENTS[name].high for name in (SMALL_MAZE, MAZE)}
    values = {"mnm-p": 0.6, "lstm": 0.4}
    runs = make_runs(
        jobs, lambda job: highs[job.trial.panel] * (values[job.trial.core] + 0.1 * job.trial.seed)
    )
    whole = aggregated(grouped(runs), WIDTH)
    assert {core: (environments, seeds) for core, (_, environments, seeds) in whole.items()} == {
        "mnm-p": (2, 2),
        "lstm": (2, 2),
    }
    assert whole["mnm-p"][0].mean == pytest.approx(0.65)
    assert whole["lstm"][0].mean == pytest.approx(0.45)
    assert aggregated(grouped(runs), PARAMETERS)["mnm-p"][0].mean == pytest.approx(0.65)
    # Where one core lacks an environment, it counts for nobody.
    fewer = [run for run in runs if (run.trial.panel, run.trial.core) != (MAZE, "lstm")]
    assert aggregated(grouped(fewer), WIDTH)["mnm-p"][1] == 1
    assert aggregated(grouped(fewer[:0]), WIDTH) == {}


def test_tables_and_figures(jobs_of, tmp_path):
    jobs = jobs_of("laptop", 3, [SMALL_MAZE, MAZE], ["mnm-p", "lstm"])
    runs = make_runs(jobs, lambda job: 100.0 + job.trial.seed)
    table, aggregate, each = comparison_tables(runs)
    assert table.rows[0][:9] == [
        *(SMALL_MAZE, "MNM-p", "width and parameters", table.rows[0][3], "shared", "3", "1,000,000"),
        *("101", "100 to 102"),
    ]
    assert [row[2] for row in table.rows[1:3]] == ["width", "parameters"]
    assert table.rows[0][-2:] == ["100,000", "0.00"]
    assert len(aggregate.rows) == 4
    assert len(each.rows) == len(runs) == 18
    for number, draw in enumerate((draw_curves, draw_intervals)):
        draw(runs, tmp_path / f"{number}.png")
        assert Image.open(tmp_path / f"{number}.png").width > 900


@pytest.mark.skipif(importlib.util.find_spec("sb3_contrib") is None, reason="sb3-contrib is not installed")
def test_equal_time(jobs_of):
    jobs = jobs_of("laptop", 1, ["MemoryS7"], ["lstm", "sb3-contrib"])
    for job in jobs:
        end, pace = job.trial.length, 20 if job.trial.variant == "sb3-contrib" else 5
        rows = [(end * tenth / 10, tenth * pace, tenth, tenth / 10) for tenth in range(1, 11)]
        write_run(job, rows)
    rows = time_table(grouped(collect(jobs))).rows
    assert [row[1] for row in rows] == ["LSTM", "LSTM, equal parameters", "sb3-contrib, LSTM"]
    assert [row[2] for row in rows] == ["1", "1", "1"]
    assert [row[4] for row in rows] == ["1", "1", ""], "of 50 seconds, the last five have no episode"
    assert {row[6] for row in rows} == {"50"}


def test_a_core_is_a_line():
    assert all(isinstance(contender, Contender) for contender in CONTENDERS.values())
    for core, contender in CONTENDERS.items():
        assert count_parameters({"env": SMALL_MAZE, "core": core, "core_settings": contender.at(8)}) > 0

"""Settings that are not given: one table per algorithm, for the maze and for other environments."""

import dataclasses
import json
import sys
from typing import Any

import pytest
from test_scripts_a2c import run_script  # noqa: F401 - a fixture

from mnm_rl.commands import train_ppo
from mnm_rl.cores import default_config
from mnm_rl.training.folder import A2C_AGENT, PPO_AGENT
from mnm_rl.training.rl.config import LATER, A2CConfig, PPOConfig, config_from_dict, config_to_dict
from mnm_rl.training.rl.defaults import Defaults

CLASSES = pytest.mark.parametrize("config_class", [A2CConfig, PPOConfig])


@CLASSES
@pytest.mark.parametrize("env", ["MNMMaze-9x9", "MNMMaze-9x9-v0", "CartPole-v1"])
def test_every_value_of_the_table_is_the_runs(config_class, env):
    config = config_class(env=env)
    table = config_class.defaults.of(env.startswith("MNMMaze"))
    assert len(table) > 10
    for name, value in table.items():
        assert config.default(name) == value
        assert getattr(config, name) == (None if name in LATER else value)
        assert getattr(config_class(env=env, **{name: value}), name) == value, "what is given stays"
    config.check()
    saved = config_to_dict(config)
    assert {name: saved[name] for name in table if name != "watch_every"} == {
        name: value for name, value in table.items() if name != "watch_every"
    }
    assert saved["n_steps"] == config.rollout_steps


@CLASSES
def test_both_tables_have_the_same_fields_and_they_are_the_runs(config_class):
    defaults, fields = config_class.defaults, {each.name for each in dataclasses.fields(config_class)}
    assert defaults.maze.keys() ^ defaults.others.keys() == {"episodes", "timesteps", "n_steps"}
    assert defaults.maze.keys() | defaults.others.keys() <= fields


def test_another_default_is_the_runs_and_the_help_tells_both(monkeypatch, capsys):
    others = {**PPOConfig.defaults.others, "ent_coef": 0.25, "n_steps": 32, "learning_rate": 1e-3}
    changed = Defaults({**PPOConfig.defaults.maze, "learning_rate": 1e-3}, others)
    monkeypatch.setattr(PPOConfig, "defaults", changed)
    assert (PPOConfig(env="CartPole-v1").ent_coef, PPOConfig().ent_coef) == (0.25, 0.01)
    assert changed.told("ent_coef") == "If nothing is given, the maze: 0.01; others: 0.25."
    assert changed.told("n_steps") == "If nothing is given, the maze: its horizon; others: 32."
    assert changed.told("learning_rate") == changed.told("core") == ""
    monkeypatch.setattr(sys, "argv", ["train_ppo.py", "--env", "CartPole-v1", "--help"])
    with pytest.raises(SystemExit):
        train_ppo.run_from_command_line()
    help_text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    gamma = PPOConfig.defaults.others["gamma"]
    told = f"Discount per step. If nothing is given, the maze: 0.9; others: {gamma}. (default: {gamma})"
    assert told in help_text
    assert "the maze: no; others: yes. (default: True)" in help_text


@pytest.mark.parametrize(
    ("core", "sizes"),
    [
        ("mnm-p", {"hidden_size": 64, "key_size": 32, "value_size": 32, "memory_widths": (32, 32)}),
        ("lstm", {"hidden_size": 64}),
        ("lstm-salu", {"hidden_size": 64, "key_size": 32, "value_size": 32}),
    ],
)
def test_cores_are_smaller_outside_the_maze(core, sizes):
    own = dataclasses.asdict(default_config(core))
    found = PPOConfig(env="CartPole-v1", core=core).all_core_settings()
    assert found == {name: sizes.get(name, own[name]) for name in found}
    assert PPOConfig(core=core).all_core_settings() == {name: own[name] for name in found}
    given = PPOConfig(env="CartPole-v1", core=core, core_settings={"hidden_size": 7})
    assert given.all_core_settings() == {**found, "hidden_size": 7}


FORMER: dict[str, Any] = {
    "core": "mnm-p",
    "core_kwargs": "{}",
    "seed": 0,
    "vf_coef": 0.5,
    "checkpoint_minutes": 10.0,
    "hidden_size": None,
    "gamma": None,
    "n_steps": None,
    "bootstrap_time_limit": None,
    "episodes": None,
    "timesteps": None,
}


@pytest.mark.parametrize("kind", [A2C_AGENT, PPO_AGENT], ids=lambda kind: kind.name)
def test_what_was_not_given_in_a_former_run_is_what_it_was(kind, monkeypatch):
    for config_class in (A2CConfig, PPOConfig):  # whatever the defaults are by now
        table = {"gamma": 0.5, "n_steps": 7, "bootstrap_time_limit": False, "timesteps": 9, "episodes": 9}
        old = config_class.defaults
        monkeypatch.setattr(
            config_class,
            "defaults",
            Defaults({**old.maze, **table, "n_steps": None}, {**old.others, **table}),
        )
    other = config_from_dict({**FORMER, "env": "CartPole-v1"}, kind)
    assert (other.discount, other.rollout_steps, other.bootstraps) == (0.99, 128, True)
    assert other.total_timesteps == 500_000
    assert "normalize" not in FORMER
    assert other.normalize == "none"
    assert config_from_dict({**FORMER, "env": "CartPole-v1", "normalize": None}, kind).normalize == "none"
    assert other.all_core_settings()["hidden_size"] == 200
    maze = config_from_dict(FORMER, kind)
    assert (maze.discount, maze.rollout_steps, maze.bootstraps) == (0.9, 200, False)
    assert maze.total_timesteps == 60_000 * 200
    assert config_from_dict({"env": "CartPole-v1", "core": "lstm"}, kind).discount == 0.5
    assert config_from_dict({"env": "CartPole-v1", "core": "lstm"}, kind).all_core_settings() == {
        "hidden_size": 64,
        "forget_bias": None,
    }


def test_a_run_is_saved_with_values_and_goes_on_with_them(run_script, tmp_path, monkeypatch):  # noqa: F811
    words = [
        "--env",
        "CartPole-v1",
        "--core",
        "lstm",
        "--hidden-size",
        "4",
        "--n-envs",
        "2",
        "--timesteps",
        "256",
        "--quiet",
    ]
    run = tmp_path / "run"
    assert run_script("train_ppo", *words, "--no-tensorboard", "--log-dir", run)[0] == 0
    before = (run / "config.json").read_text()
    for name in ("gamma", "n_steps", "normalize"):
        assert f'"{name}": {json.dumps(PPOConfig.defaults.others[name])}' in before
    others = {**PPOConfig.defaults.others, "gamma": 0.5, "learning_rate": 0.5, "n_steps": 32}
    others["normalize"] = "none"
    monkeypatch.setattr(PPOConfig, "defaults", Defaults(PPOConfig.defaults.maze, others))
    assert run_script("train_ppo", "--resume", run, "--quiet", "--no-tensorboard")[0] == 0
    assert (run / "config.json").read_text() == before

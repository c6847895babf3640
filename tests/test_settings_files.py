"""Settings per environment from YAML: what is read from a file is what a run is made with."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from stable_baselines3.common.env_util import make_vec_env
from test_scripts_a2c import run_script  # noqa: F401 - a fixture

from mnm_rl.agents import RecurrentA2C, RecurrentPPO
from mnm_rl.cores import PairedCore
from mnm_rl.training.folder import A2C_AGENT, AGENTS, PPO_AGENT
from mnm_rl.training.rl.config import A2CConfig, PPOConfig, config_to_dict
from mnm_rl.training.rl.environments import is_maze
from mnm_rl.training.rl.settings_files import (
    DEFAULT_CORE,
    allowed_keys,
    config_for,
    entry_key,
    find_entry,
    package_file,
    read_entries,
    read_entry,
    write_entry,
)

ENTRY = {
    "n_timesteps": 5e4,
    "n_envs": 8,
    "n_steps": 32,
    "batch_size": 64,
    "policy": "MlpPolicy",
    "policy_kwargs": {
        "core": "lstm",
        "core_kwargs": {"hidden_size": 12},
        "optimizer_kwargs": {"eps": "1e-6"},
    },
    "learning_rate": "lin_2e-3",
    "gamma": 0.98,
    "clip_range": "1e-1",
    "entropy_kind": "entropy",
    "bootstrap_time_limit": False,
    "env_kwargs": {"sutton_barto_reward": True},
    "reward_scale": 0.5,
}


def file_with(tmp_path: Path, entries: Any) -> str:
    path = tmp_path / "mine.yml"
    path.write_text(entries if isinstance(entries, str) else yaml.safe_dump(entries))
    return str(path)


def test_an_entry_in_the_format_of_rl_zoo_is_a_run(tmp_path):
    config = config_for(PPO_AGENT, "CartPole-v1", source=file_with(tmp_path, {"CartPole-v1": ENTRY}))
    assert config == PPOConfig(
        env="CartPole-v1",
        core="lstm",
        core_settings={"hidden_size": 12},
        timesteps=50_000,
        n_envs=8,
        n_steps=32,
        batch_size=64,
        learning_rate=2e-3,
        schedule="linear",
        gamma=0.98,
        clip_range=0.1,
        adam_epsilon=1e-6,
        entropy_kind="entropy",
        bootstrap_time_limit=False,
        env_kwargs='{"sutton_barto_reward": true}',
        reward_scale=0.5,
    )


def test_texts_of_python_are_read_as_rl_zoo_has_them_and_nothing_is_run():
    entry = {
        "policy_kwargs": "dict(core='gru', core_kwargs=dict(hidden_size=9))",
        "env_kwargs": "{'sutton_barto_reward': True}",
    }
    with pytest.raises(
        ValueError, match=r"f, e: policy_kwargs must be settings by their names, such as dict"
    ):
        read_entry(entry, A2CConfig, "f, e")
    entry["policy_kwargs"] = "dict(core='gru', core_kwargs={'hidden_size': 9})"
    assert read_entry(entry, A2CConfig, "") == {
        "core": "gru",
        "core_settings": {"hidden_size": 9},
        "env_kwargs": '{"sutton_barto_reward": true}',
    }
    with pytest.raises(ValueError, match="policy_kwargs must be settings by their names"):
        read_entry({"policy_kwargs": "dict(core=__import__('os').getcwd())"}, A2CConfig, "")


@dataclass(frozen=True)
class Richer(PPOConfig):
    """With what other versions of the environments have."""

    normalize: Literal["none", "observations", "rewards", "both"] = "none"
    wrapper: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (True, "both"),
        (False, "none"),
        ({"norm_obs": True, "norm_reward": False}, "observations"),
        ("dict(norm_obs=False, norm_reward=True)", "rewards"),
        ("{'norm_obs': False}", "rewards"),
        ({"norm_obs": False, "norm_reward": False}, "none"),
    ],
)
def test_normalization_and_wrappers_where_a_run_has_them(value, word):
    read = read_entry({"normalize": value, "env_wrapper": "gymnasium.wrappers.ClipReward"}, Richer, "")
    assert read == {"normalize": word, "wrapper": ("gymnasium.wrappers.ClipReward",)}
    written = write_entry(Richer(env="CartPole-v1", core="lstm", **read))
    assert read_entry(written, Richer, "")["normalize"] == word
    assert written["env_wrapper"] == ["gymnasium.wrappers.ClipReward"]
    assert {"normalize", "env_wrapper"} <= set(allowed_keys(Richer))
    with pytest.raises(ValueError, match="normalize must be true, false, or norm_obs and norm_reward"):
        read_entry({"normalize": {"gamma": 0.9}}, Richer, "")
    with pytest.raises(ValueError, match="env_wrapper must be a class by its name"):
        read_entry({"env_wrapper": [{"a.B": {"c": 1}}]}, Richer, "")


@pytest.mark.parametrize(
    "config",
    [
        PPOConfig(
            env="CartPole-v1", core="lstm", core_settings={"hidden_size": 32}, bptt_steps=64, n_epochs=3
        ),
        PPOConfig(env="CartPole-v1", learning_rate=3e-4, schedule="linear", adam_epsilon=1e-7),
        A2CConfig(
            env="Pendulum-v1",
            core="mnm-g",
            core_settings={"memory_widths": (8, 8), "heads": 2},
            env_kwargs='{"g": 9.0}',
            reward_scale=0.1,
            ent_coef_end=0.0,
            drop_observations="2",
        ),
        A2CConfig(timesteps=4000),
        PPOConfig(
            env="CartPole-v1",
            core="lstm",
            core_layers=2,
            encoder=(8, 4),
            separate_critic=True,
            net_arch=(16,),
            normalize="rewards",
        ),
    ],
)
def test_what_is_written_for_a_run_is_read_as_the_run(config):
    again = read_entry(yaml.safe_load(yaml.safe_dump(write_entry(config))), type(config), "")
    rebuilt = type(config)(env=config.env, **again)
    written = {
        "n_steps": config.rollout_steps,
        "gamma": config.discount,
        "timesteps": config.total_timesteps,
        "bootstrap_time_limit": config.bootstraps,
    }
    assert config_to_dict(rebuilt) == config_to_dict(dataclasses.replace(config, **written))


OF_RL_ZOO = ("n_timesteps", "policy", "n_envs", "normalize", "env_wrapper", "env_kwargs")
"""What RL Zoo takes out of an entry before it gives the rest to the algorithm."""


def entries_of_the_package() -> list[tuple[Any, dict[str, Any]]]:
    written = write_entry(
        PPOConfig(env="CartPole-v1", core="lstm", core_layers=2, encoder=(8, 4), separate_critic=True)
    )
    found = [(RecurrentPPO, written)]
    for kind, algorithm in ((A2C_AGENT, RecurrentA2C), (PPO_AGENT, RecurrentPPO)):
        found += [(algorithm, entry) for entry in read_entries(package_file(kind)).values()]
    return found


@pytest.mark.parametrize(("algorithm", "entry"), entries_of_the_package())
def test_rl_zoo_can_give_an_entry_to_the_algorithm(algorithm, entry):
    arguments = {name: value for name, value in entry.items() if name not in OF_RL_ZOO}
    rate = arguments.pop("learning_rate")
    learning_rate = float(str(rate).removeprefix("lin_"))
    env = make_vec_env("CartPole-v1", entry["n_envs"])
    agent = algorithm(entry["policy"], env, learning_rate=learning_rate, device="cpu", **arguments)
    assert agent.policy.core_name == entry["policy_kwargs"]["core"]
    assert isinstance(agent.policy.core, PairedCore) == ("separate_critic" in entry["policy_kwargs"])


FILE = {
    "A-v0": {"gamma": 0.1, "policy_kwargs": {"core": "mnm-p"}},
    "A-v0/lstm": {"gamma": 0.2},
    "B-v0": {"gamma": 0.3},
    "B-v0/gru": {"gamma": 0.4},
    "C-v0": {"gamma": 0.5, "policy_kwargs": {"core": "gru"}},
    "D-v0/mnm-p": {"gamma": 0.6},
}


@pytest.mark.parametrize(
    ("env", "core", "found"),
    [
        ("A-v0", None, (0.1, "mnm-p")),
        ("A-v0", "mnm-p", (0.1, "mnm-p")),
        ("A-v0", "lstm", (0.2, "lstm")),
        ("A-v0", "gru", None),
        ("B-v0", None, (0.3, "mnm-p")),
        ("B-v0", "lstm", (0.3, "lstm")),
        ("B-v0", "gru", (0.4, "gru")),
        ("C-v0", None, (0.5, "gru")),
        ("C-v0", "lstm", None),
        ("D-v0", None, (0.6, "mnm-p")),
        ("module:D-v0", "mnm-p", (0.6, "mnm-p")),
        ("E-v0", None, None),
    ],
)
def test_which_entry_is_for_an_environment_and_a_core(env, core, found, tmp_path):
    path = file_with(tmp_path, FILE)
    if found is None:
        with pytest.raises(
            ValueError, match=rf"mine.yml has no settings of {env} for .*; it has .* A-v0/lstm"
        ):
            find_entry(A2C_AGENT, env, core, path)
        found = (0.7, core or "mnm-p")
        path = file_with(tmp_path, {**FILE, "default": {"gamma": 0.7}})
    entry = find_entry(A2C_AGENT, env, core, path)
    assert entry is not None
    assert (entry.settings["gamma"], entry.core) == found
    assert entry.settings["core"] == entry.core
    assert find_entry(A2C_AGENT, env, core, "none") is None


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"CartPole-v1": {"n_step": 5}}, "unknown setting 'n_step'; allowed are n_timesteps, policy"),
        ({"CartPole-v1": {"seed": 5}}, "unknown setting 'seed'"),
        ({"CartPole-v1": {5: 5}}, "unknown setting 5"),
        ({"CartPole-v1": {"gamma": "x"}}, "gamma must be a number"),
        ({"CartPole-v1": {"gamma": 2}}, "gamma must be between 0 and 1, got 2"),
        ({"CartPole-v1": {"n_steps": 1.5}}, "n_steps must be a whole number"),
        ({"CartPole-v1": {"n_envs": True}}, "n_envs must be a whole number"),
        ({"CartPole-v1": {"n_timesteps": "many"}}, "n_timesteps must be a whole number"),
        ({"CartPole-v1": {"learning_rate": "lin_x"}}, "learning_rate must be a number, or one after lin_"),
        ({"CartPole-v1": {"learning_rate": [1]}}, "learning_rate must be a number"),
        ({"CartPole-v1": {"clip_range": "lin_0.2"}}, "clip_range must be a number"),
        ({"CartPole-v1": {"batch_size": 100}}, "batch_size counts steps, and must hold whole sequences"),
        ({"CartPole-v1": {"policy": "MlpLstmPolicy"}}, "policy must be one of MlpPolicy"),
        ({"CartPole-v1": {"policy_kwargs": []}}, "policy_kwargs must be settings by their names"),
        (
            {"CartPole-v1": {"policy_kwargs": {"activation_fn": "x"}}},
            "unknown setting 'activation_fn'; allowed",
        ),
        ({"CartPole-v1": {"policy_kwargs": {"core": 5}}}, "the core in policy_kwargs must be a text, got 5"),
        ({"CartPole-v1": {"policy_kwargs": {"core": "lstn"}}}, "Unknown core 'lstn'"),
        ({"CartPole-v1": {"policy_kwargs": {"core_kwargs": {"speed": 1}}}}, "has no setting speed"),
        ({"CartPole-v1": {"policy_kwargs": {"optimizer_kwargs": {"lr": 1}}}}, "may have eps alone, got 'lr'"),
        ({"CartPole-v1/mnm-p": {"policy_kwargs": {"core": "gru"}}}, "the core must be mnm-p, as in its key"),
        ({"CartPole-v1": {"env_kwargs": "x y"}}, "env_kwargs must be settings by their names"),
        ({"CartPole-v1": 5}, "an entry must have settings by their names"),
        ({"CartPole-v1": None}, "an entry must have settings by their names"),
        ([1], "must have entries by ids of environments"),
        ("a: [", "are not YAML"),
        ("a: !!python/object:os.system {}", "are not YAML"),
        ("\0", "are not YAML"),
        ("CartPole-v1: {gamma: 0.9, gamma: 0.8}", "gamma is there twice in what begins at line 1"),
        ("CartPole-v1: {gamma: 0.9}\n\nCartPole-v1: {gamma: 0.9}", "CartPole-v1 is there twice"),
        ("a: {b: {c: {d: 1, d: 1}}}", "d is there twice"),
        ("3: {gamma: 0.9}", "the id of an environment must be a text, got 3"),
        ({"Pendulum-v1": {}}, "has no settings of CartPole-v1 for mnm-p; it has entries for: Pendulum-v1"),
        ("", "has no settings of CartPole-v1 for mnm-p; it has entries for: nothing"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_sentence_before_any_work(run_script, tmp_path, entries, message):  # noqa: F811
    path = file_with(tmp_path, entries)
    words = ["--env", "CartPole-v1", "--settings", path, "--log-dir", tmp_path / "run"]
    status, out, err = run_script("train_ppo", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert path in err
    if isinstance(entries, dict) and "CartPole-v1" in entries:
        assert f"{path}, CartPole-v1" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [".", "nothing.yml"])
def test_a_file_that_cannot_be_read(run_script, tmp_path, name):  # noqa: F811
    words = ["--settings", tmp_path / name, "--log-dir", tmp_path / "run"]
    status, out, err = run_script("train_a2c", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"The settings {tmp_path / name} cannot be read: " in err


TINY = {
    "n_timesteps": 64,
    "n_envs": 2,
    "n_steps": 16,
    "gamma": 0.9,
    "policy_kwargs": {"core": "lstm", "core_kwargs": {"hidden_size": 5}},
    "learning_rate": "lin_0.01",
}


@pytest.mark.parametrize("train", ["train_a2c", "train_ppo"])
def test_a_run_is_made_with_them_and_what_is_given_goes_before(train, run_script, tmp_path):  # noqa: F811
    path = file_with(tmp_path, {"CartPole-v1": TINY})
    words = ["--env", "CartPole-v1", "--settings", path, "--no-tensorboard"]
    status, out, _ = run_script(train, *words, "--gamma", "0.8", "--log-dir", tmp_path / "run")
    assert status == 0
    assert out.splitlines()[0] == (
        "Settings of CartPole-v1 for lstm from mine.yml; what is given on the command line goes before them, "
        "--settings none leaves them out."
    )
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    expected = {"timesteps": 64, "n_envs": 2, "n_steps": 16, "gamma": 0.8, "core": "lstm"}
    expected |= {
        "core_settings": {"hidden_size": 5, "forget_bias": None},
        "learning_rate": 0.01,
        "schedule": "linear",
    }
    assert {name: config[name] for name in expected} == expected
    Path(path).unlink()  # a run that goes on needs the file no more
    assert run_script(train, "--resume", tmp_path / "run", "--timesteps", "96", "--quiet")[0] == 0
    again = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert again == {**config, "timesteps": 96}
    refused = run_script(train, "--resume", tmp_path / "run", "--settings", "none")
    assert (refused[0], refused[2].count("\n")) == (2, 1)
    assert "leave out --settings or --resume" in refused[2]


def test_settings_of_the_package_are_picked_up_and_can_be_left_out(run_script, tmp_path, monkeypatch):  # noqa: F811
    path = file_with(tmp_path, {"CartPole-v1/lstm": {**TINY, "policy_kwargs": {"core": "lstm"}}})
    monkeypatch.setattr("mnm_rl.training.rl.settings_files.package_file", lambda kind: Path(path))
    sizes = ["--env", "CartPole-v1", "--hidden-size", "4", "--no-tensorboard", "--timesteps", "32"]
    for core, settings, gamma in (
        ("lstm", [], 0.9),
        ("lstm", ["--settings", "none"], PPOConfig.defaults.others["gamma"]),
        ("gru", [], PPOConfig.defaults.others["gamma"]),
    ):
        run = tmp_path / f"{core}-{len(settings)}"
        words = [*sizes, "--core", core, *settings, "--log-dir", run]
        status, out, _ = run_script("train_ppo", *words)
        assert status == 0
        assert ("Settings of CartPole-v1 for lstm" in out) == (gamma == 0.9)
        assert json.loads((run / "config.json").read_text())["config"]["gamma"] in (gamma, None)
    words = [*sizes, "--core", "lstm", "--quiet", "--log-dir", tmp_path / "quiet"]
    assert run_script("train_ppo", *words) == (0, "", "")


def test_a_preset_and_a_file_do_not_go_together(run_script, tmp_path):  # noqa: F811
    path = file_with(tmp_path, {"MNMMaze-9x9": {}})
    status, _, err = run_script("train_a2c", "--preset", "soonest", "--settings", path)
    assert (status, err.count("\n")) == (2, 1)
    assert "leave out --preset or --settings" in err


def test_episodes_on_the_command_line_go_before_the_timesteps_of_a_file(run_script, tmp_path):  # noqa: F811
    entry = {"n_timesteps": 5000, "policy_kwargs": {"core": "lstm", "core_kwargs": {"hidden_size": 4}}}
    path = file_with(tmp_path, {"MNMMaze-3x3": {**entry, "env_kwargs": {"horizon": 8}, "n_envs": 2}})
    words = ["--env", "MNMMaze-3x3", "--settings", path, "--episodes", "4", "--log-dir", tmp_path / "run"]
    assert run_script("train_a2c", *words, "--quiet", "--no-tensorboard")[0] == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (config["episodes"], config["timesteps"]) == (4, None)


@pytest.mark.parametrize(
    ("key", "env"),
    [
        ("MNMMaze-5x5", "MNMMaze-5x5-v0"),
        ("MNMMaze-5x5-v0", "MNMMaze-5x5"),
        ("MNMMaze-5x5-v0/lstm", "mnm_rl:MNMMaze-5x5"),
    ],
)
def test_an_entry_for_the_maze_is_found_by_either_id(tmp_path, key, env):
    path = file_with(tmp_path, {key: {"gamma": 0.7, "policy_kwargs": {"core": "lstm"}}})
    config = config_for(A2C_AGENT, env, "lstm", source=path)
    assert (config.env, config.gamma) == (env, 0.7)


@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.name)
def test_every_entry_of_the_package_is_one_that_its_program_can_use(kind):
    for key in read_entries(package_file(kind)):
        env, _, core = key.partition("/")
        entry = find_entry(kind, env, core or None)
        assert entry is not None
        assert entry.key == key == entry_key(env, entry.core)
        assert not is_maze(env)
        assert core or entry.core == DEFAULT_CORE, (
            "RL Zoo reads the entry without a core, and needs to be told"
        )


def test_the_files_are_in_the_wheel():
    import tomllib

    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["package-data"]["mnm_rl.training.rl"] == ["hyperparams/*.yml"]
    for kind in AGENTS:
        assert package_file(kind).exists()
        assert package_file(kind).parent.name == "hyperparams"

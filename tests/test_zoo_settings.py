"""The package's settings as entries of RL Zoo; RL Zoo itself is not needed here."""

import importlib.util
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from mnm_rl.agents import agent_settings
from mnm_rl.training.folder import A2C_AGENT, PPO_AGENT
from mnm_rl.training.rl.agent import ALGORITHMS, make_agent
from mnm_rl.training.rl.environments import make_env
from mnm_rl.training.rl.settings_files import config_for, package_file, read_entries
from mnm_rl.training.rl.zoo_settings import (
    OF_ZOO,
    SYMBOLIC,
    merged_policy_arguments,
    settings_of_draw,
    zoo_entry,
    zoo_space,
)
from mnm_rl.training.study import Choice

BOTH = pytest.mark.parametrize("kind", [A2C_AGENT, PPO_AGENT], ids=lambda kind: kind.name)
CHOSEN = [
    (A2C_AGENT, "CartPole-v1", "lstm"),
    (A2C_AGENT, "MNMMaze-3x3", "mnm-p"),
    (PPO_AGENT, "CartPoleNoVel-v1", "gru"),
    (PPO_AGENT, "PendulumNoVel-v1", "mnm-g"),
    (PPO_AGENT, "MNMMaze-3x3-v0", "lstm"),
]


@pytest.mark.parametrize(("kind", "env_id", "core"), CHOSEN)
def test_an_agent_of_an_entry_has_the_settings_of_the_programs(kind, env_id, core):
    entry = zoo_entry(kind, env_id, core)
    config = config_for(kind, env_id, core)
    env = make_env(config, config.n_envs)
    programs = agent_settings(make_agent(config, env))
    rest = {name: value for name, value in entry.items() if name not in OF_ZOO}
    if isinstance(rest["learning_rate"], str):
        rate = float(rest["learning_rate"].removeprefix("lin_"))
        rest["learning_rate"] = lambda left: rate * left
    zoos = agent_settings(ALGORITHMS[kind.name](env=env, device="cpu", seed=config.seed, **rest))
    normalized = {"normalize_observations", "normalize_rewards"}
    written = {"policy.optimizer_kwargs.eps"}  # the same without being said
    differing = {name for name in programs | zoos if programs.get(name) != zoos.get(name)}
    assert differing - written <= normalized
    assert zoos.get("policy.optimizer_kwargs.eps", 1e-5) == programs["policy.optimizer_kwargs.eps"]
    assert (entry["normalize"] is True) == programs["normalize_observations"]
    assert entry["n_envs"] == config.n_envs
    assert entry["n_timesteps"] == config.total_timesteps


@BOTH
def test_rl_zoo_can_have_every_entry_of_the_package(kind):
    found = 0
    for key in read_entries(package_file(kind)):
        env_id, _, core = key.partition("/")
        if importlib.util.find_spec("popgym") or not env_id.startswith("POPGym"):
            assert zoo_entry(kind, env_id, core or None)["policy_kwargs"]["core"] == (core or "mnm-p")
            found += 1
    assert found >= (8 if kind is PPO_AGENT else 0)


def test_the_maze_is_observed_as_by_the_programs():
    entry = zoo_entry(A2C_AGENT, "MNMMaze-9x9")
    assert entry["env_kwargs"] == {"previous_action": True}
    assert entry["n_steps"] == 200
    assert entry["normalize"] is False
    assert entry["policy_kwargs"]["core"] == "mnm-p"


class Pictures(gymnasium.Env):
    """Shows nothing."""

    observation_space = spaces.Box(0, 255, (40, 40, 3), np.uint8)
    action_space = spaces.Discrete(2)


class Parts(Pictures):
    observation_space = spaces.Dict(
        {"numbers": spaces.Box(-1, 1, (2,)), "kind": spaces.Discrete(3)}  # pyright: ignore
    )


def test_policy_and_normalization_fit_the_observations(monkeypatch):
    for name, env in (("Pictures-v0", Pictures), ("Parts-v0", Parts)):
        spec = EnvSpec(name, env)  # pyright: ignore[reportArgumentType] - a class makes one
        monkeypatch.setitem(gymnasium.registry, name, spec)
    pictures, parts = (zoo_entry(PPO_AGENT, name) for name in ("Pictures-v0", "Parts-v0"))
    assert (pictures["policy"], pictures["normalize"]) == ("CnnPolicy", {"norm_obs": False})
    assert (parts["policy"], parts["normalize"]) == ("MultiInputPolicy", {"norm_obs_keys": ["numbers"]})
    minigrid = zoo_entry(PPO_AGENT, "MiniGrid-MemoryS7-v0")
    assert minigrid["env_wrapper"] == {SYMBOLIC: {"mission": None, "direction": False}}
    assert minigrid["policy"] == "MlpPolicy"


def test_arguments_of_the_policy_that_are_not_named_stay():
    entry = {"policy_kwargs": {"core": "gru", "core_kwargs": {"hidden_size": 8}, "net_arch": [4]}}
    given: dict[str, Any] = {"core": "gru", "net_arch": [5]}
    assert merged_policy_arguments(entry, given) == {**entry["policy_kwargs"], "net_arch": [5]}
    given = {"core_kwargs": {"hidden_size": 9}}
    assert merged_policy_arguments(entry, given)["core_kwargs"] == {"hidden_size": 9}


def test_a_draw_of_ppo_has_a_batch_that_divides_the_rollout():
    space = zoo_space(PPO_AGENT, 6, bptt_steps=64)
    assert space["minibatches"] == Choice((1, 2))
    assert space["n_steps"] == Choice((64, 128, 256))
    assert "normalize" not in space
    drawn = {"n_envs": 6, "n_steps": 64, "minibatches": 2, "learning_rate": 0.00123456, "schedule": "linear"}
    settings = {"n_envs": 6, "n_steps": 64, "batch_size": 192, "learning_rate": "lin_0.00123"}
    assert settings_of_draw(drawn) == settings
    assert settings_of_draw({**drawn, "schedule": "constant"})["learning_rate"] == 0.00123

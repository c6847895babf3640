"""Wrappers of other packages, named on the command line."""

import json
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from test_scripts_a2c import run_script  # noqa: F401 - a fixture

from mnm_rl.training.folder import names_modules
from mnm_rl.training.rl.config import PPOConfig, config_from_dict, config_to_dict
from mnm_rl.training.rl.custom_wrappers import MakeWrapped, find_wrapper
from mnm_rl.training.rl.environments import EnvConfig, make_env

OWN = """
import gymnasium

class Twice(gymnasium.RewardWrapper):
    def __init__(self, env):
        assert type(env).__name__ == "CartPoleEnv" or "Plus" in type(env).__name__, "not directly around it"
        super().__init__(env)
    def reward(self, reward):
        return 2 * reward

class PlusOne(gymnasium.RewardWrapper):
    def reward(self, reward):
        return reward + 1

class Broken(gymnasium.Wrapper):
    def step(self, action):
        raise KeyError("lost")

class NeedsMore(gymnasium.Wrapper):
    def __init__(self, env, more):
        super().__init__(env)

def function(env):
    return env
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Name of a module with wrappers in it, which processes find as well."""
    (tmp_path / "own_wrappers_of_a_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_wrappers_of_a_test"
    sys.modules.pop("own_wrappers_of_a_test", None)


def rewards_of(env: Any) -> list[float]:
    env.reset()
    rewards = env.step(np.zeros(env.num_envs, int))[1].tolist()
    env.close()
    return rewards


@pytest.mark.parametrize("subprocesses", [False, True])
def test_the_first_is_the_innermost(module, subprocesses):
    names = (f"{module}:Twice", f"{module}:PlusOne")
    config = EnvConfig(env="CartPole-v1", wrapper=names, subprocesses=subprocesses)
    assert rewards_of(make_env(config, 2)) == [3, 3]
    config = EnvConfig(env="CartPole-v1", wrapper=names[::-1], subprocesses=subprocesses)
    assert rewards_of(make_env(config, 2)) == [4, 4]


def test_they_stand_inside_of_time_limit_and_monitor(module):
    env: Any = make_env(EnvConfig(env="CartPole-v1", wrapper=(f"{module}:Twice",)), 1)
    kinds = []
    layer = env.envs[0]
    while isinstance(layer, gymnasium.Wrapper):
        kinds.append(type(layer).__name__)
        layer = layer.env
    assert kinds == ["NamedFaults", "Monitor", "TimeLimit", "OrderEnforcing", "PassiveEnvChecker", "Twice"]
    env.seed(0)
    env.reset()
    ended = False
    while not ended:
        _, _, (ended,), (info,) = env.step(np.array([0]))
    assert info["episode"]["r"] == 2 * info["episode"]["l"]
    assert env.env_is_wrapped(Monitor) == [True]
    # Nothing of Gymnasium's stands around this one.
    bare = MakeWrapped("CartPoleNoVel-v1", [f"{module}:PlusOne"])()
    assert type(bare).__name__ == "PlusOne"


def test_a_run_with_wrappers_goes_on_if_it_is_trusted(module, run_script, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    words = ["--env", "CartPole-v1", "--wrapper", f"{module}:Twice", f"{module}:PlusOne", "--core", "lstm"]
    status, out, err = run_script("train_ppo", *words, "--timesteps", "2048", "--log-dir", run)
    assert (status, err) == (0, "")
    assert "--trusted" in out
    values = json.loads((run / "config.json").read_text())["config"]
    assert values["wrapper"] == words[3:5]
    assert names_modules(values) == {"wrapper": module}
    for program, more in (("train_ppo", ["--resume"]), ("evaluate", [])):
        status, _, err = run_script(program, *more, run)
        assert status == 2
        assert (
            f"The wrapper of {run} is {module}:Twice {module}:PlusOne, for which the module {module}" in err
        )
    resume = ["--resume", run, "--trusted", "--timesteps", "4096"]
    assert run_script("train_ppo", *resume)[::2] == (0, "")
    status, out, err = run_script("evaluate", run, "--trusted", "--episodes", "4")
    assert (status, err) == (0, "")
    status, _, err = run_script("train_ppo", *resume[:3], "--wrapper", f"{module}:Twice")
    assert status == 2
    assert "has wrapper" in err


def test_configs_of_earlier_runs_have_none():
    values = config_to_dict(PPOConfig())
    assert values.pop("wrapper") == []
    assert not config_from_dict(values, PPOConfig.kind).wrapper
    assert names_modules(values) == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Broken"], "CartPole-v1 fails in the wrapper own_wrappers_of_a_test:Broken: 'lost'."),
        (["NeedsMore"], "missing 1 required positional argument: 'more'."),
        (["function"], "is not a class derived from gymnasium.Wrapper."),
        (["Nothing"], "cannot be imported: module 'own_wrappers_of_a_test' has no attribute 'Nothing'."),
        (["PlusOne", "Twice.x"], "cannot be imported: type object 'Twice' has no attribute 'x'."),
        (["no_such_module:Thing"], "The wrapper 'no_such_module:Thing' cannot be imported: No module named"),
        (["json"], "has no attribute 'json'."),
        (["a b:c"], "wrapper must be module:Class"),
        ([":c"], "wrapper must be module:Class"),
        (["gymnasium:Env"], "is not a class derived from gymnasium.Wrapper."),
    ],
)
@pytest.mark.parametrize("program", ["train_a2c", "train_ppo"])
def test_bad_wrappers(program, words, message, module, run_script, tmp_path):  # noqa: F811
    names = [word if ":" in word else f"{module}:{word}" for word in words]
    status, out, err = run_script(
        program, "--env", "CartPole-v1", "--log-dir", tmp_path / "run", "--wrapper", *names
    )
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_the_maze_has_no_wrappers(module, run_script, tmp_path):  # noqa: F811
    status, _, err = run_script("train_ppo", "--wrapper", f"{module}:Twice", "--log-dir", tmp_path / "run")
    assert status == 2
    assert "wrapper is not for the maze" in err
    status, _, err = run_script("train_ppo", "--env", "CartPole-v1", "--wrapper", "CartPole")
    assert status == 2
    assert "wrapper must be module:Class" in err


@pytest.mark.parametrize("subprocesses", [False, True])
def test_wrappers_of_popgym(subprocesses):
    pytest.importorskip("popgym")
    names = ("popgym.wrappers:PreviousAction", "popgym.wrappers:Antialias")
    config = EnvConfig(env="popgym-RepeatPreviousEasy-v0", wrapper=names, subprocesses=subprocesses)
    env = make_env(config, 2)
    assert isinstance(env.observation_space, spaces.Box)
    assert env.observation_space.shape == (4 + 4 + 2,)
    env.close()
    assert issubclass(find_wrapper(names[0]), gymnasium.Wrapper)

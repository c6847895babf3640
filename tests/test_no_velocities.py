"""The environments of Gymnasium whose velocities are hidden, as RL Baselines3 Zoo registers them."""

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

from mnm_rl.envs.registration import id_without_velocities
from mnm_rl.envs.velocities import VELOCITIES

BOX2D = ("LunarLander-v3", "LunarLanderContinuous-v3")


def made(env_id: str, base: str) -> gymnasium.Env:
    if base in BOX2D:
        pytest.importorskip("Box2D")
    return gymnasium.make(env_id)


@pytest.mark.parametrize("base", VELOCITIES)
def test_the_same_episode_with_zeros_for_velocities(base):
    hidden, seen = made(id_without_velocities(base), base), made(base, base)
    assert hidden.observation_space == seen.observation_space
    assert hidden.action_space == seen.action_space
    zeroed = list(VELOCITIES[base])
    kept = [number for number in range(seen.observation_space.shape[0]) if number not in zeroed]  # pyright: ignore
    seen.action_space.seed(3)
    theirs, _ = seen.reset(seed=5)
    ours, _ = hidden.reset(seed=5)
    moved = False
    for _ in range(50):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours[kept], theirs[kept])
        assert not ours[zeroed].any()
        moved = moved or theirs[zeroed].any()
        action = seen.action_space.sample()
        theirs, reward, terminated, truncated, _ = seen.step(action)
        ours, *rest = hidden.step(action)
        assert rest[:3] == [reward, terminated, truncated]
        if terminated or truncated:
            break
    assert moved


@pytest.mark.parametrize("base", VELOCITIES)
def test_time_limits_and_arguments_are_those_of_the_base(base):
    ours, theirs = gymnasium.spec(id_without_velocities(base)), gymnasium.spec(base)
    assert ours.max_episode_steps == theirs.max_episode_steps is not None
    assert ours.kwargs == theirs.kwargs
    assert ours.reward_threshold == theirs.reward_threshold


def test_the_time_limit_ends_an_episode():
    env = gymnasium.make("MountainCarNoVel-v0")
    env.reset(seed=0)
    ends = [env.step(1)[3] for _ in range(200)]
    assert ends == [False] * 199 + [True]


def test_it_can_be_made_from_its_own_spec_and_in_processes():
    env: Any = gymnasium.make("CartPoleNoVel-v1")
    again: Any = gymnasium.make(env.spec)
    assert again.reset(seed=1)[0].tolist() == env.reset(seed=1)[0].tolist()
    batch = make_vec_env("mnm_rl:CartPoleNoVel-v1", 1, vec_env_cls=SubprocVecEnv)
    observation: Any = batch.reset()
    assert observation[0, [1, 3]].tolist() == [0, 0]
    batch.close()


def test_what_somebody_else_has_registered_stays():
    code = """
import gymnasium
gymnasium.register("CartPoleNoVel-v1", entry_point="theirs:Env")
import mnm_rl
assert gymnasium.registry["CartPoleNoVel-v1"].entry_point == "theirs:Env"
assert gymnasium.registry["PendulumNoVel-v1"].max_episode_steps == 200
gymnasium.register("PendulumNoVel-v1", entry_point="theirs:Env")
mnm_rl.envs.register_envs()
assert gymnasium.registry["PendulumNoVel-v1"].entry_point == "theirs:Env"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "CartPoleNoVel-v1 already in registry" not in done.stderr

"""The previous action and reward as part of any observation."""

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from mnm_rl.agents import PreviousActionReward, RecurrentA2C, RecurrentPPO
from mnm_rl.envs import MazeVecEnv
from mnm_rl.training.rl.environments import EnvConfig, make_env

OBSERVATIONS = {
    "vector": spaces.Box(-1, 1, (3,)),
    "grid": spaces.Box(-1, 1, (2, 2)),
    "choice": spaces.Discrete(4, start=2),
    "choices": spaces.MultiDiscrete([2, 3]),
    "bits": spaces.MultiBinary([2, 2]),
    "dict": spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3)}),
    "image": spaces.Box(0, 255, (36, 36, 3), np.uint8),
}
SIZES = {"vector": 3, "grid": 4, "choice": 4, "choices": 5, "bits": 4}
ACTIONS = {
    "choice": (spaces.Discrete(3, start=-1), [1, -1], [[0, 0, 1], [1, 0, 0]]),
    "choices": (
        spaces.MultiDiscrete([2, 3], start=[5, 1]),
        [[6, 1], [5, 3]],
        [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]],
    ),
    "bits": (spaces.MultiBinary(2), [[1, 0], [1, 1]], [[1, 0], [1, 1]]),
    "numbers": (spaces.Box(np.float32(1), np.float32(2), (2,)), [[1.5, 3], [0, 2]], [[1.5, 2], [1, 2]]),
}


class Counted(gymnasium.Env):
    """Rewards count the steps, times ten and its number; episodes have ``length`` steps."""

    def __init__(self, observation: spaces.Space, action: spaces.Space, number: int, length: int):
        self.observation_space, self.action_space = copy.deepcopy(observation), copy.deepcopy(action)
        self.number, self.length = number, length

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.steps += 1
        done = self.steps == self.length
        return self.observation_space.sample(), 10.0 * self.number + self.steps, False, done, {}


def batch(observation: str = "vector", action: str = "choice") -> DummyVecEnv:
    spaces_of = (OBSERVATIONS[observation], ACTIONS[action][0])
    return DummyVecEnv([lambda k=k: Counted(*spaces_of, k, 2 + k) for k in range(2)])


def parts(observation: Any, size: int) -> tuple[Any, Any]:
    """The action and the reward in an observation."""
    if isinstance(observation, dict):
        return observation["previous_action"].tolist(), observation["previous_reward"].tolist()
    return observation[..., size:-1].tolist(), observation[..., -1:].tolist()


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_actions_and_rewards_are_observed(observation, action):
    plain, env = batch(observation, action), PreviousActionReward(batch(observation, action))
    _, given, seen = ACTIONS[action]
    nothing, size = [[0] * len(seen[0])] * 2, SIZES.get(observation, 0)
    first: Any = env.reset()
    assert parts(first, size) == (nothing, [[0], [0]])
    rows: list[Any] = [env.step(np.array(given)) for _ in range(3)]
    assert parts(rows[0][0], size) == (seen, [[1], [11]])
    # The first environment's episode has ended: zeros, but what led there in its last observation.
    assert parts(rows[1][0], size) == ([nothing[0], seen[1]], [[0], [12]])
    assert parts(rows[1][3][0]["terminal_observation"], size) == (seen[0], [2])
    assert parts(rows[2][0], size) == ([seen[0], nothing[1]], [[1], [0]])
    assert parts(rows[2][3][1]["terminal_observation"], size) == (seen[1], [13])
    # What was returned first has not been written into.
    assert parts(rows[0][0], size) == (seen, [[1], [11]])
    space = env.observation_space
    last = rows[2][3][1]["terminal_observation"]
    assert space.contains(last)
    for row in range(2):
        one = {k: v[row] for k, v in first.items()} if isinstance(first, dict) else first[row]
        assert space.contains(one)
    assert isinstance(space, spaces.Dict) == (observation in ("dict", "image"))
    if isinstance(last, dict):
        key = "observation" if observation == "image" else "a"
        whole: Any = plain.observation_space
        assert last[key].shape == (whole[key] if key == "a" else whole).shape


def test_the_observation_itself_stays():
    plain, env = batch("choice"), PreviousActionReward(batch("choice"), action=False)
    for one in (plain, env.venv):
        for inner in one.envs:  # pyright: ignore
            inner.observation_space.seed(4)
    before: Any = plain.reset()
    after: Any = env.reset()
    assert (after[:, :4].argmax(1) + 2).tolist() == before.tolist()
    assert after.shape == (2, 5)
    assert after.dtype == np.float32


@pytest.mark.parametrize("algorithm", [RecurrentA2C, RecurrentPPO])
def test_a_run_that_goes_on_is_the_same(algorithm, tmp_path):
    def env() -> VecNormalize:
        return VecNormalize(PreviousActionReward(MazeVecEnv(3, size=3, horizon=7)), gamma=0.9)

    whole = algorithm("MlpPolicy", env(), n_steps=5, seed=0, device="cpu").learn(60)
    algorithm("MlpPolicy", env(), n_steps=5, seed=0, device="cpu").learn(30).save(tmp_path / "agent")
    again = algorithm.load(
        tmp_path / "agent", env=env(), device="cpu", force_reset=False, trusted=False
    ).learn(30, reset_num_timesteps=False)
    for ours, theirs in zip(again.policy.parameters(), whole.policy.parameters(), strict=True):
        assert ours.equal(theirs)
    assert np.array_equal(again._last_obs, whole._last_obs)


def test_a_tuple_is_made_flat():
    space = spaces.Tuple([OBSERVATIONS["vector"], spaces.Discrete(2)])
    env = PreviousActionReward(DummyVecEnv([lambda: Counted(space, spaces.Discrete(2), 0, 2)]))
    env.reset()
    observation: Any = env.step(np.array([1]))[0]
    assert observation[0, 5:].tolist() == [0, 1, 1]


def test_options_of_the_commands():
    env = make_env(EnvConfig(env="CartPole-v1", previous_action=True, previous_reward=True), 2)
    assert env.observation_space.shape == (4 + 2 + 1,)
    env = make_env(EnvConfig(env="CartPole-v1", previous_reward=True, reward_scale=0.25), 2)
    env.reset()
    observation: Any = env.step(np.array([0, 0]))[0]
    assert observation[:, 4:].tolist() == [[0.25], [0.25]]
    env = make_env(EnvConfig(env="CartPole-v1", previous_action=False), 2)
    assert env.observation_space.shape == (4,)


def test_what_it_cannot_do_is_named():
    with pytest.raises(ValueError, match="neither was asked for"):
        PreviousActionReward(batch(), action=False, reward=False)
    with pytest.raises(ValueError, match="have previous_action already"):
        PreviousActionReward(PreviousActionReward(batch("dict")), reward=False)
    words = batch()
    words.observation_space = spaces.Text(3)
    with pytest.raises(ValueError, match="cannot be added to observations"):
        PreviousActionReward(words)

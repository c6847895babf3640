"""Tuple and nested spaces: flat for agents, nested for environments."""

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from mnm_rl.agents import FlatSpaces, RecurrentA2C, RecurrentPPO
from mnm_rl.agents.flattening import flat_action_space, flat_box, flatten, flattened, nested_action
from mnm_rl.training.rl.environments import EnvConfig, make_env

BOX = spaces.Box(-1, np.array([1.0, 2.0], np.float32))
CHOICE = spaces.Discrete(3, start=5)
CHOICES = spaces.MultiDiscrete([2, 4], start=[1, 0])
BITS = spaces.MultiBinary(2)
TUPLE = spaces.Tuple([BOX, CHOICE, CHOICES, BITS])
NESTED = spaces.Dict({"b": spaces.Tuple([CHOICE, spaces.Dict({"x": BOX})]), "a": BITS})
ACTIONS = {
    "choices": spaces.Dict({"y": spaces.Tuple([CHOICE, spaces.Discrete(2)]), "x": CHOICES}),
    "numbers": spaces.Tuple([BOX, spaces.Dict({"z": spaces.Box(0, 9, (2, 1))})]),
    "bits": spaces.Tuple([BITS, spaces.MultiBinary((2, 2))]),
    "whole numbers": spaces.Tuple([spaces.Box(0, 9, (2,), np.int64)]),
    "plain": spaces.Discrete(2),
}
MIXED = spaces.Tuple([BOX, CHOICE])


class Told(gymnasium.Env):
    """Observes random values of a space; refuses actions that are not of its own; episodes of 4 steps."""

    def __init__(self, observations: spaces.Space = TUPLE, actions: spaces.Space = ACTIONS["choices"]):
        # Copies, because spaces hold random generators.
        self.observation_space, self.action_space = copy.deepcopy(observations), copy.deepcopy(actions)
        self.last: Any = None

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self._observed(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        self.steps += 1
        return self._observed(), 1.0, False, self.steps == 4, {}

    def _observed(self) -> Any:
        self.last = self.observation_space.sample()
        return self.last


@pytest.mark.parametrize("space", [TUPLE, NESTED])
def test_observations_are_flattened_as_gymnasium_does(space):
    flat = flat_box(space)
    assert flat.shape == spaces.flatten_space(space).shape
    space.seed(1)
    values = [space.sample() for _ in range(20)]
    for value in values:
        vector = flatten(space, value)
        assert flat.contains(vector)
        assert vector.dtype == np.float32
    assert np.ptp([flatten(space, value) for value in values], axis=0).all()
    assert np.unique([flatten(space, value) for value in values], axis=0).shape[0] == 20


def test_a_vector_by_hand():
    value: Any = (np.array([0.5, 2]), np.int64(6), np.array([2, 3]), np.array([1, 0]))
    assert flatten(TUPLE, value).tolist() == [0.5, 2, 0, 1, 0, 0, 1, 0, 0, 0, 1, 1, 0]
    batch: Any = tuple(np.stack([part, part]) for part in value)
    assert flatten(TUPLE, batch, (2,)).tolist() == [flatten(TUPLE, value).tolist()] * 2


@pytest.mark.parametrize("name", [name for name in ACTIONS if name != "plain"])
def test_every_flat_action_is_one_of_the_environment(name):
    space, flat = ACTIONS[name], flat_action_space(ACTIONS[name])
    flat.seed(0)
    for _ in range(20):
        assert space.contains(nested_action(space, flat.sample()))
    kind = {"choices": spaces.MultiDiscrete, "bits": spaces.MultiBinary}.get(name, spaces.Box)
    assert type(flat) is kind


def test_an_action_by_hand():
    # Dict spaces sort their names.
    action = nested_action(ACTIONS["choices"], np.array([1, 3, 2, 1]))
    assert action["y"] == (7, 1)
    assert action["x"].tolist() == [2, 3]
    action = nested_action(ACTIONS["numbers"], np.array([1, 2, 3, 4]))
    assert action[1]["z"].tolist() == [[3], [4]]


@pytest.mark.parametrize("algorithm", [RecurrentA2C, RecurrentPPO])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", [TUPLE, NESTED])
def test_an_agent_learns_saves_and_goes_on(algorithm, observation, action, tmp_path):
    settings: dict[str, Any] = {"entropy_kind": "entropy"} if algorithm is RecurrentA2C else {}
    agent = algorithm(
        "MlpPolicy", Told(observation, ACTIONS[action]), n_steps=6, device="cpu", seed=0, **settings
    )
    agent.learn(12)
    agent.save(tmp_path / "agent")
    again = algorithm.load(tmp_path / "agent", env=Told(observation, ACTIONS[action]), trusted=False)
    again.learn(6)
    again.set_env(Told(observation, ACTIONS[action]))
    mean, _ = evaluate_policy(again, FlatSpaces(Told(observation, ACTIONS[action])), 2, warn=False)
    assert mean == 4


@pytest.mark.parametrize("kind", [DummyVecEnv, SubprocVecEnv])
def test_a_batch_of_tuples_is_flattened_too(kind):
    batch = kind([Told, Told])
    flat, one = flattened(batch), FlatSpaces(Told())
    flat.seed(7)
    rows: Any = flat.reset()
    assert flat.observation_space == one.observation_space
    assert flat.action_space == one.action_space
    for seed in (7, 8):
        expected, _ = one.reset(seed=seed)
        assert rows[seed - 7].tolist() == expected.tolist()
    for step in range(4):
        expected, *_ = one.step(one.action_space.sample())
        rows, _, dones, infos = flat.step(np.stack([flat.action_space.sample() for _ in range(2)]))
        assert dones.all() == (step == 3)
        if step == 3:
            assert infos[1]["terminal_observation"].tolist() == expected.tolist()
        else:
            assert rows[1].tolist() == expected.tolist()
    RecurrentPPO("MlpPolicy", batch, n_steps=4, device="cpu").learn(8)
    flat.close()


def test_what_is_flat_stays():
    plain = [BOX, CHOICE, spaces.Dict({"a": BOX, "b": BITS})]
    for space in plain:
        env = Told(space, ACTIONS["plain"])
        assert flattened(env) is env
    batch = DummyVecEnv([lambda: Told(BOX, ACTIONS["plain"])])
    assert flattened(batch) is batch


def test_what_cannot_be_flattened_is_named():
    with pytest.raises(ValueError, match="its parts are of Box, Discrete"):
        RecurrentPPO("MlpPolicy", Told(BOX, MIXED), device="cpu")
    with pytest.raises(ValueError, match="cannot be served"):
        RecurrentPPO("MlpPolicy", Told(spaces.Tuple([BOX, spaces.Text(3)]), CHOICE), device="cpu")
    with pytest.raises(ValueError, match="parts are of nothing"):
        flat_action_space(spaces.Tuple([]))
    batch = SubprocVecEnv([lambda: Told(NESTED)])
    with pytest.raises(ValueError, match=r"wrap each environment in mnm_rl\.agents\.FlatSpaces"):
        RecurrentA2C("MlpPolicy", batch, device="cpu")
    batch.close()


@pytest.mark.parametrize("name", ["popgym-AutoencodeEasy-v0", "popgym-MineSweeperEasy-v0"])
def test_environments_of_popgym(name):
    pytest.importorskip("popgym")
    RecurrentPPO("MlpPolicy", gymnasium.make(name), n_steps=8, device="cpu").learn(16)
    RecurrentA2C("MlpPolicy", name, n_steps=8, device="cpu", entropy_kind="entropy").learn(16)
    env = make_env(EnvConfig(env=name), 2)
    RecurrentPPO("MlpPolicy", env, n_steps=8, device="cpu").learn(16)

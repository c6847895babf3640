"""What comes in at every step: states of other agents, numbers that are none, spaces that start elsewhere."""

import copy
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from mnm_rl.agents import RecurrentA2C

MEMORY = {"hidden_size": 6, "key_size": 4, "value_size": 5}
CORES: dict[str, dict[str, Any]] = {
    "lstm": {"hidden_size": 6},
    "gru": {"hidden_size": 6},
    "plastic": {"hidden_size": 6},
    "fwm": {"hidden_size": 6, "entity_size": 3, "relation_size": 4},
    "fast-weights": {"hidden_size": 6},
    "mnm-p": {**MEMORY, "memory_widths": (3,)},
    "mnm-g": {**MEMORY, "memory_widths": (3,)},
    "lstm-salu": MEMORY,
}
VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)


class Sampled(gymnasium.Env):
    """Observations drawn from a space; a note of every action, which must be in its space."""

    bad_at: int | None = None
    bad_number = float("nan")

    def __init__(
        self, observation_space: spaces.Space = VECTOR, action_space: spaces.Space | None = None, length=4
    ):
        self.observation_space = copy.deepcopy(observation_space)
        self.action_space = copy.deepcopy(action_space or spaces.Discrete(3))
        self.length, self.actions = length, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.time += 1
        assert self.action_space.contains(action), action
        self.actions.append(action)
        observation = self.observation_space.sample()
        if len(self.actions) == self.bad_at:
            part = observation["x"] if isinstance(observation, dict) else observation
            part[1] = self.bad_number
        return observation, 1.0, False, self.time == self.length, {}


def first_actions(env: DummyVecEnv) -> list:
    """What the first environment noted."""
    first = env.envs[0]
    assert isinstance(first, Sampled)
    return first.actions


def make_agent(
    core="lstm", env=None, policy="MlpPolicy", algorithm: type[Any] = RecurrentA2C, **settings
) -> Any:
    kwargs = {"core": core, "core_kwargs": {**CORES[core], **settings.pop("core_kwargs", {})}}
    return algorithm(
        policy,
        env or DummyVecEnv([Sampled] * 2),
        n_steps=5,
        seed=0,
        device="cpu",
        policy_kwargs=kwargs,
        **settings,
    )


def foreign_states(agent: RecurrentA2C) -> dict[str, Any]:
    core = agent.policy.core_name
    own = cast(Any, agent.predict(np.zeros((2, 3), np.float32))[1])
    other = make_agent("gru" if core != "gru" else "lstm")
    return {
        "another batch": agent.predict(np.zeros((3, 3), np.float32))[1],
        "another width": make_agent(core, core_kwargs={"hidden_size": 7}).predict(
            np.zeros((2, 3), np.float32)
        )[1],
        "another core": other.predict(np.zeros((2, 3), np.float32))[1],
        "too few fields": own[:-1] if len(own) > 1 else (),
        "too many fields": (*own, own[0]),
        "None in it": (None, *own[1:]),
        "text in it": (np.array([["x"] * own[0].shape[1]] * 2), *own[1:]),
        "flat": tuple(part.reshape(-1) for part in own),
    }


CALLS = {
    "predict_values": lambda policy, obs, state, starts: policy.predict_values(obs, state, starts),
    "get_distribution": lambda policy, obs, state, starts: policy.get_distribution(obs, state, starts),
    "forward": lambda policy, obs, state, starts: policy(obs, state, starts),
    "evaluate_sequence": lambda policy, obs, state, starts: policy.evaluate_sequence(
        obs[None], torch.zeros(1, 2, dtype=torch.long), state, starts[None]
    ),
    "evaluate_actions": lambda policy, obs, state, starts: policy.evaluate_actions(
        obs[None], torch.zeros(1, 2, dtype=torch.long), state, starts[None]
    ),
}


@pytest.mark.parametrize("core", CORES)
def test_states_of_other_agents_are_refused_everywhere(core):
    agent = make_agent(core)
    message = rf"A state of '{core}' for 2 environments starts as \["
    for arrays in foreign_states(agent).values():
        with pytest.raises(ValueError, match=message):
            agent.predict(np.zeros((2, 3), np.float32), arrays)
        tensors = tuple(
            torch.as_tensor(part) if getattr(part, "dtype", None) == np.float32 else part for part in arrays
        )
        for call in CALLS.values():
            with pytest.raises(ValueError, match=message):
                call(agent.policy, torch.zeros(2, 3), tensors, torch.zeros(2, dtype=torch.bool))


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("call", CALLS)
def test_own_states_are_taken_as_tuples_and_at_the_start(core, call):
    agent = make_agent(core)
    own = agent.predict(np.ones((2, 3), np.float32))[1]
    starts = torch.zeros(2, dtype=torch.bool)
    with torch.no_grad():
        state = agent.policy.state_from_arrays(own, 2)
        named = CALLS[call](agent.policy, torch.zeros(2, 3), state, starts)
        torch.manual_seed(0)
        plain = CALLS[call](agent.policy, torch.zeros(2, 3), tuple(state), starts)
        begun = CALLS[call](agent.policy, torch.zeros(2, 3), None, starts)
    assert type(named) is type(plain) is type(begun)


def test_tables_of_a_state_are_of_one_length():
    agent = make_agent("lstm-salu")
    state = agent.policy.initial_state(2)
    grown = {name: torch.zeros(2, 3, *getattr(state, name).shape[2:]) for name in ("keys", "values")}
    written = torch.ones(2, 3, dtype=torch.bool)
    whole = state._replace(**grown, written=written)
    assert agent.policy.state_fits(tuple(whole), 2)
    assert not agent.policy.state_fits(tuple(whole._replace(values=whole.values[:, :2])), 2)
    with pytest.raises(ValueError, match="A state of 'lstm-salu' for 2 environments starts as"):
        agent.policy.checked_state(tuple(whole._replace(written=written[:, :1])), 2)


def test_double_precision_states_are_converted():
    agent = make_agent()
    own = agent.predict(np.ones((2, 3), np.float32))[1]
    assert own is not None
    doubled = tuple(part.astype(np.float64) for part in own)
    for mine, other in zip(
        *(agent.predict(np.ones((2, 3), np.float32), state)[1] for state in (own, doubled)), strict=True
    ):
        np.testing.assert_array_equal(mine, other)


ACTIONS = {
    "discrete": spaces.Discrete(3),
    "multi-discrete": spaces.MultiDiscrete([3, 2]),
    "multi-binary": spaces.MultiBinary(4),
    "box": spaces.Box(-1.0, 1.0, (2,), np.float32),
}


@pytest.mark.parametrize("kind", ACTIONS)
def test_one_observation_gives_an_array_of_the_shape_of_an_action(kind):
    agent = make_agent(env=DummyVecEnv([lambda: Sampled(action_space=ACTIONS[kind])]))
    action, state = agent.predict(np.zeros(3, np.float32))
    assert isinstance(action, np.ndarray)
    assert action.shape == ACTIONS[kind].shape
    action, _ = agent.predict(np.zeros(3, np.float32), state, np.array([False]))
    assert isinstance(action, np.ndarray)


def test_what_gymnasiums_reset_returns_is_not_an_observation():
    with pytest.raises(ValueError, match="takes an observation, not a tuple"):
        make_agent().predict(Sampled().reset())  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("is_dict", [False, True])
def test_an_observation_that_is_no_number_stops_before_the_environment_is_touched(number, is_dict, algorithm):
    def build():
        env = Sampled(spaces.Dict({"x": VECTOR, "n": spaces.Discrete(2)}) if is_dict else VECTOR)
        env.bad_at, env.bad_number = 3, number
        return env

    env = DummyVecEnv([build, Sampled] if not is_dict else [build])
    agent = make_agent(algorithm=algorithm, env=env, policy="MultiInputPolicy" if is_dict else "MlpPolicy")
    name = "observation 'x'" if is_dict else "observation"
    with pytest.raises(ValueError, match=rf"The {name} has {number} at \[0, 1\]; only finite"):
        agent.learn(50)
    assert len(first_actions(env)) == 3
    assert agent._n_updates == 0


def test_predict_says_so_too():
    agent = make_agent()
    observation = np.zeros((2, 3), np.float32)
    observation[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"has nan at \[1, 2\]"):
        agent.predict(observation)
    with pytest.raises(ValueError, match=r"has inf at \[0\]"):
        agent.predict(np.array([np.inf, 0, 0], np.float32))


@pytest.mark.parametrize("kind", ACTIONS)
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_parameters_that_are_no_numbers_stop_before_the_environment_is_touched(kind, number, algorithm):
    env = DummyVecEnv([lambda: Sampled(action_space=ACTIONS[kind])])
    agent = make_agent(algorithm=algorithm, env=env)
    with torch.no_grad():
        agent.policy.get_parameter("action_net.bias")[0] = number
    with pytest.raises(ValueError, match=r"The policy's parameter action_net.bias is not finite"):
        agent.learn(10)
    assert first_actions(env) == []
    with pytest.raises(ValueError, match="The policy's output is not finite for finite observations"):
        agent.predict(np.zeros(3, np.float32), deterministic=True)


def test_a_spread_that_is_no_number_stops_too(algorithm):
    env = DummyVecEnv([lambda: Sampled(action_space=ACTIONS["box"])])
    agent = make_agent(algorithm=algorithm, env=env)
    with torch.no_grad():
        agent.policy.log_std.fill_(float("nan"))
    with pytest.raises(ValueError, match="parameter log_std is not finite"):
        agent.learn(10)
    assert first_actions(env) == []
    state, starts = agent.policy.initial_state(1), np.array([True])
    with pytest.raises(ValueError, match="The policy's output is not finite"):
        agent.policy.act(np.zeros((1, 3), np.float32), state, starts)


STARTS = {
    "actions from 1": (VECTOR, spaces.Discrete(3, start=1)),
    "actions from -5": (VECTOR, spaces.Discrete(3, start=-5)),
    "choices": (VECTOR, spaces.MultiDiscrete([3, 2], start=[2, -1])),
    "observations from 1": (spaces.Discrete(4, start=1), spaces.Discrete(2)),
    "observations from -3": (spaces.Discrete(4, start=-3), spaces.Discrete(2, start=9)),
    "choices observed": (spaces.MultiDiscrete([3, 2], start=[2, -1]), spaces.Discrete(2)),
    "in a Dict": (
        spaces.Dict(
            {"x": VECTOR, "n": spaces.Discrete(3, start=4), "m": spaces.MultiDiscrete([2, 2], start=[1, 0])}
        ),
        spaces.Discrete(3, start=1),
    ),
}


def counted_from_zero(space: spaces.Space) -> spaces.Space:
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: counted_from_zero(part) for key, part in space.spaces.items()})
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(space.n)
    return spaces.MultiDiscrete(space.nvec) if isinstance(space, spaces.MultiDiscrete) else space


def moved(observation: Any, space: spaces.Space) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: moved(observation[key], part) for key, part in space.spaces.items()}
    return (
        observation - space.start
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
        else observation
    )


@pytest.mark.parametrize("kind", STARTS)
def test_spaces_that_do_not_start_at_zero_are_those_that_do_moved(kind, tmp_path, algorithm):
    observation, action = STARTS[kind]
    policy = "MultiInputPolicy" if isinstance(observation, spaces.Dict) else "MlpPolicy"
    env = DummyVecEnv([lambda length=length: Sampled(observation, action, length) for length in (3, 5)])
    agent = make_agent(algorithm=algorithm, env=env, policy=policy).learn(40)
    counted = DummyVecEnv([lambda: Sampled(counted_from_zero(observation), counted_from_zero(action))])
    twin = make_agent(algorithm=algorithm, env=counted, policy=policy)
    twin.policy.load_state_dict(agent.policy.state_dict())
    assert {str(each) for each in first_actions(env)} > {str(first_actions(env)[0])}
    agent.save(tmp_path / "agent")
    loaded = algorithm.load(tmp_path / "agent", device="cpu", trusted=False)
    space, state = copy.deepcopy(observation), None
    space.seed(0)
    for _ in range(8):
        one = space.sample()
        actions, new_state = agent.predict(one, state, deterministic=True)
        again, _ = loaded.predict(one, state, deterministic=True)
        others, _ = twin.predict(moved(one, observation), state, deterministic=True)
        np.testing.assert_array_equal(actions, again)
        np.testing.assert_array_equal(moved(actions, action), others)
        assert action.contains(actions if action.shape else actions[()])
        state = new_state
    evaluate_policy(agent, env, n_eval_episodes=2, deterministic=False, warn=False)


def test_the_buffer_and_the_distribution_count_from_zero(algorithm):
    agent = make_agent(
        algorithm=algorithm, env=DummyVecEnv([lambda: Sampled(action_space=spaces.Discrete(3, start=7))])
    ).learn(10)
    assert set(agent.rollout_buffer.actions.ravel()) <= {0, 1, 2}
    actions, *_ = agent.policy(torch.zeros(4, 3), None, torch.zeros(4, dtype=torch.bool))
    assert actions.max() <= 2
    assert agent.policy.clip_actions(np.array([0, 2])).tolist() == [7, 9]


def test_large_numbers_are_finite():
    agent = make_agent()
    action, _ = agent.predict(np.full((2, 3), 3e38, np.float32))
    assert action.shape == (2,)
    agent.predict(np.full((2, 3), 6e4, np.float16))


@pytest.mark.parametrize("starts", [[True], True, 1.0, [0.0, 1.0], [True, False]])
def test_starts_are_one_or_one_for_each_observation(starts):
    agent = make_agent()
    observations = np.zeros((2, 3), np.float32)
    state = agent.predict(observations)[1]
    agent.predict(observations, state, starts)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("starts", [np.zeros(5), "x", ["a", "b"], [[True, False]], [None, True]])
def test_other_starts_are_named(starts):
    agent = make_agent()
    with pytest.raises(ValueError, match="episode_start must be 2 of True and False"):
        agent.predict(np.zeros((2, 3), np.float32), episode_start=starts)


def test_an_observation_by_names_is_for_spaces_with_these_names():
    plain = make_agent()
    with pytest.raises(ValueError, match="The observation must be an array, got a dictionary of 'x'"):
        plain.predict({"x": np.zeros(3, np.float32)})
    space = spaces.Dict({"x": VECTOR, "y": VECTOR})
    named = make_agent(env=DummyVecEnv([lambda: Sampled(space)]), policy="MultiInputPolicy")
    part = np.zeros(3, np.float32)
    for wrong, got in ((part, "ndarray"), ({"x": part}, "'x'"), ({"x": part, "y": part, "z": part}, "'z'")):
        with pytest.raises(ValueError, match=f"must be a dictionary of 'x', 'y', got .*{got}"):
            named.predict(wrong)
    named.predict({"y": part, "x": part})

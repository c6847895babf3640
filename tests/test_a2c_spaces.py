"""All observation and action spaces, environments wrapped in all the usual ways, and what is refused."""

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import make_proba_distribution
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor, VecNormalize

from mnm_rl.agents import RecurrentA2C, RecurrentActorCriticPolicy, SequenceRolloutBuffer
from mnm_rl.agents.distributions import make_distribution

IMAGE = spaces.Box(0, 255, (40, 36, 3), np.uint8)
OBSERVATIONS: dict[str, spaces.Space] = {
    "vector": spaces.Box(-1.0, 1.0, (3,), np.float32),
    "double": spaces.Box(-1.0, 1.0, (2, 2), np.float64),
    "discrete": spaces.Discrete(4),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(5),
    "image": IMAGE,
    "dict": spaces.Dict({"number": spaces.Discrete(3), "vector": spaces.Box(-1.0, 1.0, (2,), np.float32)}),
    "dict-image": spaces.Dict({"image": IMAGE, "bits": spaces.MultiBinary(2)}),
}
ACTIONS: dict[str, spaces.Space] = {
    "discrete": spaces.Discrete(3),
    "multi-discrete": spaces.MultiDiscrete([3, 2, 4]),
    "multi-binary": spaces.MultiBinary(4),
    "box": spaces.Box(-0.5, 2.0, (2,), np.float32),
    "box-2d": spaces.Box(np.array([[-1.0, 0.0]]), np.array([[1.0, 0.1]]), dtype=np.float64),
}
POLICIES = {"image": "CnnPolicy", "dict": "MultiInputPolicy", "dict-image": "MultiInputPolicy"}


class Sampled(gymnasium.Env):
    """Observations drawn from a space, and a check that every action is in its space."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, length: int = 3):
        self.observation_space, self.action_space, self.length = observation_space, action_space, length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.time += 1
        action = np.asarray(action, dtype=self.action_space.dtype)
        assert self.action_space.contains(action if action.shape else action[()]), action
        return self.observation_space.sample(), float(self.time), False, self.time == self.length, {}


def shape_of(space: spaces.Space) -> tuple[int, ...]:
    assert space.shape is not None
    return space.shape


def make_env(observation: str = "vector", action: str = "discrete") -> DummyVecEnv:
    def build(length: int) -> gymnasium.Env:
        # Copies, because spaces hold random generators.
        return Sampled(copy.deepcopy(OBSERVATIONS[observation]), copy.deepcopy(ACTIONS[action]), length)

    return DummyVecEnv([lambda length=length: build(length) for length in (2, 3, 7)])


def make_agent(
    env: Any, policy: str = "MlpPolicy", algorithm: type[Any] = RecurrentA2C, **settings: Any
) -> Any:
    kwargs = {"core": "lstm", "core_kwargs": {"hidden_size": 6}, **settings.pop("policy_kwargs", {})}
    return algorithm(
        policy, env, n_steps=5, seed=0, device="cpu", policy_kwargs=kwargs, ent_coef=0.01, **settings
    )


@pytest.mark.parametrize(
    ("observation", "action"),
    [(name, "discrete") for name in OBSERVATIONS] + [("vector", name) for name in ACTIONS],
)
def test_spaces(observation, action, tmp_path, algorithm):
    env = make_env(observation, action)
    agent = make_agent(env, POLICIES.get(observation, "MlpPolicy"), algorithm)
    before = {name: parameter.clone() for name, parameter in agent.policy.named_parameters()}
    agent.learn(3 * 15)
    changed = [
        not torch.equal(before[name], parameter) for name, parameter in agent.policy.named_parameters()
    ]
    assert all(changed)
    agent.save(tmp_path / "agent.zip")
    loaded = algorithm.load(tmp_path / "agent.zip", device="cpu")
    obs, state = env.reset(), None
    for _ in range(3):
        assert not isinstance(obs, tuple)
        actions, new_state = agent.predict(obs, state, deterministic=True)
        again, _ = loaded.predict(obs, state, deterministic=True)
        np.testing.assert_array_equal(actions, again)
        assert actions.shape == (3, *shape_of(env.action_space))
        obs, *_ = env.step(actions)
        state = new_state


@pytest.mark.parametrize("action", ACTIONS)
def test_distributions_agree_with_those_of_stable_baselines(action):
    torch.manual_seed(0)
    space = ACTIONS[action]
    log_std = torch.tensor([0.3, -0.4]) if isinstance(space, spaces.Box) else None
    ours, theirs = make_distribution(space, log_std), make_proba_distribution(space)
    sizes = {"discrete": 3, "multi-discrete": 9, "multi-binary": 4, "box": 2, "box-2d": 2}
    parameters = torch.randn(6, sizes[action])
    theirs.proba_distribution(*((parameters, log_std) if log_std is not None else (parameters,)))
    actions = ours.sample(parameters)
    assert actions.shape == (6, *shape_of(space))
    flat = actions.reshape(6, -1).squeeze(-1) if action == "discrete" else actions.reshape(6, -1)
    torch.testing.assert_close(ours.log_prob(parameters, actions), theirs.log_prob(flat))
    torch.testing.assert_close(ours.entropy(parameters), theirs.entropy())
    torch.testing.assert_close(ours.mode(parameters).reshape(6, -1), theirs.mode().reshape(6, -1))
    log_probs, entropy, concentration = ours.evaluate(parameters, actions)
    torch.testing.assert_close(log_probs, ours.log_prob(parameters, actions))
    torch.testing.assert_close(entropy, ours.entropy(parameters))
    torch.testing.assert_close(concentration, ours.concentration(parameters))


@pytest.mark.parametrize("action", ["discrete", "multi-discrete", "multi-binary"])
def test_samples_have_their_probabilities_and_the_concentration_is_that_of_all_parts(action):
    torch.manual_seed(0)
    distribution = make_distribution(ACTIONS[action])
    parameters = torch.randn({"discrete": 3, "multi-discrete": 9, "multi-binary": 4}[action])
    draws = distribution.sample(parameters.expand(20_000, -1)).reshape(20_000, -1)
    concentration = torch.zeros(())
    for part in draws.T:
        frequencies = part.long().bincount() / len(part)
        concentration += frequencies.square().sum()
    assert distribution.concentration(parameters).item() == pytest.approx(concentration.item(), abs=0.02)
    chosen, counts = draws.unique(dim=0, return_counts=True)
    shaped = chosen.reshape(-1, *shape_of(ACTIONS[action])) if action != "discrete" else chosen[:, 0]
    probabilities = distribution.log_prob(parameters.expand(len(chosen), -1), shaped).exp()
    torch.testing.assert_close(counts / len(draws), probabilities, atol=0.012, rtol=0)


def test_box_actions_are_clipped_for_the_environment_but_not_for_learning():
    agent = make_agent(make_env(action="box"), policy_kwargs={"log_std_init": 2.0})
    agent.learn(15)
    assert isinstance(agent.action_space, spaces.Box)
    low, high = agent.action_space.low, agent.action_space.high
    stored = agent.rollout_buffer.actions
    assert (stored < low).any()
    assert (stored > high).any()
    observations = agent.env.reset()
    assert isinstance(observations, np.ndarray)
    actions, _ = agent.predict(observations)
    assert ((actions >= low) & (actions <= high)).all()


@pytest.mark.filterwarnings("ignore:The environment is already wrapped")
@pytest.mark.parametrize(
    ("core", "kind"), [("lstm", DummyVecEnv), ("mnm-p", DummyVecEnv), ("lstm", SubprocVecEnv)]
)
def test_wrapped_environments(core, kind):
    env = VecNormalize(VecMonitor(make_vec_env("CartPole-v1", 2, vec_env_cls=kind)), gamma=0.9)
    small = {} if core == "lstm" else {"key_size": 3, "value_size": 3, "memory_widths": (3,)}
    agent = make_agent(env, policy_kwargs={"core": core, "core_kwargs": {"hidden_size": 4, **small}})
    agent.learn(10 * 40)
    assert agent.num_timesteps == 400
    assert len(agent.ep_info_buffer or ()) > 5
    assert np.abs(agent.rollout_buffer._stored[""]).max() <= 10
    env.close()


def test_a_layer_between_core_and_heads():
    agent = make_agent(make_env(), policy_kwargs={"net_arch": {"pi": [5], "vf": [4]}})
    assert agent.policy.action_net.in_features == 5
    assert agent.policy.value_net.in_features == 4
    agent.learn(15)


def test_predict_of_one_observation_and_of_a_batch():
    agent = make_agent(make_env())
    one, state = agent.predict(np.zeros(3, np.float32), deterministic=True)
    batch, states = agent.predict(np.zeros((4, 3), np.float32), deterministic=True)
    assert one.shape == ()
    assert batch.shape == (4,)
    assert [part.shape for part in state or ()] == [(1, 6), (1, 6)]
    assert [part.shape for part in states or ()] == [(4, 6), (4, 6)]
    _, reset = agent.predict(np.ones((4, 3), np.float32), states, np.array([True, False, True, False]))
    _, started = agent.predict(np.ones((4, 3), np.float32))
    _, carried = agent.predict(np.ones((4, 3), np.float32), states)
    for row in (0, 2):
        np.testing.assert_array_equal(reset[0][row], started[0][row])
    for row in (1, 3):
        np.testing.assert_array_equal(reset[0][row], carried[0][row])
        assert not np.array_equal(carried[0][row], started[0][row])


def test_predict_refuses_a_state_of_another_shape():
    agent = make_agent(make_env())
    with pytest.raises(ValueError, match="A state of 'lstm' for 2 environments"):
        agent.predict(np.zeros((2, 3), np.float32), (np.zeros((1, 6)), np.zeros((1, 6))))


def test_the_policy_alone_can_be_saved_and_loaded(tmp_path):
    agent = make_agent(make_env("dict"), "MultiInputPolicy")
    agent.policy.save(str(tmp_path / "policy.pt"))
    loaded = type(agent.policy).load(str(tmp_path / "policy.pt"), device="cpu")
    obs = agent.env.reset()
    assert isinstance(obs, dict)
    np.testing.assert_array_equal(
        agent.predict(obs, deterministic=True)[0], loaded.predict(obs, deterministic=True)[0]
    )


def test_an_environment_can_be_given_by_its_id():
    agent = make_agent("CartPole-v1")
    agent.learn(10)
    assert agent.num_timesteps == 10


BOX = spaces.Box(0, 1)
BAD_SPACES = {
    "tuple observation": (spaces.Tuple([spaces.Text(2)]), spaces.Discrete(2), "observation space"),
    "nested observation": (
        spaces.Dict({"inner": spaces.Dict({"x": spaces.Text(2)})}),
        spaces.Discrete(2),
        "observation space",
    ),
    "text observation": (spaces.Text(3), spaces.Discrete(2), "observation space"),
    "dict action": (spaces.Discrete(2), spaces.Dict({"x": spaces.Text(2)}), "action space"),
    "tuple action": (spaces.Discrete(2), spaces.Tuple([spaces.Discrete(2), BOX]), "action space"),
    "grid of choices": (spaces.Discrete(2), spaces.MultiDiscrete(np.array([[2, 3]])), "action space"),
    "grid of bits": (spaces.Discrete(2), spaces.MultiBinary([2, 3]), "action space"),
}


@pytest.mark.parametrize("name", BAD_SPACES)
def test_spaces_that_cannot_be_served(name):
    observation, action, message = BAD_SPACES[name]
    with pytest.raises(ValueError, match=f"The {message} .* cannot be served"):
        make_agent(Sampled(observation, action), "MlpPolicy")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"policy_kwargs": {"core": "lstn"}}, ValueError, "Unknown core 'lstn'; known cores: mnm-p"),
        ({"policy_kwargs": {"core_kwargs": {"heads": 2}}}, TypeError, "has no setting heads"),
        ({"policy_kwargs": {"core_kwargs": {"hidden_size": 0}}}, ValueError, "at least 1"),
        ({"policy_kwargs": {"use_sde": True}}, TypeError, "use_sde"),
        ({"entropy_kind": "entropi"}, ValueError, "entropy_kind must be"),
        ({"n_steps": 0}, ValueError, "n_steps must be at least 1"),
        ({"max_grad_norm": 0.0}, ValueError, "must be positive"),
    ],
)
def test_settings_that_are_refused(settings, error, message):
    kwargs = {"core": "lstm", "core_kwargs": {}, **settings.pop("policy_kwargs", {})}
    with pytest.raises(error, match=message):
        RecurrentA2C("MlpPolicy", make_env(), device="cpu", policy_kwargs=kwargs, **settings)


def test_the_concentration_is_refused_for_continuous_actions():
    with pytest.raises(ValueError, match="not defined for Box actions"):
        make_agent(make_env(action="box"), entropy_kind="concentration")


@pytest.mark.parametrize(
    ("observation", "policy", "message"),
    [
        ("dict", "MlpPolicy", "MultiInputPolicy"),
        ("dict", RecurrentActorCriticPolicy, "Dict observations need MultiInputPolicy"),
        ("vector", "MultiInputPolicy", "for Dict observations"),
        ("vector", "CnnPolicy", "CnnPolicy is for images"),
        ("vector", "MlpLstmPolicy", "unknown"),
    ],
)
def test_policies_that_do_not_fit(observation, policy, message):
    with pytest.raises(ValueError, match=message):
        make_agent(make_env(observation), policy)


def test_a_buffer_that_stores_no_sequences_is_refused():
    from stable_baselines3.common.buffers import RolloutBuffer

    with pytest.raises(ValueError, match="SequenceRolloutBuffer"):
        make_agent(make_env(), rollout_buffer_class=RolloutBuffer)


def test_a_buffer_of_ones_own():
    class Loud(SequenceRolloutBuffer):
        starts = 0

        def start(self, state):
            Loud.starts += 1
            super().start(state)

    agent = make_agent(make_env(), rollout_buffer_class=Loud).learn(30)
    assert isinstance(agent.rollout_buffer, Loud)
    assert Loud.starts == 2

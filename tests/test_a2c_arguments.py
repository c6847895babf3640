"""What an agent is made with: numbers out of range, settings of other algorithms, policies of other kinds."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv

from mnm_rl.agents import RecurrentA2C, RecurrentActorCriticPolicy, SequenceRolloutBuffer
from mnm_rl.envs import MazeVecEnv

SMALL = {"core": "lstm", "core_kwargs": {"hidden_size": 4}}
NAN = float("nan")


def make_agent(policy: Any = "MlpPolicy", env=None, algorithm: type[Any] = RecurrentA2C, **settings):
    kwargs = {**SMALL, **settings.pop("policy_kwargs", {})}
    return algorithm(
        policy, env or MazeVecEnv(2, size=3, horizon=8), device="cpu", policy_kwargs=kwargs, **settings
    )


class Untouchable:
    """Stands for an environment, and fails if anything is done with it."""

    def __getattr__(self, name):
        raise AssertionError(f"the environment was touched: {name}")


WRONG = {
    "n_steps": [0, -1, 2.0, "8", True, None, NAN],
    "gamma": [-0.1, 1.1, NAN, 128, "0.9", None, True],
    "gae_lambda": [-0.1, 10, NAN, None],
    "ent_coef": [-1.0, NAN, float("inf"), None, "auto"],
    "vf_coef": [-1.0, NAN, float("inf"), None],
    "meta_coef": [-1.0, NAN, float("inf"), None],
    "max_grad_norm": [0, -1.0, NAN, None, "big"],
    "learning_rate": [-1e-3, NAN, float("inf"), None, "lin_0.1", True],
    "normalize_advantage": [None, "yes", 1],
    "bootstrap_time_limit": [None, 0],
    "rollout_buffer_class": [5, dict],
    "entropy_kind": ["", None],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_value_that_is_not_allowed_is_named_before_anything_is_built(name, value, algorithm):
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=rf"^{name}.* must be [^.]*") as caught:
        make_agent(env=Untouchable(), algorithm=algorithm, **{name: value})
    assert str(caught.value).count("\n") == 0
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_steps", np.int64(3)),
        ("gamma", 1),
        ("gamma", np.float32(0.5)),
        ("gae_lambda", 0),
        ("max_grad_norm", float("inf")),
        ("learning_rate", 0),
        ("ent_coef", np.float64(0.01)),
    ],
)
def test_values_at_the_edge_are_allowed(name, value, algorithm):
    agent = make_agent(algorithm=algorithm, **{"n_steps": 4, name: value}).learn(16)
    assert getattr(agent, name) == value


def test_what_follows_the_number_of_steps_is_given_by_name():
    with pytest.raises(TypeError, match="positional arguments"):
        RecurrentA2C("MlpPolicy", MazeVecEnv(2), 3e-4, 128, 128, 10, 0.99)  # pyright: ignore[reportCallIssue]


def test_settings_of_others_that_change_nothing_are_accepted():
    agent = make_agent(
        n_steps=4,
        use_sde=False,
        sde_sample_freq=-1,
        use_rms_prop=False,
        rms_prop_eps=1e-5,
        n_epochs=1,
        target_kl=None,
        clip_range_vf=None,
        policy_kwargs={
            "use_sde": False,
            "full_std": True,
            "use_expln": False,
            "squash_output": False,
            "share_features_extractor": True,
            "shared_lstm": True,
            "enable_critic_lstm": False,
            "n_lstm_layers": 1,
            "lstm_kwargs": None,
        },
    )
    plain = make_agent(n_steps=4)
    assert agent.policy.state_dict().keys() == plain.policy.state_dict().keys()


def test_they_do_not_stand_in_the_way_of_saving(tmp_path, algorithm):
    kwargs = {"use_sde": False, "share_features_extractor": True}
    agent = make_agent(algorithm=algorithm, n_steps=4, policy_kwargs=kwargs).learn(16)
    agent.save(tmp_path / "agent")
    assert algorithm.load(tmp_path / "agent", device="cpu", trusted=False).policy.core_name == "lstm"
    agent.policy.save(str(tmp_path / "policy"))
    assert RecurrentActorCriticPolicy.load(str(tmp_path / "policy"), device="cpu").core_name == "lstm"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("use_sde", True, "exploration is not available"),
        ("sde_sample_freq", 4, "exploration is not available"),
        ("use_rms_prop", True, "the optimizer is Adam"),
        ("rms_prop_eps", 1e-3, "the optimizer is Adam"),
        ("batch_size", 128, "one update per rollout"),
        ("n_epochs", 10, "one update per rollout"),
        ("clip_range", 0.2, "one update per rollout"),
        ("clip_range_vf", 0.2, "one update per rollout"),
        ("target_kl", 0.1, "one update per rollout"),
    ],
)
def test_settings_of_others_that_would_change_something_are_named(name, value, reason):
    with pytest.raises(TypeError, match=rf"does not take {name}={value}: .*{reason}"):
        make_agent(env=Untouchable(), **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("use_sde", True, "exploration is not available"),
        ("full_std", False, "exploration is not available"),
        ("use_expln", True, "exploration is not available"),
        ("squash_output", True, "clipped, not squashed"),
        ("share_features_extractor", False, "share one core"),
        ("shared_lstm", False, "share one core"),
        ("enable_critic_lstm", True, "share one core"),
        ("n_lstm_layers", 2, "chosen by core"),
        ("lstm_hidden_size", 64, "core_kwargs={'hidden_size': ...}"),
        ("lstm_kwargs", {"dropout": 0.5}, "core_kwargs"),
    ],
)
def test_so_are_those_of_other_policies(name, value, reason):
    with pytest.raises(TypeError) as caught:
        make_agent(policy_kwargs={name: value})
    assert f"The policy does not take {name}={value!r}" in str(caught.value)
    assert reason in str(caught.value)


def test_settings_that_nobody_has_are_named(algorithm):
    with pytest.raises(TypeError, match=rf"^{algorithm.__name__} has no setting 'gama'\.$"):
        make_agent(algorithm=algorithm, gama=0.5)
    with pytest.raises(TypeError, match=r"^The policy has no setting 'net_arhc'\.$"):
        make_agent(algorithm=algorithm, policy_kwargs={"net_arhc": [3]})


@pytest.mark.parametrize("policy", [ActorCriticPolicy, torch.nn.Linear, 3, None])
def test_a_policy_of_another_kind_is_refused(policy, algorithm):
    with pytest.raises(
        TypeError, match="must be RecurrentActorCriticPolicy or a subclass of it, or one of Mlp"
    ):
        make_agent(policy, Untouchable(), algorithm)


def test_a_policy_of_ones_own(algorithm):
    class Own(RecurrentActorCriticPolicy):
        pass

    assert type(make_agent(Own, algorithm=algorithm, n_steps=4).learn(8).policy) is Own


def test_a_buffer_class_of_ones_own_gets_its_arguments(algorithm):
    class Own(SequenceRolloutBuffer):
        def __init__(self, *args, label, **kwargs):
            super().__init__(*args, **kwargs)
            self.label = label

    agent = make_agent(
        algorithm=algorithm, n_steps=4, rollout_buffer_class=Own, rollout_buffer_kwargs={"label": "mine"}
    )
    agent.n_steps = 2
    buffer = agent.learn(8).rollout_buffer
    assert isinstance(buffer, Own)
    assert buffer.label == "mine"


class Pictures(gymnasium.Env):
    action_space = spaces.Discrete(2)

    def __init__(self, shape, high=1.0, dtype=np.float32):
        self.observation_space = spaces.Box(0, high, shape, dtype)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 1.0, False, False, {}


def test_images_that_are_normalised_already():
    first = DummyVecEnv([lambda: Pictures((3, 36, 40))])
    with pytest.raises(
        ValueError, match=r"use policy_kwargs=\{'normalize_images': False\} for images that are"
    ):
        make_agent("CnnPolicy", first)
    make_agent("CnnPolicy", first, n_steps=2, policy_kwargs={"normalize_images": False}).learn(4)
    last = DummyVecEnv([lambda: Pictures((36, 40, 3))])
    with pytest.raises(ValueError, match=r"channels first, not of shape \(36, 40, 3\); move the last axis"):
        make_agent("CnnPolicy", last, policy_kwargs={"normalize_images": False})
    with pytest.raises(ValueError, match="CnnPolicy is for images"):
        make_agent("CnnPolicy", "CartPole-v1", policy_kwargs={"normalize_images": False})


@pytest.mark.parametrize(
    ("shape", "dtype", "high"), [((84, 84, 3), np.float32, 1.0), ((40, 36, 1), np.uint8, 255)]
)
def test_a_vector_of_all_pixels_is_mentioned(shape, dtype, high):
    env = DummyVecEnv([lambda: Pictures(shape, high, dtype)])
    with pytest.warns(UserWarning, match="plain numbers; CnnPolicy reads them as images"):
        make_agent("MlpPolicy", env)


@pytest.mark.parametrize("shape", [(3, 3), (7, 7, 3), (40, 40, 40), (50,)])
@pytest.mark.filterwarnings("error::UserWarning")
def test_other_boxes_are_not_taken_for_pictures(shape):
    make_agent("MlpPolicy", DummyVecEnv([lambda: Pictures(shape)]))

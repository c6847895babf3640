"""What an agent is made with: numbers out of range, settings of other algorithms, policies of other kinds."""

import functools
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from mnm_rl.agents import RecurrentA2C, RecurrentActorCriticPolicy, SequenceRolloutBuffer
from mnm_rl.envs import MazeVecEnv, MazeVectorEnv

SMALL = {"core": "lstm", "core_kwargs": {"hidden_size": 4}}
NAN = float("nan")


def make_agent(policy: Any = "MlpPolicy", env=None, algorithm: type[Any] = RecurrentA2C, **settings):
    kwargs = {**SMALL, **settings.pop("policy_kwargs", {})}
    return algorithm(
        policy,
        env or MazeVecEnv(2, size=3, horizon=8),
        policy_kwargs=kwargs,
        **{"device": "cpu", **settings},
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
    "learning_rate": [-1e-3, NAN, float("inf"), None, "lin_0.1", True, lambda: 1.0, lambda a, b: a],
    "normalize_advantage": [None, "yes", 1],
    "bootstrap_time_limit": [None, 0],
    "rollout_buffer_class": [5, dict],
    "entropy_kind": ["", None],
    "stats_window_size": [0, -1, 1.5, "8", None],
    "verbose": [-1, 0.5, "x", None],
    "seed": [-1, 1.5, "x", 2**32, NAN, True],
    "device": ["gpu", "", None, "meta", "cuda:x", 1.5],
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
        ("verbose", True),
        ("seed", np.int64(2**32 - 1)),
        ("seed", None),
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


def test_a_run_in_tensorboard_has_the_name_of_its_algorithm(tmp_path, algorithm):
    agent = make_agent(algorithm=algorithm, n_steps=4, tensorboard_log=str(tmp_path)).learn(20)
    agent.learn(20, tb_log_name="mine")
    assert {path.name for path in tmp_path.iterdir()} == {f"{algorithm.__name__}_1", "mine_1"}


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
        ("use_sde", True, "an argument of the agent"),
        ("full_std", False, "deviation of its own for each feature"),
        ("use_expln", True, "exponentials of parameters"),
        ("squash_output", True, "clipped, not squashed"),
        ("share_features_extractor", False, "separate_critic=True"),
        ("lstm_kwargs", {"dropout": 0.5}, "core_kwargs"),
    ],
)
def test_so_are_those_of_other_policies(name, value, reason):
    with pytest.raises(TypeError) as caught:
        make_agent(policy_kwargs={name: value})
    assert f"The policy does not take {name}={value!r}" in str(caught.value)
    assert reason in str(caught.value)


def test_settings_that_nobody_has_are_named(algorithm):
    with pytest.raises(
        TypeError, match=rf"^{algorithm.__name__} has no setting 'gama'; did you mean 'gamma'\?$"
    ):
        make_agent(algorithm=algorithm, gama=0.5)
    with pytest.raises(TypeError, match=r"^The policy has no setting 'net_arhc'; did you mean 'net_arch'"):
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

    def __init__(self, shape, high=1.0, dtype: Any = np.float32):
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tensorboard_log", 5),
        ("tensorboard_log", ["runs"]),
        ("rollout_buffer_kwargs", 5),
        ("rollout_buffer_kwargs", []),
        ("rollout_buffer_kwargs", {"nonsense": 1}),
        ("rollout_buffer_kwargs", {"gamma": 0.5}),
        ("policy_kwargs", "x"),
        ("policy_kwargs", []),
        ("policy_kwargs", {5: 1}),
    ],
)
def test_a_setting_of_another_kind_is_named_before_anything_is_built(name, value, algorithm):
    with pytest.raises(TypeError, match=rf"^{name} (must be|has) [^.]*"):
        algorithm("MlpPolicy", Untouchable(), **{name: value})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("core_kwargs", 5, "must be a dictionary"),
        ("net_arch", 5, "must be a list of sizes"),
        ("net_arch", [0], "must be a list of sizes"),
        ("net_arch", [1.5], "must be a list of sizes"),
        ("net_arch", [True], "must be a list of sizes"),
        ("net_arch", "64", "must be a list of sizes"),
        ("net_arch", {"pi": 5}, "must be a list of sizes"),
        ("net_arch", {"policy": [5]}, "must be a list of sizes"),
        ("net_arch", [10**12], "not enough memory"),
        ("activation_fn", "relu", "must be a class of torch.nn"),
        ("activation_fn", nn.Tanh(), "must be a class of torch.nn"),
        ("activation_fn", dict, "must be a class of torch.nn"),
        ("ortho_init", "x", "must be True or False"),
        ("ortho_init", None, "must be True or False"),
        ("log_std_init", "x", "must be a finite number"),
        ("log_std_init", NAN, "must be a finite number"),
        ("features_extractor_class", 5, "must be a class derived from BaseFeaturesExtractor"),
        ("features_extractor_class", nn.Linear, "must be a class derived from BaseFeaturesExtractor"),
        ("features_extractor_kwargs", [], "must be a dictionary"),
        ("features_extractor_kwargs", {"x": 1}, "has x, which FlattenExtractor does not take; it takes none"),
        ("features_extractor_kwargs", {"observation_space": 1}, "has observation_space, which"),
        ("normalize_images", "x", "must be True or False"),
        ("optimizer_class", 5, "must be an optimizer of torch"),
        ("optimizer_class", dict, "must be an optimizer of torch"),
        ("optimizer_class", "Adam", "must be an optimizer of torch"),
        ("optimizer_kwargs", 5, "must be a dictionary"),
        ("optimizer_kwargs", {"x": 1}, "are not what Adam takes"),
        ("optimizer_kwargs", {"eps": -1}, "are not what Adam takes: Invalid epsilon"),
        ("optimizer_kwargs", {"lr": 0.1}, "are not what Adam takes"),
    ],
)
def test_a_setting_of_the_policy_that_is_not_allowed_is_named(name, value, words):
    with pytest.raises((ValueError, TypeError), match=words) as caught:
        make_agent(policy_kwargs={name: value})
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"net_arch": (5, np.int64(4)), "activation_fn": functools.partial(nn.LeakyReLU, 0.2)},
        {"net_arch": {"pi": [5]}, "activation_fn": nn.ReLU, "ortho_init": False, "log_std_init": -1},
        {"net_arch": {}},
        {"optimizer_class": functools.partial(torch.optim.SGD, momentum=0.9), "optimizer_kwargs": {}},
        {"optimizer_class": torch.optim.RMSprop, "optimizer_kwargs": {"alpha": 0.99, "eps": 1e-5}},
    ],
)
def test_what_stable_baselines3_takes_is_taken(settings):
    make_agent(n_steps=4, policy_kwargs=settings).learn(8)


def test_a_size_of_an_extractor_is_checked():
    for policy, env, name in (
        ("CnnPolicy", DummyVecEnv([lambda: Pictures((3, 36, 36), 255, np.uint8)]), "features_dim"),
        ("MultiInputPolicy", DummyVecEnv([DictOfTwo]), "cnn_output_dim"),
    ):
        with pytest.raises(ValueError, match=f"^{name} of features_extractor_kwargs must be at least 1"):
            make_agent(policy, env, policy_kwargs={"features_extractor_kwargs": {name: 0}})


class DictOfTwo(gymnasium.Env):
    """Two observations by their names."""

    observation_space = spaces.Dict({"here": spaces.Discrete(2), "there": spaces.Discrete(2)})
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"here": 0, "there": 0}, {}


@pytest.mark.parametrize("env", [5, "", "Nothing-v0", "CartPole-v99", "nowhere:A-v0", [], MazeVecEnv, None])
def test_what_is_no_environment_is_named(env, algorithm):
    with pytest.raises((ValueError, TypeError), match=r"\benv\b") as caught:
        algorithm("MlpPolicy", env)
    assert "\n" not in str(caught.value)


def test_a_vector_of_gymnasium_is_told_apart():
    with pytest.raises(
        TypeError, match=r"env must be .* or a VecEnv of Stable-Baselines3, got MazeVectorEnv"
    ):
        RecurrentA2C("MlpPolicy", MazeVectorEnv(2))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        *[({"total_timesteps": value}, "total_timesteps") for value in (-1, 1.5, NAN, "x", None, True)],
        *[({"log_interval": value}, "log_interval") for value in (0, -1, 1.5, "x")],
        *[({"callback": value}, "callback") for value in (5, "x", (), [5], [lambda *_: True])],
        ({"tb_log_name": 5}, "tb_log_name"),
        ({"reset_num_timesteps": "no"}, "reset_num_timesteps"),
        ({"progress_bar": None}, "progress_bar"),
    ],
)
def test_arguments_of_learn_are_checked_before_it_starts(arguments, name, algorithm):
    agent = make_agent(algorithm=algorithm, n_steps=4)
    with pytest.raises((ValueError, TypeError), match=f"^{name} .*must be"):
        agent.learn(**{"total_timesteps": 8, **arguments})
    assert agent.num_timesteps == 0
    assert agent._last_obs is None


def test_whole_numbers_of_any_kind_and_functions_are_taken_by_learn():
    seen = []
    others: Any = {"total_timesteps": 16.0, "log_interval": None}
    agent = make_agent(n_steps=4).learn(callback=lambda *_: not seen.append(1), **others)
    assert agent.num_timesteps == 16
    assert len(seen) == 8
    assert agent.learn(0, []).num_timesteps == 0


def test_seeds_that_are_none_are_refused_later_too():
    agent = make_agent()
    agent.set_random_seed(np.int64(3))  # pyright: ignore[reportArgumentType]
    expected = torch.rand(2)
    agent.set_random_seed(3)
    assert torch.equal(torch.rand(2), expected)
    wrong: list[Any] = [-1, 1.5, "x", 2**32]
    for seed in wrong:
        with pytest.raises(ValueError, match="seed must be a whole number from 0"):
            agent.set_random_seed(seed)


def test_learning_needs_an_environment(tmp_path):
    make_agent(n_steps=4).save(tmp_path / "agent")
    with pytest.raises(ValueError, match=r"no env to learn in; give it one with set_env\(\) or load"):
        RecurrentA2C.load(tmp_path / "agent").learn(8)


def test_a_file_in_the_way_of_the_events_is_named(tmp_path):
    (tmp_path / "file").touch()
    agent = make_agent(n_steps=4, tensorboard_log=str(tmp_path / "file" / "runs"))
    with pytest.raises(
        ValueError, match=r"tensorboard_log cannot be in or below .*file, which is not a folder"
    ):
        agent.learn(8)
    assert agent.num_timesteps == 0

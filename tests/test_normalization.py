"""The statistics of VecNormalize: in every checkpoint, and in evaluation."""

import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize, unwrap_vec_normalize
from test_scripts_a2c import run_script  # noqa: F401 - a fixture

from mnm_rl.agents import RecurrentA2C, RecurrentPPO
from mnm_rl.envs import MazeVecEnv
from mnm_rl.training.folder import read_run
from mnm_rl.training.rl.agent import load_agent, make_agent
from mnm_rl.training.rl.config import A2CConfig, PPOConfig
from mnm_rl.training.rl.environments import EnvConfig, make_env, normalized_env
from mnm_rl.training.rl.evaluation import evaluate_agent

ALGORITHMS = [RecurrentA2C, RecurrentPPO]


def cart_pole(envs: int = 2) -> VecNormalize:
    return VecNormalize(make_vec_env("CartPole-v1", envs, seed=0), gamma=0.9, clip_obs=5.0)


def agent_of(algorithm: Any, env: Any, **settings: Any) -> Any:
    return algorithm("MlpPolicy", env, n_steps=9, seed=0, device="cpu", **settings)


def statistics(env: Any) -> list[list[float]]:
    wrapper: Any = unwrap_vec_normalize(env)
    parts = (wrapper.obs_rms, wrapper.ret_rms)
    return [[*np.ravel(part.mean), *np.ravel(part.var), part.count] for part in parts]


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("force_reset", [True, False])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_statistics_are_saved_and_put_back(algorithm, force_reset, trusted, tmp_path):
    agent = agent_of(algorithm, cart_pole()).learn(54)
    agent.save(tmp_path / "agent")
    env = cart_pole(3 if force_reset else 2)
    algorithm.load(tmp_path / "agent", env=env, force_reset=force_reset, trusted=trusted)
    assert statistics(env) == statistics(agent.env)
    assert statistics(env)[0][-1] > 50


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_run_in_an_environment_that_was_kept_goes_on_the_same(algorithm, tmp_path):
    whole = agent_of(algorithm, cart_pole()).learn(90)
    env = cart_pole()
    agent_of(algorithm, env).learn(36).save(tmp_path / "agent")
    again = algorithm.load(tmp_path / "agent", env=env, device="cpu", force_reset=False)
    again.learn(54, reset_num_timesteps=False)
    assert statistics(env) == statistics(whole.env)
    for ours, theirs in zip(again.policy.parameters(), whole.policy.parameters(), strict=True):
        assert ours.equal(theirs)


def test_a_save_in_the_middle_of_a_rollout_holds_the_statistics_of_its_moment(tmp_path):
    seen: dict[int, Any] = {}

    class Both(CheckpointCallback):
        def _on_step(self) -> bool:
            seen[self.n_calls] = statistics(self.training_env)
            return super()._on_step()

    agent_of(RecurrentA2C, cart_pole()).learn(54, Both(13, str(tmp_path), "agent"))
    env = cart_pole()
    RecurrentA2C.load(tmp_path / "agent_26_steps.zip", env=env, device="cpu", force_reset=False)
    assert statistics(env) == seen[13]


def test_with_the_maze_they_are_those_of_the_rollouts_start(tmp_path):
    def maze() -> VecNormalize:
        return VecNormalize(MazeVecEnv(2, size=3, horizon=10))

    callback = CheckpointCallback(13, str(tmp_path), "agent")
    whole = agent_of(RecurrentA2C, maze()).learn(54, callback)
    path = tmp_path / "agent_26_steps.zip"
    again = RecurrentA2C.load(path, env=maze(), device="cpu", force_reset=False)
    again.learn(36, reset_num_timesteps=False)
    assert statistics(again.env) == statistics(whole.env)
    assert np.array_equal(again._last_obs, whole._last_obs)  # pyright: ignore


def test_a_vecnormalize_that_has_seen_something_keeps_its_statistics(tmp_path):
    agent_of(RecurrentA2C, cart_pole()).learn(54).save(tmp_path / "agent")
    env = cart_pole()
    env.reset()
    before = statistics(env)
    RecurrentA2C.load(tmp_path / "agent", env=env)
    assert statistics(env) == before


def test_an_environment_for_evaluation(tmp_path):
    agent = agent_of(RecurrentPPO, cart_pole()).learn(90)
    agent.save(tmp_path / "agent")
    loaded = RecurrentPPO.load(tmp_path / "agent", device="cpu")
    for player in (agent, loaded):
        for raw in ("CartPole-v1", gymnasium.make("CartPole-v1"), make_vec_env("CartPole-v1", 1)):
            env: Any = player.normalize_env(raw)
            assert statistics(env) == statistics(agent.env)
            wrapper = unwrap_vec_normalize(env)
            assert wrapper is not None
            assert (wrapper.training, wrapper.norm_reward, wrapper.clip_obs) == (False, False, 5.0)
            mean: Any = evaluate_policy(player, env, 2)[0]
            assert mean == round(mean * 2) / 2 >= 8
            assert statistics(env) == statistics(agent.env)
    observation: Any = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert (
        loaded.normalize_env("CartPole-v1").normalize_obs(observation).tolist()  # pyright: ignore
        == agent.env.normalize_obs(observation).tolist()
    )


def test_an_agent_without_statistics_gets_the_environment_as_it_is():
    agent = agent_of(RecurrentA2C, make_vec_env("CartPole-v1", 2))
    env = make_vec_env("CartPole-v1", 2)
    assert agent.normalize_env(env) is env


def test_environments_that_do_not_fit_are_refused():
    agent = agent_of(RecurrentA2C, cart_pole()).learn(18)
    with pytest.raises(ValueError, match="in a VecNormalize already"):
        agent.normalize_env(cart_pole())
    with pytest.raises(ValueError, match="not finite ones of the shape"):
        agent.normalize_env("Pendulum-v1")
    with pytest.raises(ValueError, match="cannot make the env"):
        agent.normalize_env("Nothing-v0")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("obs_rms", {}, "obs_rms"),
        ("obs_rms", "x", "obs_rms"),
        ("ret_rms", None, "ret_rms"),
        ("clip_obs", "wide", "setting clip_obs 'wide'"),
        ("norm_obs", 1, "setting norm_obs 1"),
        ("norm_obs_keys", 5, "norm_obs_keys|int"),
    ],
)
def test_statistics_in_a_strangers_file_are_checked(name, value, message, tmp_path):
    agent = agent_of(RecurrentA2C, cart_pole()).learn(18)
    agent._run_state = agent._present()[1]
    agent._run_state["env"][0][1][name] = value
    # What is saved otherwise is the present.
    agent._rollout_start = ({}, agent._run_state)
    agent.save(tmp_path / "agent")
    with pytest.raises(ValueError, match=message):
        RecurrentA2C.load(tmp_path / "agent", trusted=False)
    agent._run_state["env"][0][1]["obs_rms"] = agent.env.ret_rms
    agent.save(tmp_path / "agent")
    with pytest.raises(ValueError, match="checkpoint"):
        RecurrentA2C.load(tmp_path / "agent", trusted=False)


class Mixed(gymnasium.Env):
    """Numbers, an image and a choice."""

    observation_space = spaces.Dict(
        {
            "numbers": spaces.Box(-1, 1, (2,)),
            "image": spaces.Box(0, 255, (36, 36, 3), np.uint8),
            "choice": spaces.Discrete(2),
        }
    )
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        return self.observation_space.sample(), 100.0, False, bool(self.np_random.random() < 0.3), {}


gymnasium.register("MixedForNormalization-v0", lambda **_: Mixed())


@pytest.mark.parametrize("kind", [A2CConfig, PPOConfig])
@pytest.mark.parametrize(
    ("normalize", "env_id"),
    [("both", "CartPole-v1"), ("rewards", "CartPole-v1"), ("observations", "MixedForNormalization-v0")],
)
def test_a_run_trains_goes_on_and_is_evaluated_normalised(kind, normalize, env_id, tmp_path):
    config = kind(env=env_id, normalize=normalize, n_envs=2, n_steps=8, core="lstm", gamma=0.9)
    agent: Any = make_agent(config, make_env(config, 2))
    agent.learn(64)
    wrapper: Any = unwrap_vec_normalize(agent.env)
    assert (wrapper.norm_obs, wrapper.norm_reward) == (normalize != "rewards", normalize != "observations")
    assert (wrapper.gamma, wrapper.clip_obs) == (0.9, 10)
    agent.save(tmp_path / "checkpoint.zip")
    again: Any = load_agent(tmp_path, config, make_env(config, 2))
    one, other = (unwrap_vec_normalize(each.env) for each in (agent, again))
    assert one is not None
    assert other is not None
    assert pickle.dumps(one.ret_rms) == pickle.dumps(other.ret_rms)
    if normalize != "rewards":
        assert pickle.dumps(one.obs_rms) == pickle.dumps(other.obs_rms)
    if env_id.startswith("Mixed"):
        assert list(one.obs_rms) == ["numbers"]  # pyright: ignore
    score = evaluate_agent(again, make_env(config, 2), 4, deterministic=False)
    # Whole rewards, as the environment gives them.
    assert score.mean * 4 == round(score.mean * 4) >= 4
    again.learn(16, reset_num_timesteps=False)


def test_statistics_survive_a_save_without_the_environment(tmp_path):
    env = VecNormalize(make_vec_env("CartPole-v1", 2))
    agent = RecurrentA2C("MlpPolicy", env, n_steps=8, policy_kwargs={"core": "gru"}, device="cpu").learn(32)
    agent.save(tmp_path / "first")
    RecurrentA2C.load(tmp_path / "first").save(tmp_path / "second")
    agent.save_pretrained(tmp_path / "model")
    RecurrentA2C.from_pretrained(tmp_path / "model").save(tmp_path / "third")
    for name in ("second", "third"):
        alone = RecurrentA2C.load(tmp_path / name)
        found = unwrap_vec_normalize(alone.normalize_env("CartPole-v1"))
        assert found is not None
        np.testing.assert_array_equal(found.obs_rms.mean, env.obs_rms.mean)  # pyright: ignore
        for force_reset in (True, False):
            learner = VecNormalize(make_vec_env("CartPole-v1", 2))
            RecurrentA2C.load(tmp_path / name, env=learner, force_reset=force_reset)
            np.testing.assert_array_equal(learner.obs_rms.mean, env.obs_rms.mean)  # pyright: ignore
    maze = VecNormalize(MazeVecEnv(2, size=5, horizon=20))
    of_maze = RecurrentA2C("MlpPolicy", maze, n_steps=8, policy_kwargs={"core": "gru"}, device="cpu").learn(
        32
    )
    of_maze.save(tmp_path / "maze")
    RecurrentA2C.load(tmp_path / "maze").save(tmp_path / "alone")
    learner = VecNormalize(MazeVecEnv(2, size=5, horizon=20))
    RecurrentA2C.load(tmp_path / "alone", env=learner, force_reset=False)
    np.testing.assert_array_equal(learner.obs_rms.mean, maze.obs_rms.mean)  # pyright: ignore


def test_evaluation_shows_normalised_observations(monkeypatch):
    config = A2CConfig(env="CartPole-v1", normalize="observations", n_envs=2, n_steps=8, core="lstm")
    agent: Any = make_agent(config, make_env(config, 2)).learn(160)
    seen: list[Any] = []
    predict = agent.predict

    def remember(observation: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(observation)
        return predict(observation, *args, **kwargs)

    monkeypatch.setattr(agent, "predict", remember)
    evaluate_agent(agent, make_env(config, 1), 20, deterministic=False)
    # CartPole's positions are hundredths; normalised they are of the order of 1.
    assert np.abs(np.concatenate(seen)).mean() > 0.3


@pytest.mark.parametrize("program", ["train_a2c", "train_ppo"])
def test_the_commands(program, run_script, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    words = [
        "--env",
        "Pendulum-v1",
        "--normalize",
        "both",
        "--n-envs",
        "2",
        "--n-steps",
        "50",
        "--core",
        "lstm",
    ]
    status, _, err = run_script(program, *words, "--timesteps", "600", "--log-every", "1", "--log-dir", run)
    assert (status, err) == (0, "")
    assert read_run(run)["config"]["normalize"] == "both"
    rows = (run / "progress.csv").read_text().splitlines()
    column = rows[0].split(",").index("reward")
    rewards = [float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column] not in ("", "nan")]
    # An episode of Pendulum costs hundreds; normalised rewards are of the order of 1 per step, at most 10.
    assert min(rewards) < -500
    assert run_script(program, "--resume", run, "--timesteps", "1000")[0] == 0
    status, out, err = run_script("evaluate", run, "--episodes", "4")
    assert (status, err) == (0, "")
    assert "agent, deterministic" in out


def test_of_observations_that_are_no_numbers_the_rewards_alone_are_normalised():
    config = PPOConfig(env="FrozenLake-v1", n_envs=2)
    assert config.normalize == "both"
    env = normalized_env(config, make_env(config, 2), config.discount)
    assert isinstance(env, VecNormalize)
    assert (env.norm_obs, env.norm_reward) == (False, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--normalize", "both"], "normalize is not for the maze"),
        (
            ["--env", "FrozenLake-v1", "--normalize", "observations"],
            "are no numbers that could be normalised",
        ),
        (["--env", "CartPole-v1", "--normalize", "yes"], "normalize"),
    ],
)
def test_bad_options(words, message, run_script, tmp_path):  # noqa: F811
    status, out, err = run_script("train_ppo", *words, "--log-dir", tmp_path / "run")
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_old_configs_mean_none():
    assert EnvConfig().normalize is None
    env = make_env(EnvConfig(env="CartPole-v1"), 1)
    assert isinstance(env, DummyVecEnv)

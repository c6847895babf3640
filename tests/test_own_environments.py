"""What is said of environments of users that fail."""

import re
from typing import Any

import gymnasium
import numpy as np
import own_envs
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize
from test_scripts_a2c import run_script  # noqa: F401 - a fixture

from mnm_rl.agents import FlatSpaces, RecurrentA2C, RecurrentPPO
from mnm_rl.commands.parsing import parse_run
from mnm_rl.training.rl.own_environments import EnvironmentFault, NamedFaults, NamedSubprocVecEnv

WORDS = ["--core", "lstm", "--hidden-size", "4", "--timesteps", "80", "--n-envs", "2", "--n-steps", "10"]
WORDS += ["--quiet", "--no-tensorboard"]


def own(name: str) -> list[str]:
    return ["--env", f"own_envs:{name}-v0"]


@pytest.mark.parametrize("name", own_envs.FAULTS)
def test_it_is_one_sentence_and_no_folder_is_made(run_script, tmp_path, name):  # noqa: F811
    run = tmp_path / "run"
    status, out, error = run_script("train_ppo", *own(name), *WORDS, "--log-dir", run)
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert re.search(own_envs.FAULTS[name].replace("own:", "own_envs:"), error), error
    # What an agent alone can find is found when it looks at the first observation.
    assert run.exists() == (name == "OutOfDiscrete")


def test_a_fault_in_the_middle_names_its_place_and_the_search_stops(run_script, tmp_path):  # noqa: F811
    words = [*own("FailsLater"), *WORDS]
    wanted = (
        r"own_envs:FailsLater-v0 failed in step\(\): TypeError: a fault of the user's own \(own_envs.py, line"
    )
    status, _, error = run_script("train_a2c", *words, "--log-dir", tmp_path / "run")
    assert (status, error.count("\n")) == (2, 1)
    assert re.search(wanted, error)
    pytest.importorskip("optuna")
    status, _, error = run_script("tune", *words[:-1], "--trials", "2", "--out", tmp_path / "search")
    assert (status, error.count("\n")) == (2, 1)
    assert re.search(wanted, error)


def test_a_search_in_which_no_trial_can_be_judged_has_failed(run_script, tmp_path):  # noqa: F811
    pytest.importorskip("optuna")
    words = ["--env", "Pendulum-v1", *WORDS[:-1], "--trials", "1", "--out", tmp_path / "search"]
    assert run_script("tune", *words)[0] == 1


def test_processes_of_environments_that_end_are_one_sentence_too(run_script, tmp_path):  # noqa: F811
    words = [*own("FailsLater"), *WORDS, "--subprocesses", "--log-dir", tmp_path / "run"]
    status, _, error = run_script("train_ppo", *words)
    assert status == 2
    assert error.splitlines()[-1].endswith("process of an environment has ended; what it said stands above.")


def test_a_process_that_is_killed(tmp_path):
    env = NamedSubprocVecEnv([lambda: gymnasium.make("CartPole-v1")] * 2)
    env.reset()
    env.processes[1].kill()
    env.processes[1].join()
    with pytest.raises(EnvironmentFault, match="has ended"):
        env.step(np.zeros(2, np.int64))
    env.close()


def test_an_environment_without_faults_is_what_it_was():
    plain, named = own_envs.Own(), NamedFaults(own_envs.Own(), "own")
    for one, other in zip(plain.reset(seed=1), named.reset(seed=1), strict=True):
        np.testing.assert_equal(one, other)
    for _ in range(10):
        for one, other in zip(plain.step(0), named.step(0), strict=True):
            np.testing.assert_equal(one, other)
    assert not named.has_wrapper_attr("action_masks")
    assert NamedFaults(own_envs.BadMasks(), "own").get_wrapper_attr("action_masks")() == [False, False]


@pytest.mark.parametrize("algorithm", [RecurrentA2C, RecurrentPPO])
@pytest.mark.parametrize("name", ["NoNumbers", "NoDimension", "UnboundedActions"])
def test_spaces_that_cannot_be_served_are_refused_when_an_agent_is_made(algorithm, name):
    with pytest.raises(ValueError, match=own_envs.FAULTS[name]):
        algorithm("MlpPolicy", make_vec_env(getattr(own_envs, name), 2))


def test_an_observation_out_of_a_discrete_space_is_refused():
    agent = RecurrentPPO("MlpPolicy", make_vec_env("FrozenLake-v1", 2), n_steps=4)
    with pytest.raises(ValueError, match=r"An observation lies outside of Discrete\(16\)"):
        agent.predict(np.array([3, 16]))
    agent = RecurrentPPO("MlpPolicy", make_vec_env(own_envs.OutOfDiscrete, 2), n_steps=4)
    with pytest.raises(ValueError, match=r"An observation lies outside of Discrete\(4\)"):
        agent.learn(8)


def test_whole_numbers_are_acted_with_where_the_space_has_them():
    agent = RecurrentPPO("MlpPolicy", make_vec_env(own_envs.WholeActions, 2), n_steps=20)
    agent.learn(80)
    action, _ = agent.predict(np.zeros(3, np.float32))
    assert action.dtype == np.int64


def test_a_reward_that_is_not_finite_ends_a_run_whose_rewards_are_normalised(run_script, tmp_path):  # noqa: F811
    run = tmp_path / "run"
    words = [*own("NanOnce"), *WORDS[:5], "400", *WORDS[6:], "--checkpoint-minutes", "0.00001"]
    status, _, error = run_script("train_ppo", *words, "--log-dir", run)
    assert (status, error.count("\n")) == (2, 1)
    assert "Environment 0 has returned the reward nan; only finite rewards can be normalised." in error
    # The checkpoint is from before it.
    assert run_script("evaluate", run, "--trusted", "--episodes", "2")[0] == 0
    status, _, error = run_script("train_ppo", *words, "--normalize", "none", "--log-dir", tmp_path / "other")
    assert (status, error) == (0, ""), "it costs one update there"


def test_a_reward_that_is_not_finite_is_no_fault_where_only_observations_are_normalised():
    env = VecNormalize(make_vec_env(own_envs.NanOnce, 2), norm_reward=False)
    RecurrentPPO("MlpPolicy", env, n_steps=20).learn(160)


def test_observations_that_are_tuples_are_told_what_they_need():
    agent = RecurrentPPO("MlpPolicy", make_vec_env(own_envs.Own, 2), n_steps=4)
    with pytest.raises(ValueError, match=r"goes into mnm_rl\.agents\.FlatSpaces first"):
        agent.predict((np.zeros(3, np.float32), 1))  # pyright: ignore[reportArgumentType]
    assert FlatSpaces(own_envs.Own()).observation_space == own_envs.UNIT


def test_a_wrong_setting_is_told_what_may_have_been_meant():
    env = make_vec_env(own_envs.Own, 2)
    with pytest.raises(TypeError, match="The policy has no setting 'encoder'; did you mean 'encoder_arch'"):
        RecurrentPPO("MlpPolicy", env, policy_kwargs={"encoder": [4]})
    with pytest.raises(TypeError, match="RecurrentPPO has no setting 'num_steps'; did you mean 'n_steps'"):
        RecurrentPPO("MlpPolicy", env, num_steps=4)


@pytest.mark.parametrize(
    ("given", "batch_size"),
    [
        ([], 512),
        (["--n-envs", "4"], None),
        (["--n-steps", "100"], None),
        (["--n-envs", "7", "--n-steps", "5"], None),
        (["--batch-size", "64"], 64),
    ],
)
def test_another_size_of_rollouts_keeps_the_number_of_minibatches(monkeypatch, given, batch_size):
    from mnm_rl.commands import train_ppo

    monkeypatch.setattr("sys.argv", ["train_ppo.py", "--env", "CartPoleNoVel-v1", *given])
    usual = train_ppo.new_config(
        train_ppo.find_choices(["--env", "CartPoleNoVel-v1"]), train_ppo.PPO_AGENT, []
    )
    run = train_ppo._parse().run
    run.check()
    assert run.batch_size is not None
    if batch_size is not None:
        assert run.batch_size == batch_size
    else:
        assert isinstance(usual, type(run))
        assert usual.batch_size is not None
        wanted = usual.rollout_steps * usual.n_envs // usual.batch_size
        made = run.rollout_steps * run.n_envs // run.batch_size
        assert made == max(count for count in range(1, wanted + 1) if run.n_envs % count == 0)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--previous-action", "--previous-reward"], (True, True)),
        (["--previous-action"], (True, False)),
        (["--no-previous-action"], (False, False)),
        (["--previous_action", "True"], (True, False)),
        (["--previous-action", "False", "--previous-reward"], (False, True)),
        ([], (None, False)),
    ],
)
def test_a_switch_needs_no_value(monkeypatch, words, found):
    from mnm_rl.commands import train_ppo

    monkeypatch.setattr("sys.argv", ["train_ppo.py", "--env", "CartPole-v1", *words])
    args: Any = train_ppo._parse()
    assert (args.run.previous_action, args.run.previous_reward) == found
    assert parse_run is train_ppo.parse_run

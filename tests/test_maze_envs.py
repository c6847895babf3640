"""The three environments: their checkers, that they play alike, and what Stable-Baselines3 asks of them."""

from __future__ import annotations

import copy
import doctest
import pickle
import subprocess
import sys
import warnings
from typing import cast

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import A2C
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize

import mnm_rl
import mnm_rl.envs.maze
from mnm_rl.envs import MazeEnv, MazeVecEnv, MazeVectorEnv


@pytest.mark.parametrize("arguments", [{}, {"previous_action": True, "size": 3, "relocation": "2019"}])
def test_gymnasium_and_sb3_checkers(arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("MNMMaze-9x9", **arguments).unwrapped)
        sb3_check_env(MazeEnv(**arguments))


@pytest.mark.parametrize("size", [3, 5, 7, 9, 11, 13])
def test_registered_ids(size):
    env = gymnasium.make(f"mnm_rl:MNMMaze-{size}x{size}", horizon=7, goal_reward=5)
    maze = env.unwrapped
    assert isinstance(maze, MazeEnv)
    assert maze.mazes.rules.size == size
    assert maze.mazes.rules.horizon == 7
    batch = gymnasium.make_vec(f"MNMMaze-{size}x{size}", num_envs=3, wall_reward=-1)
    assert isinstance(batch, MazeVectorEnv)
    assert (batch.num_envs, batch.mazes.rules.size, batch.mazes.rules.wall_reward) == (3, size, -1)
    assert batch.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    same = gymnasium.make_vec(f"MNMMaze-{size}x{size}", num_envs=3, autoreset_mode="SameStep")
    assert same.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP


def test_gymnasium_imports_the_package_by_itself():
    code = "import gymnasium; print(gymnasium.make('mnm_rl:MNMMaze-9x9').reset(seed=0)[0].shape)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "(11,)"


def test_the_rule_book_examples_run():
    result = doctest.testmod(mnm_rl.envs.maze)
    assert result.attempted >= 5
    assert result.failed == 0


rules = st.fixed_dictionaries(
    {
        "size": st.sampled_from([3, 5, 9]),
        "horizon": st.integers(1, 30),
        "relocation": st.sampled_from(["2018", "2019"]),
        "previous_action": st.booleans(),
        "wall_reward": st.sampled_from([-0.1, -1.0, 0.25]),
    }
)


@settings(deadline=None, max_examples=25)
@given(rules=rules, seed=st.integers(0, 10**9), num_envs=st.integers(1, 5))
def test_single_and_both_batched_mazes_play_alike(rules, seed, num_envs):
    singles = SyncVectorEnv(
        [lambda: MazeEnv(**rules) for _ in range(num_envs)], autoreset_mode=AutoresetMode.SAME_STEP
    )
    vector = MazeVectorEnv(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **rules)
    sb3 = MazeVecEnv(num_envs, **rules)
    sb3.seed(seed)
    first, _ = singles.reset(seed=seed)
    np.testing.assert_array_equal(vector.reset(seed=seed)[0], first)
    np.testing.assert_array_equal(sb3.reset(), first)
    generator = np.random.default_rng(seed)
    for _ in range(2 * rules["horizon"] + 3):
        actions = generator.integers(0, 4, num_envs)
        expected = singles.step(actions)
        actual = vector.step(actions)
        assert data_equivalence(actual, expected, exact=True)
        observations, rewards, dones, infos = sb3.step(actions)
        np.testing.assert_array_equal(observations, expected[0])
        np.testing.assert_array_equal(rewards, expected[1].astype(np.float32))
        np.testing.assert_array_equal(dones, expected[3])
        for row in range(num_envs):
            assert bool(infos[row]) == dones[row]
            if dones[row]:
                info, final = infos[row], expected[4]["final_info"]
                np.testing.assert_array_equal(info["terminal_observation"], expected[4]["final_obs"][row])
                assert info["TimeLimit.truncated"] is True
                assert info["episode"]["l"] == rules["horizon"]
                assert info["goal_visits"] == final["goal_visits"][row]
                np.testing.assert_array_equal(info["goal_position"], final["goal_position"][row])
    # Resetting without a seed goes on with the random numbers, in all three alike.
    np.testing.assert_array_equal(vector.reset()[0], singles.reset()[0])
    goals = [cast(MazeEnv, env).mazes.goal[0] for env in singles.envs]
    sb3.reset()
    np.testing.assert_array_equal(vector.mazes.goal, goals)
    np.testing.assert_array_equal(sb3.mazes.goal, goals)


def test_seeds_given_one_by_one_and_reset_masks():
    one, other = MazeVectorEnv(3), MazeVectorEnv(3)
    one.reset(seed=[5, 6, 7])
    other.reset(seed=5)
    np.testing.assert_array_equal(one.mazes.goal, other.mazes.goal)
    for _ in range(4):
        one.step(np.array([0, 1, 2]))
    mask = np.array([False, True, False])
    one.reset(seed=[None, 40, None], options={"reset_mask": mask})
    assert one.mazes.time.tolist() == [4, 0, 4]
    single = MazeEnv()
    single.reset(seed=40)
    assert one.mazes.goal[1] == single.mazes.goal[0]
    with pytest.raises(ValueError, match="reset_mask"):
        one.reset(options={"reset_mask": np.zeros(3, dtype=bool)})
    with pytest.raises(ValueError, match="3 mazes need 3 seeds"):
        one.reset(seed=[1, 2])


def test_batches_whose_episodes_end_at_different_times():
    batch = MazeVectorEnv(2, horizon=5, autoreset_mode=AutoresetMode.SAME_STEP)
    batch.reset(seed=0)
    batch.step(np.array([0, 0]))
    batch.reset(options={"reset_mask": np.array([True, False])})
    ends = [batch.step(np.array([0, 1]))[3].tolist() for _ in range(10)]
    assert [step for step, end in enumerate(ends) if end[0]] == [4, 9]
    assert [step for step, end in enumerate(ends) if end[1]] == [3, 8]


def test_unseeded_mazes_differ():
    batch = MazeVectorEnv(50)
    batch.reset()
    assert len(set(batch.mazes.goal.tolist())) > 5
    goals = set()
    for _ in range(10):
        env = MazeEnv()
        env.reset()
        goals.add(env.goal_position)
    assert len(goals) > 2


def test_a_generator_set_from_outside_is_used():
    goals = []
    for _ in range(2):
        env = MazeEnv()
        env.reset(seed=1)
        env.np_random = np.random.default_rng(7)
        env.reset()
        goals.append([env.goal_position for _ in range(5) if env.reset()])
    assert goals[0] == goals[1]


def test_results_are_not_overwritten_by_later_steps():
    batch = MazeVecEnv(4)
    batch.seed(0)
    first = batch.reset()
    kept = first.copy()
    actions = np.array([0, 1, 2, 3])
    observations, rewards, _, _ = batch.step(actions)
    assert isinstance(observations, np.ndarray)
    seen, paid = observations.copy(), rewards.copy()
    actions[:] = 0
    for _ in range(5):
        batch.step(actions)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(observations, seen)
    np.testing.assert_array_equal(rewards, paid)


def test_what_is_written_into_an_info_stays_there():
    batch = MazeVecEnv(2, horizon=3)
    batch.reset()
    infos = batch.step(np.array([0, 0]))[3]
    infos[0]["mine"] = 1
    assert infos[1] == {}
    assert batch.step(np.array([0, 0]))[3] == [{}, {}]


def play(batch: MazeVecEnv, steps: int, generator: np.random.Generator) -> list[np.ndarray]:
    outcome = []
    for _ in range(steps):
        observations, rewards, dones, infos = batch.step(generator.integers(0, 4, batch.num_envs))
        returns = [info["episode"]["r"] if info else 0.0 for info in infos]
        assert isinstance(observations, np.ndarray)
        outcome.append(np.column_stack([observations, rewards, dones, returns]))
    return outcome


@pytest.mark.parametrize("pending", [False, True])
def test_a_saved_state_goes_on_bit_for_bit(pending, tmp_path):
    arguments = {"horizon": 30, "size": 5, "previous_action": True}
    batch = MazeVecEnv(6, **arguments)
    batch.seed(3)
    batch.reset()
    play(batch, 47, np.random.default_rng(0))
    if pending:
        batch.seed(99)
    np.savez(tmp_path / "state.npz", **batch.get_state())  # pyright: ignore[reportArgumentType] - none is allow_pickle
    expected = play(batch, 80, np.random.default_rng(1))
    expected_first = batch.reset()
    expected += play(batch, 40, np.random.default_rng(2))

    resumed = MazeVecEnv(6, **arguments)
    resumed.set_state(dict(np.load(tmp_path / "state.npz")))
    actual = play(resumed, 80, np.random.default_rng(1))
    np.testing.assert_array_equal(resumed.reset(), expected_first)
    actual += play(resumed, 40, np.random.default_rng(2))
    np.testing.assert_array_equal(actual, expected)


def test_a_state_of_another_batch_is_refused():
    with pytest.raises(ValueError, match="a state of 2 mazes needs"):
        MazeVecEnv(2).set_state(MazeVecEnv(3).get_state())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("kind", [MazeEnv, MazeVectorEnv])
def test_copies_go_on_alike(kind, duplicate):
    env = kind()
    env.reset(seed=11)
    action = 0 if kind is MazeEnv else np.array([0])
    env.step(action)
    twin = duplicate(env)
    for _ in range(2):
        assert data_equivalence(env.step(action), twin.step(action), exact=True)
        assert data_equivalence(env.reset(), twin.reset(), exact=True)
        np.testing.assert_array_equal(env.mazes.goal, twin.mazes.goal)


def test_vec_monitor_and_own_episode_info_agree():
    batch = MazeVecEnv(3, horizon=12)
    with pytest.warns(UserWarning, match="already wrapped with a `Monitor`"):
        monitored = VecMonitor(batch)
    monitored.seed(0)
    monitored.reset()
    total = np.zeros(3)
    for step in range(12):
        _, rewards, dones, infos = monitored.step(np.array([step % 4, 0, 3]))
        total += rewards
    assert dones.all()
    for row, info in enumerate(infos):
        assert info["episode"]["r"] == pytest.approx(total[row], abs=1e-5)
        assert info["episode"]["l"] == 12


def test_a2c_learns_from_it_and_evaluate_policy_sees_true_returns():
    batch = VecNormalize(MazeVecEnv(4, horizon=20))
    model = A2C("MlpPolicy", batch, n_steps=20, seed=0).learn(160)
    assert len(model.ep_info_buffer or ()) == 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        returns, lengths = evaluate_policy(model, batch, n_eval_episodes=8, return_episode_rewards=True)
    assert lengths == [20] * 8
    assert isinstance(returns, list)
    for episode in returns:  # every return is a number of visits and a number of bumps
        assert round(episode * 10) == pytest.approx(episode * 10, abs=1e-5)


def test_single_maze_in_sb3s_own_vec_env():
    env = make_vec_env("mnm_rl:MNMMaze-5x5", n_envs=2, seed=0, env_kwargs={"horizon": 6})
    env.reset()
    for _ in range(6):
        _, _, dones, infos = env.step(np.array([0, 1]))
    assert dones.all()
    assert all(info["TimeLimit.truncated"] and info["episode"]["l"] == 6 for info in infos)


def test_gymnasiums_episode_statistics():
    env = RecordEpisodeStatistics(gymnasium.make_vec("MNMMaze-9x9", num_envs=3, horizon=8))
    env.reset(seed=0)
    total = np.zeros(3)
    for _ in range(8):
        _, rewards, _, truncated, info = env.step(np.array([0, 1, 2]))
        total += rewards
    assert truncated.all()
    np.testing.assert_allclose(info["episode"]["r"], total)
    np.testing.assert_array_equal(info["episode"]["l"], 8)


def test_questions_stable_baselines_asks():
    batch = MazeVecEnv(3, horizon=50)
    batch.seed(0)
    batch.reset()
    batch.step(np.array([0, 1, 2]))
    assert batch.get_attr("horizon") == [50] * 3
    assert batch.get_attr("time", indices=[0, 2]) == [1, 1]
    assert batch.get_attr("render_mode") == [None] * 3
    assert batch.env_is_wrapped(Monitor) == [True] * 3
    assert batch.env_is_wrapped(gymnasium.wrappers.TimeLimit, indices=1) == [False]
    assert not batch.has_attr("nonsense")
    with pytest.raises(AttributeError, match="set_state"):
        batch.set_attr("horizon", 3)
    with pytest.raises(AttributeError, match="'render' only"):
        batch.env_method("reset")
    with pytest.raises(RuntimeError, match="step_async"):
        MazeVecEnv(1).step_wait()
    batch.close()


def test_bad_arguments_are_named_by_the_batches_too():
    for kind in (MazeVectorEnv, MazeVecEnv):
        with pytest.raises(ValueError, match="size must be an odd"):
            kind(2, size=4)
        with pytest.raises(ValueError, match="render_mode must be one of rgb_array, ansi"):
            kind(2, render_mode="human")  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match="number of mazes"):
            kind(0)


BAD_SEEDS = (-1, 1.5, "x", float("nan"), True)


@pytest.mark.parametrize("seed", [*BAD_SEEDS, [1, 2]])
def test_seeds_that_are_none_are_refused_by_all_three(seed):
    resets = [lambda: MazeEnv(size=3).reset(seed=seed), lambda: MazeVecEnv(2, size=3).seed(seed)]
    if seed != [1, 2]:
        resets += [lambda: MazeVectorEnv(2, size=3).reset(seed=seed)]
        resets += [lambda: MazeVectorEnv(2, size=3).reset(seed=[0, seed])]
    for reset in resets:
        with pytest.raises(ValueError, match="a seed must be a whole number of at least 0, got"):
            reset()


def test_numbers_of_numpy_are_seeds():
    single, batch, vector = MazeEnv(size=9), MazeVecEnv(2), MazeVectorEnv(2)
    batch.seed(np.int64(7))  # pyright: ignore[reportArgumentType]
    batch.reset()
    vector.reset(seed=np.uint8(7))  # pyright: ignore[reportArgumentType]
    single.reset(seed=np.int32(7))  # pyright: ignore[reportArgumentType]
    assert batch.mazes.goal.tolist() == vector.mazes.goal.tolist()
    assert batch.mazes.goal[0] == single.mazes.goal[0]
    vector.reset(seed=np.array([7, 8]))  # pyright: ignore[reportArgumentType]
    assert batch.mazes.goal.tolist() == vector.mazes.goal.tolist()


def test_a_seed_that_a_state_cannot_hold_is_refused():
    batch = MazeVecEnv(2, size=3)
    with pytest.raises(ValueError, match=r"must be below 2\^63"):
        batch.seed(2**63 - 2)
    batch.seed(2**63 - 3)
    state = batch.get_state()
    batch.set_state(state)
    assert batch.get_state()["pending_seed"].tolist() == [2**63 - 3, 2**63 - 2]


@pytest.mark.parametrize("values", [[-5, 0], ["x", "y"], [0.5, 1], [True, False], [0], None])
def test_pending_seeds_of_a_state_are_checked(values):
    batch = MazeVecEnv(2, size=3)
    with pytest.raises(ValueError, match="'pending_seed'"):
        batch.set_state({**batch.get_state(), "pending_seed": np.array(values)})


@pytest.mark.parametrize("options", [5, "x", [1]])
def test_options_are_a_dictionary(options):
    for env in (MazeEnv(), MazeVectorEnv(2)):
        with pytest.raises(TypeError, match="options must be a dictionary of options or None"):
            env.reset(options=options)
    MazeEnv().reset(options={"something": 1})


@pytest.mark.parametrize("actions", [None, [[0], [1, 2]], "x", [0], [0.0, 1.0]])
def test_actions_of_the_wrong_kind_are_refused_by_both_batches(actions):
    for env in (MazeVecEnv(2, size=3), MazeVectorEnv(2, size=3)):
        env.reset()
        with pytest.raises(ValueError, match="actions must be 2 whole numbers from 0 to 3"):
            env.step(actions)


@pytest.mark.parametrize("size", [3, 9, 13])
def test_an_id_with_a_version_and_its_alias_make_the_same_environment(size):
    versioned, alias = f"MNMMaze-{size}x{size}-v0", f"MNMMaze-{size}x{size}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = [gymnasium.make(name, horizon=20) for name in (versioned, alias, f"mnm_rl:{versioned}")]
        batches = [gymnasium.make_vec(name, num_envs=2, horizon=20) for name in (versioned, alias)]
        assert gymnasium.spec(versioned).kwargs == gymnasium.spec(alias).kwargs == {"size": size}
    specs = [spec for env in envs if (spec := env.spec) is not None]
    assert [spec.id for spec in specs] == [versioned, alias, versioned]
    assert [spec.version for spec in specs] == [0, None, 0]
    assert gymnasium.make(specs[0]).spec == specs[0]
    for made in (envs, batches):
        first = [env.reset(seed=5)[0] for env in made]
        assert all((first[0] == other).all() for other in first)
        action = made[0].action_space.sample()
        after = [env.step(action)[:2] for env in made]
        assert all((np.asarray(after[0][0]) == np.asarray(other[0])).all() for other in after)


def test_a_version_that_there_is_not_is_refused():
    with pytest.raises(gymnasium.error.Error, match="MNMMaze-9x9-v1"):
        gymnasium.make("MNMMaze-9x9-v1")

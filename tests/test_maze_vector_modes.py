"""What Gymnasium promises of vector environments: autoreset modes, time limits, its own wrappers."""

import copy
import pickle
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from gymnasium.wrappers.vector import (
    NormalizeObservation,
    NormalizeReward,
    RecordEpisodeStatistics,
    TransformObservation,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mnm_rl.envs import MazeEnv, MazeVectorEnv

MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP]
rules = st.fixed_dictionaries(
    {
        "size": st.sampled_from([3, 5]),
        "horizon": st.integers(1, 12),
        "relocation": st.sampled_from(["2018", "2019"]),
        "previous_action": st.booleans(),
    }
)


def single_mazes(num_envs, rules, mode, limit=None):
    def make():
        return MazeEnv(**rules) if limit is None else TimeLimit(MazeEnv(**rules), limit)

    return SyncVectorEnv([make] * num_envs, autoreset_mode=mode)


@settings(deadline=None, max_examples=25)
@given(rules=rules, seed=st.integers(0, 10**6), num_envs=st.integers(1, 4), mode=st.sampled_from(MODES))
def test_a_batch_plays_like_single_mazes_in_every_mode(rules, seed, num_envs, mode):
    singles, batch = (
        single_mazes(num_envs, rules, mode),
        MazeVectorEnv(num_envs, autoreset_mode=mode, **rules),
    )
    assert data_equivalence(batch.reset(seed=seed), singles.reset(seed=seed), exact=True)
    generator = np.random.default_rng(seed)
    for step in range(3 * rules["horizon"] + 4):
        actions = generator.integers(0, 4, num_envs)
        assert data_equivalence(batch.step(actions), singles.step(actions), exact=True)
        if step == rules["horizon"]:
            assert data_equivalence(batch.reset(), singles.reset(), exact=True)


@settings(deadline=None, max_examples=15)
@given(limit=st.integers(1, 15), seed=st.integers(0, 10**6), mode=st.sampled_from(MODES))
def test_a_time_limit_cuts_off_like_gymnasiums_and_leaves_the_clock_alone(limit, seed, mode):
    rules: dict[str, Any] = {"size": 3, "horizon": 11}
    singles = single_mazes(3, rules, mode, limit)
    batch = MazeVectorEnv(3, autoreset_mode=mode, max_episode_steps=limit, **rules)
    np.testing.assert_array_equal(batch.reset(seed=seed)[0], singles.reset(seed=seed)[0])
    generator = np.random.default_rng(seed)
    for _ in range(30):
        actions = generator.integers(0, 4, 3)
        for ours, theirs in zip(batch.step(actions)[:4], singles.step(actions)[:4], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_episodes_that_end_at_different_times_restart_one_by_one():
    batch = MazeVectorEnv(2, horizon=5)
    batch.reset(seed=0)
    batch.step(np.array([0, 0]))
    batch.reset(options={"reset_mask": np.array([True, False])})
    steps = [batch.step(np.array([0, 1])) for _ in range(11)]
    assert [t for t, step in enumerate(steps) if step[3][0]] == [4, 10]
    assert [t for t, step in enumerate(steps) if step[3][1]] == [3, 9]
    assert steps[4][1][1] == 0.0
    assert batch.mazes.time.tolist() == [5, 0]


def test_without_autoreset_a_finished_maze_must_be_reset_first():
    batch = MazeVectorEnv(3, horizon=2, autoreset_mode="Disabled")
    batch.reset(seed=0)
    batch.step(np.array([0, 1, 2]))
    batch.reset(options={"reset_mask": np.array([False, True, False])})
    _, _, _, truncated, info = batch.step(np.array([0, 1, 2]))
    assert truncated.tolist() == [True, False, True]
    assert info["_goal_visits"].tolist() == [True, False, True]
    before = batch.mazes.get_state()
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"mazes \[0, 2\] are over"):
        batch.step(np.array([0, 1, 2]))
    assert data_equivalence(before, batch.mazes.get_state(), exact=True)
    batch.reset(options={"reset_mask": truncated})
    assert batch.step(np.array([0, 1, 2]))[3].tolist() == [False, True, False]


@pytest.mark.parametrize(
    "wrapper",
    [
        NormalizeObservation,
        NormalizeReward,
        RecordEpisodeStatistics,
        partial(TransformObservation, func=lambda observation: observation / 2),
    ],
)
def test_gymnasiums_vector_wrappers(wrapper):
    env = wrapper(gymnasium.make_vec("MNMMaze-9x9", num_envs=3, max_episode_steps=4))
    env.reset(seed=0)
    lengths = []
    for _ in range(12):
        observation, _, _, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.shape == observation.shape
        if truncated.any() and "episode" in info:
            lengths += info["episode"]["l"].tolist()
    assert lengths == ([4] * 6 if wrapper is RecordEpisodeStatistics else [])


def make_vec(*arguments: Any, **settings: Any) -> MazeVectorEnv:
    batch = gymnasium.make_vec(*arguments, **settings)
    assert isinstance(batch, MazeVectorEnv)
    return batch


def test_make_vec_says_how_long_an_episode_is_and_makes_the_same_again():
    batch = make_vec("MNMMaze-9x9", num_envs=3, max_episode_steps=30)
    assert (batch.spec.max_episode_steps, batch.max_episode_steps) == (30, 30)
    again = make_vec(batch.spec)
    assert (again.num_envs, again.max_episode_steps, again.mazes.rules) == (3, 30, batch.mazes.rules)
    longer = make_vec("MNMMaze-9x9", num_envs=2, horizon=300, autoreset_mode="SameStep")
    assert longer.spec.max_episode_steps == 300
    assert make_vec("MNMMaze-9x9", num_envs=2, max_episode_steps=500).max_episode_steps == 200
    for twin in (copy.deepcopy(longer), pickle.loads(pickle.dumps(longer))):
        assert twin.spec.max_episode_steps == 300
        assert twin.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert MazeVectorEnv.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP


def test_a_single_maze_says_how_long_an_episode_is_too():
    env = gymnasium.make("MNMMaze-9x9", horizon=300)
    assert env.spec is not None
    assert env.spec.max_episode_steps == 300
    again = gymnasium.make(env.spec).unwrapped
    assert isinstance(again, MazeEnv)
    assert again.mazes.rules.horizon == 300
    assert gymnasium.make("MNMMaze-9x9", max_episode_steps=7).spec.max_episode_steps == 7
    assert MazeEnv().spec is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"autoreset_mode": "never"},
            "autoreset_mode must be one of NextStep, SameStep, Disabled, got 'never'",
        ),
        ({"max_episode_steps": 0}, "max_episode_steps must be a whole number of at least 1, got 0"),
        ({"max_episode_steps": 2.5}, "max_episode_steps must be a whole number"),
    ],
)
def test_arguments_that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gymnasium.make_vec("MNMMaze-5x5", num_envs=2, **arguments)

"""POPGym's games as vectors, beside POPGym's own wrappers."""

import importlib.util

import gymnasium
import numpy as np
import pytest

import mnm_rl  # noqa: F401 - registers the games
from mnm_rl.envs import popgym_games
from mnm_rl.envs.popgym_games import GAMES, game_id, make_game

needs_popgym = pytest.mark.skipif(
    importlib.util.find_spec("popgym") is None, reason="popgym is not installed"
)


@needs_popgym
@pytest.mark.parametrize("game", GAMES)
def test_the_vector_is_the_published_observation_flattened(game):
    from popgym import envs  # pyright: ignore[reportMissingImports]
    from popgym.wrappers import Antialias, PreviousAction  # pyright: ignore[reportMissingImports]

    theirs = Antialias(PreviousAction(getattr(envs, game)()))
    ours = gymnasium.make(game_id(game))
    space, choices = theirs.observation_space, ours.action_space
    assert isinstance(choices, gymnasium.spaces.Discrete)
    assert ours.observation_space == gymnasium.spaces.Box(0.0, 1.0, (gymnasium.spaces.flatdim(space),))
    for seed in (0, 1):
        mine, other = ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0]
        np.testing.assert_array_equal(mine, gymnasium.spaces.flatten(space, other))
        actions, ended = np.random.default_rng(seed), False
        while not ended:
            action = int(actions.integers(choices.n))
            mine, *rest = ours.step(action)
            other, *their_rest = theirs.step(action)
            np.testing.assert_array_equal(mine, gymnasium.spaces.flatten(space, other))
            assert rest[:3] == their_rest[:3]
            ended = rest[1] or rest[2]


@needs_popgym
@pytest.mark.parametrize("game", GAMES)
def test_the_seed_decides_the_episode_whatever_numpys_global_generator_says(game):
    def play(global_seed: int) -> list[np.ndarray]:
        np.random.seed(global_seed)  # noqa: NPY002
        env, found = gymnasium.make(game_id(game)), []
        found.append(env.reset(seed=3)[0])
        for _ in range(40):
            found.append(env.step(0)[0])
        found.append(env.reset()[0])
        return found

    np.testing.assert_array_equal(play(0), play(1))


def test_without_popgym_it_is_one_sentence(monkeypatch):
    monkeypatch.setattr(popgym_games, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"^POPGymCountRecallEasy-v0 needs popgym: pip install 'mnm-rl\[rl\]'.$"
    ):
        make_game("CountRecallEasy")

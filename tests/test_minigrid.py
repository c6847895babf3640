"""MiniGrid as vectors: nothing that an episode's task depends on is left out without a word."""

from typing import Any

import gymnasium
import minigrid  # noqa: F401 - registers its environments
import pytest

from mnm_rl.training.rl.environments import EnvConfig, make_env
from mnm_rl.training.rl.minigrid import SymbolicVector

CELLS = 7 * 7 * (11 + 6 + 3)


def test_the_view_is_one_hot_cell_by_cell():
    env = gymnasium.make("MiniGrid-MemoryS7-v0")
    wrapped = SymbolicVector(env)
    raw, _ = env.reset(seed=3)
    vector = wrapped.observation(raw)
    assert wrapped.observation_space.shape == vector.shape == (CELLS,)
    objects = vector[: 49 * 11].reshape(7, 7, 11)
    assert (objects.argmax(-1) == raw["image"][..., 0]).all()
    assert vector.sum() == 3 * 49


def test_missions_that_differ_have_vectors_that_differ():
    env: Any = SymbolicVector(gymnasium.make("MiniGrid-GoToDoor-5x5-v0"))
    found = {}
    for seed in range(40):
        vector, _ = env.reset(seed=seed)
        found.setdefault(env.unwrapped.mission, set()).add(vector[CELLS:].tobytes())
    assert len(found) == 6  # one for each colour
    assert all(len(codes) == 1 for codes in found.values())
    assert len(set.union(*found.values())) == 6


def test_a_mission_is_told_word_by_word():
    env: Any = SymbolicVector(gymnasium.make("MiniGrid-GoToDoor-5x5-v0"))
    vector, _ = env.reset(seed=0)
    places = vector[CELLS:].reshape(5, -1)
    words = sorted({"go", "to", "the", "door", "blue", "green", "grey", "purple", "red", "yellow"})
    assert [words[place.argmax()] for place in places] == env.unwrapped.mission.split()
    assert (places.sum(1) == 1).all()


def test_the_direction_is_observed_where_asked_for():
    env: Any = SymbolicVector(gymnasium.make("MiniGrid-Empty-5x5-v0"), direction=True)
    vector, _ = env.reset(seed=0)
    before = int(env.unwrapped.agent_dir)
    turned, *_ = env.step(env.unwrapped.actions.left)
    assert (vector[CELLS:].argmax(), turned[CELLS:].argmax()) == (before, (before - 1) % 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"env": "BabyAI-GoToLocal-v0"}, "The mission of BabyAI-GoToLocal-v0 varies"),
        ({"env": "CartPole-v1", "direction": True}, "mission and direction are options of MiniGrid"),
        ({"env": "CartPole-v1", "mission": "words"}, "mission and direction are options of MiniGrid"),
    ],
)
def test_what_cannot_be_observed_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_env(EnvConfig(**settings), 1)


def test_the_maze_has_neither_mission_nor_direction():
    with pytest.raises(ValueError, match="not of the maze"):
        EnvConfig(mission="words").check_environment()


def test_a_mission_can_be_hidden():
    env: Any = make_env(EnvConfig(env="BabyAI-GoToLocal-v0", mission="drop"), 1)
    assert env.reset().shape == (1, CELLS)
    env.close()

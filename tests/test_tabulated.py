"""MiniGrid-Memory from tables beside the real environment: the same in everything, for the same seeds."""

import csv
import importlib
import sys
from collections import Counter, deque
from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecEnv

from mnm_rl.training.rl import tabulated
from mnm_rl.training.rl.environments import EnvConfig, make_env
from mnm_rl.training.rl.tabulated import Draw, TabulatedVecEnv, tabulate

S7, RANDOM = "MiniGrid-MemoryS7-v0", "MiniGrid-MemoryS13Random-v0"
N = 6


def both(seed: int = 0, n: int = N, **settings: Any) -> tuple[VecEnv, TabulatedVecEnv]:
    """The real environments and the tabulated ones, with the same seed, after a reset that shows the same."""
    real = make_env(EnvConfig(**settings), n)
    table = make_env(EnvConfig(**settings, tabulated=True), n)
    assert isinstance(table, TabulatedVecEnv)
    assert real.observation_space == table.observation_space
    assert real.action_space == table.action_space
    for env in (real, table):
        env.seed(seed)
    np.testing.assert_array_equal(real.reset(), table.reset())
    return real, table


def check_step(real: VecEnv, table: VecEnv, actions: np.ndarray) -> list[dict]:
    """Take a step in both; the infos of those that ended."""
    wanted, wanted_rewards, wanted_dones, wanted_infos = real.step(actions)
    found, rewards, dones, infos = table.step(actions)
    np.testing.assert_array_equal(found, wanted, strict=True)
    np.testing.assert_array_equal(rewards, wanted_rewards, strict=True)
    np.testing.assert_array_equal(dones, wanted_dones, strict=True)
    for other, own in zip(wanted_infos, infos, strict=True):
        assert own.keys() == other.keys()
        assert own["TimeLimit.truncated"] == other["TimeLimit.truncated"]
        if "episode" in other:
            np.testing.assert_array_equal(own["terminal_observation"], other["terminal_observation"])
            assert (own["episode"]["r"], own["episode"]["l"]) == (
                other["episode"]["r"],
                other["episode"]["l"],
            )
    return [info for info in infos if "episode" in info]


def way_to_an_end(env: TabulatedVecEnv, row: int, success: bool) -> list[int]:
    """The shortest actions from where the agent is to the right object, or to the wrong one."""
    table, count = env.table, int(env.table.action_space.n)
    ways, seen = deque([(int(env.state[row]), [])]), set()
    while ways:
        state, way = ways.popleft()
        for action in range(3):
            index = state * count + action
            if table.terminated[index]:
                if table.success[index] == success:
                    return [*way, action]
            elif table.next_state[index] not in seen:
                seen.add(table.next_state[index])
                ways.append((int(table.next_state[index]), [*way, action]))
    raise AssertionError("there is no way")


@pytest.mark.parametrize("settings", [{"env": S7}, {"env": RANDOM}, {"env": S7, "direction": True}])
def test_random_actions(settings):
    real, table = both(**settings)
    random, ended = np.random.default_rng(0), 0
    for _ in range(700):
        ended += len(check_step(real, table, random.choice(7, N, p=[0.1, 0.1, 0.6, *[0.05] * 4])))
    assert ended >= 5


@pytest.mark.parametrize(
    "settings",
    [
        {"env": S7},
        {"env": RANDOM},
        {"env": S7, "env_kwargs": '{"max_steps": 9}'},
        {"env": S7, "reward_scale": 0.3, "mission": "words"},
    ],
)
def test_episodes_with_an_aim(settings):
    real, table = both(seed=5, **settings)
    random, ways = np.random.default_rng(1), [[] for _ in range(N)]
    ends, last_steps = Counter(), Counter()
    for _ in range(500):
        for row in range(N):
            if not ways[row]:
                ways[row] = way_to_an_end(table, row, bool(random.integers(2)))
                # Now and then something else in between.
                ways[row] = random.choice(7, random.integers(3)).tolist() or ways[row]
        infos = check_step(real, table, np.array([way.pop(0) for way in ways]))
        for row in np.flatnonzero(table.time == 0):
            ways[row] = []
        ends.update((info["episode"]["r"] > 0, info["TimeLimit.truncated"]) for info in infos)
        last_steps.update(info["episode"]["l"] for info in infos)
    assert ends[True, False] > 20
    assert ends[False, False] > 20
    if "max_steps" in settings.get("env_kwargs", ""):
        assert ends[False, True] > 20
        assert max(last_steps) == 9


def starts_of(node: Draw | int) -> list[int]:
    """All states in which an episode can start."""
    return [state for each in node.then for state in starts_of(each)] if isinstance(node, Draw) else [node]


@pytest.mark.parametrize(("env_id", "leaves"), [(S7, 4 * 4), (RANDOM, 4 * sum(range(4, 11)))])
def test_every_seed_gives_the_layout_of_the_real_reset(env_id, leaves):
    table = tabulate(env_id)
    real: Any = gymnasium.make(env_id)
    env = TabulatedVecEnv(1, table)
    starts = Counter()
    for seed in range(300):
        env.seed(seed)
        env.reset()
        real.reset(seed=seed)
        for _ in range(3):
            layout, cell, direction = table.places[env.state[0]]
            starts[env.state[0]] += 1
            assert table.layouts[layout].encode().tobytes() == real.unwrapped.grid.encode().tobytes()
            assert (cell, direction) == (tuple(real.unwrapped.agent_pos), real.unwrapped.agent_dir)
            env.reset()
            real.reset()
    there = starts_of(table.start)
    assert len(there) == leaves
    assert set(starts) <= set(there)
    assert len(starts) > 0.9 * leaves


def test_a_state_goes_on_as_if_it_had_not_been_stopped():
    _, env = both(env=RANDOM)
    random = np.random.default_rng(2)
    actions = random.choice(3, (400, N), p=[0.1, 0.1, 0.8])
    for step in actions[:200]:
        env.step(step)
    env.seed(40)
    state = env.get_state()
    wanted = [env.step(step) for step in actions[200:]] + [env.reset()]
    other = TabulatedVecEnv(N, env.table)
    other.set_state(state)
    found = [other.step(step) for step in actions[200:]] + [other.reset()]
    for one, two in zip(wanted[:-1], found[:-1], strict=True):
        for part in range(3):
            np.testing.assert_array_equal(one[part], two[part])
    np.testing.assert_array_equal(wanted[-1], found[-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": None}, "needs 'state', whole numbers of shape"),
        ({"state": np.zeros(3, np.int64)}, "needs 'state'"),
        ({"state": np.full(N, 10_000)}, "not of this environment: 'state'"),
        ({"time": np.full(N, -1)}, "not of this environment: 'time'"),
        ({"stream": np.zeros((N, 6))}, "needs 'stream'"),
    ],
)
def test_states_that_do_not_fit_are_refused(change, message):
    _, env = both(env=S7)
    before = env.get_state()
    state = {name: array for name, array in {**before, **change}.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        env.set_state(state)
    assert all((env.get_state()[name] == array).all() for name, array in before.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"env": "CartPole-v1"}, "tabulated is for MiniGrid-Memory"),
        ({"env": "MNMMaze-9x9"}, "tabulated is for MiniGrid-Memory"),
        ({"env": "MiniGrid-Empty-5x5-v0"}, "tabulated is for MiniGrid-Memory"),
        ({"env": S7, "subprocesses": True}, "takes neither subprocesses, nor drop_observations"),
        ({"env": S7, "drop_observations": "1"}, "takes neither subprocesses, nor drop_observations"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        EnvConfig(**settings, tabulated=True).check_environment()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((S7, '{"max_episode_steps": 5}'), "takes max_steps, not max_episode_steps"),
        ((S7, '{"walls": 5}'), "'MiniGrid-MemoryS7-v0' cannot be made: .*walls"),
        (("MiniGrid-MemoryS8-v0",), "'MiniGrid-MemoryS8-v0' cannot be made: "),
    ],
)
def test_environments_that_cannot_be_made(arguments, message):
    with pytest.raises(ValueError, match=message):
        tabulate(*arguments)


def test_actions_are_checked():
    _, env = both(env=S7)
    with pytest.raises(ValueError, match="6 whole numbers from 0 to 6"):
        env.step(np.full(N, 7))
    with pytest.raises(ValueError, match="6 whole numbers from 0 to 6"):
        env.step(np.zeros(2, int))


def test_pictures_are_minigrids():
    real: Any = gymnasium.make(S7, render_mode="rgb_array")
    env = TabulatedVecEnv(1, tabulate(S7))
    env.seed(3)
    env.reset()
    real.reset(seed=3)
    for action in (2, 0, 1, 2):
        env.step(np.array([action]))
        real.step(action)
        np.testing.assert_array_equal(env.get_images()[0], real.render())


def test_an_environment_in_which_things_move_is_refused(monkeypatch):
    from minigrid.envs.memory import MemoryEnv
    from minigrid.minigrid_env import MiniGridEnv

    tabulate.cache_clear()
    monkeypatch.setattr(MemoryEnv, "step", MiniGridEnv.step)
    with pytest.raises(ValueError, match="cannot be tabulated: things move in it"):
        tabulated.tabulate(S7)
    tabulate.cache_clear()


@pytest.fixture
def train(monkeypatch):
    """Run ``train-ppo`` with words of a command line."""

    def run(*words: object) -> None:
        given = ("train_ppo.py", *map(str, words), "--quiet", "--no-tensorboard")
        monkeypatch.setattr(sys, "argv", list(given))
        importlib.import_module("mnm_rl.commands.train_ppo").run_from_command_line()

    return run


def curve(run) -> list[dict[str, str]]:
    with (run / "progress.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_training_goes_on_exactly_and_equals_training_in_the_real_environment(train, tmp_path):
    words = ("--env", S7, "--core", "gru", "--core.hidden-size", 8, "--n-envs", 4, "--n-steps", 32)
    words = (*words, "--log-every", 1, "--schedule", "constant")
    train(*words, "--tabulated", "--timesteps", 1024, "--log-dir", tmp_path / "whole")
    train(*words, "--tabulated", "--timesteps", 512, "--log-dir", tmp_path / "parts")
    train("--resume", tmp_path / "parts", "--timesteps", 1024)
    train(*words, "--timesteps", 1024, "--log-dir", tmp_path / "real")
    whole = curve(tmp_path / "whole")
    assert len(whole) == 8
    assert curve(tmp_path / "parts") == whole
    assert curve(tmp_path / "real") == whole
    assert any(row["reward"] != "nan" for row in whole)


def test_evaluation_plays_from_the_table(train, tmp_path, monkeypatch, capsys):
    words = ("--env", S7, "--core", "gru", "--core.hidden-size", 8, "--n-envs", 2, "--n-steps", 16)
    train(*words, "--tabulated", "--timesteps", 64, "--log-dir", tmp_path / "run")
    picture = tmp_path / "a.gif"
    words = ["evaluate.py", str(tmp_path / "run"), "--episodes", "4", "--video", str(picture)]
    monkeypatch.setattr(sys, "argv", words)
    importlib.import_module("mnm_rl.commands.evaluate").run_from_command_line()
    assert "agent, deterministic" in capsys.readouterr().out
    assert picture.stat().st_size > 0

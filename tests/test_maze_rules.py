"""The rules of the maze, checked against expectations written down by hand and from coordinates."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnm_rl.envs import MazeEnv, MazeRules, Mazes

UP, DOWN, LEFT, RIGHT = range(4)
MOVES = {UP: (-1, 0), DOWN: (1, 0), LEFT: (0, -1), RIGHT: (0, 1)}

MAP_9 = """
###########
#.........#
#.#.#.#.#.#
#.........#
#.#.#.#.#.#
#.........#
#.#.#.#.#.#
#.........#
#.#.#.#.#.#
#.........#
###########
"""
MAP_7 = """
#########
#.......#
#.#.#.#.#
#.......#
#.#...#.#
#.......#
#.#.#.#.#
#.......#
#########
"""


def is_wall(row: int, column: int, size: int) -> bool:
    if not (1 <= row <= size and 1 <= column <= size):
        return True
    centre = (size + 1) // 2
    return row % 2 == 0 and column % 2 == 0 and (row, column) != (centre, centre)


def place(mazes: Mazes, agent: tuple[int, int], goal: tuple[int, int]) -> None:
    mazes.cell[:] = mazes.rules.layout.cell_at[agent]
    mazes.goal[:] = mazes.rules.layout.cell_at[goal]


def one_step(agent: tuple[int, int], goal: tuple[int, int], action: int, **rules) -> tuple[float, Mazes]:
    mazes = Mazes(MazeRules(**rules), 1)
    mazes.begin_episodes()
    place(mazes, agent, goal)
    return float(mazes.step(np.array([action]))[0]), mazes


def position(mazes: Mazes, row: int = 0) -> tuple[int, int]:
    return tuple(mazes.rules.layout.positions[mazes.cell[row]].tolist())


@pytest.mark.parametrize(("size", "picture"), [(9, MAP_9), (7, MAP_7)])
def test_map_is_the_drawn_one(size, picture):
    walls = MazeRules(size=size).layout.walls
    assert "\n".join("".join("#" if wall else "." for wall in row) for row in walls) == picture.strip()


@pytest.mark.parametrize(("size", "free"), [(3, 9), (5, 21), (7, 41), (9, 65), (11, 97), (13, 133)])
def test_number_of_free_cells_and_start_in_the_centre(size, free):
    layout = MazeRules(size=size).layout
    assert layout.num_cells == free
    assert layout.positions[layout.centre].tolist() == [(size + 1) // 2] * 2


@pytest.mark.parametrize("size", [3, 5, 7, 9, 11])
def test_every_move_from_every_cell(size):
    layout = MazeRules(size=size).layout
    for cell, (row, column) in enumerate(layout.positions.tolist()):
        for action, (down, right) in MOVES.items():
            blocked = is_wall(row + down, column + right, size)
            expected = (row, column) if blocked else (row + down, column + right)
            assert tuple(layout.positions[layout.next_cell[cell, action]]) == expected
            assert layout.bumps[cell, action] == blocked
        patch = [is_wall(row + i, column + j, size) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        assert layout.views[cell].tolist() == patch


def test_a_free_move_costs_nothing():
    reward, mazes = one_step((5, 5), (1, 1), UP)
    assert reward == 0.0
    assert position(mazes) == (4, 5)


def test_a_wall_costs_a_tenth_and_stops_the_agent():
    for action, agent in [(UP, (1, 3)), (LEFT, (4, 3)), (RIGHT, (9, 9)), (DOWN, (1, 2))]:
        reward, mazes = one_step(agent, (5, 5), action)
        assert reward == pytest.approx(-0.1)
        assert position(mazes) == agent


def test_reaching_the_goal_pays_ten_and_moves_the_agent_but_not_the_goal():
    places = set()
    for _ in range(50):
        reward, mazes = one_step((5, 5), (4, 5), UP)
        assert reward == 10.0
        assert mazes.goal_visits[0] == 1
        assert mazes.goal[0] == mazes.rules.layout.cell_at[4, 5]
        places.add(position(mazes))
    assert len(places) > 5


@pytest.mark.parametrize("relocation", ["2018", "2019"])
def test_bumping_into_a_wall_on_the_goal_is_a_visit(relocation):
    reward, mazes = one_step((1, 1), (1, 1), UP, relocation=relocation)
    assert reward == pytest.approx(9.9)
    assert mazes.goal_visits[0] == 1


def test_leaving_the_goal_is_not_a_visit():
    reward, mazes = one_step((5, 5), (5, 5), LEFT)
    assert reward == 0.0
    assert mazes.goal_visits[0] == 0


def test_own_rewards():
    assert one_step((1, 1), (1, 1), UP, goal_reward=2.0, wall_reward=-0.5)[0] == 1.5


def chi_square(cells: np.ndarray, allowed: np.ndarray) -> float:
    counts = np.bincount(cells, minlength=allowed.max() + 1)
    assert counts.sum() == counts[allowed].sum(), "a cell was drawn that must not be"
    expected = len(cells) / len(allowed)
    return float(((counts[allowed] - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("relocation", ["2018", "2019"])
def test_goals_and_relocations_are_uniform(relocation):
    mazes = Mazes(MazeRules(relocation=relocation), 20_000)
    mazes.seed(range(20_000))
    mazes.begin_episodes()
    every = np.arange(65)
    later = relocation == "2019"
    centre, goal = mazes.rules.layout.centre, mazes.rules.layout.cell_at[4, 5]
    # 64 degrees of freedom: mean 64, standard deviation 11.3.
    assert chi_square(mazes.goal, every[every != centre] if later else every) < 120
    place(mazes, (5, 5), (4, 5))
    mazes.step(np.full(20_000, UP))
    assert chi_square(mazes.cell, every[every != goal] if later else every) < 120


def test_draws_of_neighbouring_seeds_and_of_one_stream_are_unrelated():
    mazes = Mazes(MazeRules(), 5_000)
    mazes.seed(range(5_000))
    goals = []
    for _ in range(4):
        mazes.begin_episodes()
        goals.append(mazes.goal.copy())
    by_episode = np.corrcoef(np.array(goals))
    assert np.abs(by_episode[np.triu_indices(4, 1)]).max() < 0.06
    assert abs(np.corrcoef(goals[0][:-1], goals[0][1:])[0, 1]) < 0.06


@settings(deadline=None, max_examples=40)
@given(
    size=st.sampled_from([3, 5, 7, 9]),
    horizon=st.integers(1, 40),
    seed=st.integers(0, 10**6),
    relocation=st.sampled_from(["2018", "2019"]),
    previous_action=st.booleans(),
    data=st.data(),
)
def test_whole_episodes_follow_the_rules(size, horizon, seed, relocation, previous_action, data):
    env = MazeEnv(size=size, horizon=horizon, relocation=relocation, previous_action=previous_action)
    actions = data.draw(st.lists(st.integers(0, 3), min_size=horizon, max_size=horizon))
    observation, info = env.reset(seed=seed)
    centre = ((size + 1) // 2,) * 2
    agent, goal = env.agent_position, env.goal_position
    assert agent == centre
    assert not is_wall(*goal, size)
    assert relocation == "2018" or goal != centre
    assert info == {}
    reward, action, visits = 0.0, None, 0
    for step in range(horizon + 1):
        patch = [is_wall(agent[0] + i, agent[1] + j, size) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        one_hot = [float(action == number) for number in range(4)] if previous_action else []
        np.testing.assert_array_equal(
            observation, np.array([*patch, step / horizon, reward, *one_hot], np.float32)
        )
        assert observation in env.observation_space
        if step == horizon:
            break
        action = actions[step]
        target = (agent[0] + MOVES[action][0], agent[1] + MOVES[action][1])
        blocked = is_wall(*target, size)
        target = agent if blocked else target
        expected = (10.0 if target == goal else 0.0) + (-0.1 if blocked else 0.0)
        observation, reward, terminated, truncated, info = env.step(action)
        assert reward == pytest.approx(expected)
        assert not terminated
        assert truncated == (step == horizon - 1)
        agent = env.agent_position
        visits += target == goal
        if target == goal:
            assert not is_wall(*agent, size)
            assert relocation == "2018" or agent != goal
        else:
            assert agent == target
        assert env.goal_position == goal
    assert info["goal_visits"] == visits
    assert tuple(info["goal_position"]) == goal


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 8}, "size must be an odd"),
        ({"size": 1}, "size must be an odd"),
        ({"size": 9.0}, "size must be an odd"),
        ({"size": True}, "size must be an odd"),
        ({"horizon": 0}, "horizon must be"),
        ({"horizon": 10.5}, "horizon must be"),
        ({"goal_reward": float("nan")}, "goal_reward must be a finite"),
        ({"wall_reward": float("inf")}, "wall_reward must be a finite"),
        ({"wall_reward": "low"}, "wall_reward must be a finite"),
        ({"wall_reward": -1e39}, "wall_reward must be a finite number, at most 1e38"),
        ({"goal_reward": 10**400}, "goal_reward must be a finite number, at most 1e38"),
        ({"horizon": 2**53 + 1}, r"horizon must be a whole number of at least 1 and at most 2\^53"),
        ({"previous_action": "yes"}, "previous_action must be True or False"),
        ({"relocation": "2020"}, "relocation must be '2018' or '2019'"),
        ({"render_mode": "ascii"}, "render_mode must be one of human, rgb_array, ansi"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        MazeEnv(**arguments)


@pytest.mark.parametrize("action", [-1, 4, 2**40])
def test_actions_out_of_range_are_named(action):
    env = MazeEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=rf"0 \(up\), 1 \(down\), 2 \(left\) or 3 \(right\), got {action}"):
        env.step(action)


def test_the_largest_rewards_can_be_observed():
    env = MazeEnv(size=3, goal_reward=1e38, wall_reward=1e38)
    env.reset(seed=0)
    for _ in range(5):
        observation = env.step(UP)[0]
        assert np.isfinite(observation).all()
        assert observation in env.observation_space


@pytest.mark.parametrize("action", [1.0, [0, 1], None, [[0], [1, 2]]])
def test_actions_of_the_wrong_kind_are_refused(action):
    env = MazeEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="1 whole numbers from 0 to 3"):
        env.step(action)


def test_stepping_needs_an_episode():
    env = MazeEnv(horizon=1)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    env.reset()
    env.step(0)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)


def test_a_state_that_does_not_fit_changes_nothing():
    mazes = Mazes(MazeRules(), 3)
    mazes.seed([1, 2, 3])
    mazes.begin_episodes()
    before = mazes.get_state()
    other = Mazes(MazeRules(), 4).get_state()
    late = {**before, "time": np.array([0, 201, 0])}
    outside = {**before, "cell": np.array([0, 65, 0])}
    for wrong in (late, outside):
        with pytest.raises(ValueError, match="not of a maze with these rules"):
            mazes.set_state(wrong)
    for wrong in (other, {key: before[key] for key in before if key != "stream"}):
        with pytest.raises(ValueError, match="a state of 3 mazes needs"):
            mazes.set_state(wrong)
    for name, value in mazes.get_state().items():
        np.testing.assert_array_equal(value, before[name])


WRONG_STATES = {
    "cell": ([-1, 0], [0.5, 0.5]),
    "goal": (["x", "y"], [np.nan, 0.0], [0, 9]),
    "time": ([-1, 0], [True, False]),
    "last_action": ([4, 0], [-2, 0], [0.0, 0.0]),
    "last_reward": ([np.nan, 0], [1e300, 0], ["x", "y"]),
    "episode_return": ([np.inf, 0], [-np.inf, 0]),
    "goal_visits": ([-1, 0], [11, 0], [0.0, 1.0]),
    "stream": ([0.5, 0.5], [-1, 0]),
    "started": ([5, 6], [1, 0]),
}


@pytest.mark.parametrize(
    ("name", "values"), [(name, values) for name, every in WRONG_STATES.items() for values in every]
)
def test_every_array_of_a_state_is_checked(name, values):
    assert WRONG_STATES.keys() == set(Mazes.STATE)
    mazes = Mazes(MazeRules(size=3, horizon=10), 2)
    mazes.begin_episodes()
    before = mazes.get_state()
    with pytest.raises(ValueError, match=f"{name}' must be [^.]+"):
        mazes.set_state({**before, name: np.array(values)})
    with pytest.raises(ValueError, match=f"{name}' must be [^.]+"):
        mazes.set_state({**before, name: values})
    for each, value in mazes.get_state().items():
        np.testing.assert_array_equal(value, before[each])


def test_a_state_of_lists_does_too_and_keeps_its_types():
    mazes = Mazes(MazeRules(size=3), 2)
    mazes.begin_episodes()
    mazes.stream[:] = 2**64 - 1, 3
    before = mazes.get_state()
    mazes.set_state({name: value.tolist() for name, value in before.items()})
    for name, value in mazes.get_state().items():
        assert value.dtype == before[name].dtype
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("state", [None, 5, "x", [("cell", [0, 0])]])
def test_a_state_is_a_dictionary(state):
    with pytest.raises(TypeError, match="a state of mazes is a dictionary of arrays"):
        Mazes(MazeRules(), 2).set_state(state)

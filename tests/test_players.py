"""The reference players: their exact scores, their simulated scores, and an independent Bayes filter."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from mnm_rl.envs import MazeRules, Mazes, evaluate_player, reference_scores
from mnm_rl.envs.belief import BeliefPlayer
from mnm_rl.envs.oracle import OraclePlayer, RandomPlayer, goal_prior, goal_values
from mnm_rl.envs.phases import episode_phases
from mnm_rl.envs.players import PLAYERS, Turn, make_player
from mnm_rl.envs.rules import Relocation
from mnm_rl.envs.searching import score_bound, search_path


def test_oracle_on_9x9():
    values = goal_values(MazeRules()).start
    assert values.mean() == pytest.approx(330, abs=0.5)
    assert values.min() == pytest.approx(246, abs=0.5)
    assert values.max() == pytest.approx(439, abs=0.5)


def test_scores_in_the_rule_book():
    scores: dict[Relocation, tuple[float, ...]] = {
        "2018": (0.4, 228.1, 233.4, 329.9),
        "2019": (0.1, 227.3, 232.6, 324.2),
    }
    for relocation, (random, belief, bound, oracle) in scores.items():
        rules = MazeRules(relocation=relocation)
        assert RandomPlayer(rules).exact_score() == pytest.approx(random, abs=0.06)
        assert BeliefPlayer(rules).exact_score() == pytest.approx(belief, abs=0.06)
        assert BeliefPlayer(rules).score_bound() == pytest.approx(bound, abs=0.06)
        assert OraclePlayer(rules).exact_score() == pytest.approx(oracle, abs=0.06)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"relocation": "2019", "previous_action": True},
        {"size": 3, "horizon": 17},
        {"size": 7, "horizon": 60, "wall_reward": -2.0, "goal_reward": 3.0},
        {"size": 5, "horizon": 9, "relocation": "2019"},
    ],
)
def test_simulated_scores_agree_with_the_exact_ones(arguments):
    for name, scores in reference_scores(arguments, episodes=1500, seed=1).items():
        assert scores.exact is not None
        # Four standard errors: a confidence interval is 1.96.
        assert abs(scores.mean - scores.exact) < 4 / 1.96 * scores.confidence, name
        assert scores.returns.shape == (1500,)


def relocated(rules: MazeRules, goal: int) -> list[int]:
    return [cell for cell in range(rules.layout.num_cells) if rules.relocation == "2018" or cell != goal]


@pytest.mark.parametrize("relocation", ["2018", "2019"])
def test_oracle_against_plain_recursion(relocation):
    rules = MazeRules(size=3, horizon=6, relocation=relocation)
    layout = rules.layout

    @cache
    def value(cell: int, goal: int, left: int) -> float:
        if left == 0:
            return 0.0
        options = []
        for action in range(4):
            reached = int(layout.next_cell[cell, action])
            reward = -0.1 if layout.bumps[cell, action] else 0.0
            if reached == goal:
                later = [value(place, goal, left - 1) for place in relocated(rules, goal)]
                options.append(reward + 10.0 + sum(later) / len(later))
            else:
                options.append(reward + value(reached, goal, left - 1))
        return max(options)

    expected = [value(layout.centre, goal, 6) for goal in range(layout.num_cells)]
    np.testing.assert_allclose(goal_values(rules).start, expected)


def filtered(rules: MazeRules, joint: np.ndarray, action: int, hit: bool, view: np.ndarray) -> np.ndarray:
    """One step of a Bayes filter over goal and position, shape [F, F], cell by cell; not normalised."""
    layout = rules.layout
    after = np.zeros_like(joint)
    for goal, cell in np.argwhere(joint > 0).tolist():
        reached = int(layout.next_cell[cell, action])
        if (reached == goal) != hit:
            continue
        places = relocated(rules, goal) if hit else [reached]
        for place in places:
            if np.array_equal(layout.views[place], view):
                after[goal, place] += joint[goal, cell] / len(places)
    return after


@pytest.mark.parametrize(("relocation", "size"), [("2018", 9), ("2019", 5), ("2018", 7)])
def test_belief_is_the_bayes_posterior(relocation, size):
    rules = MazeRules(size=size, relocation=relocation)
    player, mazes = BeliefPlayer(rules), Mazes(rules, 4)
    mazes.seed([2, 3, 4, 5])
    mazes.begin_episodes()
    player.reset(4, np.random.default_rng(0))
    joints = [np.zeros((rules.layout.num_cells,) * 2) for _ in range(4)]
    for joint in joints:
        joint[:, rules.layout.centre] = goal_prior(rules)
    nothing = np.zeros(4, dtype=np.intp)
    for _ in range(90):
        # The player is not told cells and goals: it must do without.
        actions = player.act(Turn(mazes.observations(), nothing, nothing))
        for row, joint in enumerate(joints):
            np.testing.assert_allclose(player.joint_belief(row), joint, atol=1e-12)
            assert joint[mazes.goal[row], mazes.cell[row]] > 0
        rewards = mazes.step(actions)
        views = mazes.observations()[:, :9]
        for row in range(4):
            after = filtered(rules, joints[row], actions[row], rewards[row] > 5, views[row])
            joints[row] = after / after.sum()
    assert mazes.goal_visits.min() > 1


@pytest.mark.parametrize("relocation", ["2018", "2019"])
@pytest.mark.parametrize("horizon", [2, 4])
def test_belief_player_is_bayes_optimal_in_a_small_maze(relocation, horizon):
    rules = MazeRules(size=3, horizon=horizon, relocation=relocation)
    layout = rules.layout
    values: dict[tuple[bytes, int], float] = {}

    def best(joint: np.ndarray, left: int) -> float:
        """Expectation over everything of the best play, for weights that need not sum to 1."""
        if left == 0 or not joint.any():
            return 0.0
        weight = joint.sum()
        key = (np.round(joint / weight, 9).tobytes(), left)
        if key not in values:
            values[key] = max(outcome(joint / weight, action, left) for action in range(4))
        return weight * values[key]

    def outcome(joint: np.ndarray, action: int, left: int) -> float:
        total = 0.0
        for goal, cell in np.argwhere(joint > 0).tolist():
            total += joint[goal, cell] * (
                (-0.1 if layout.bumps[cell, action] else 0.0)
                + (10.0 if layout.next_cell[cell, action] == goal else 0.0)
            )
        for hit in (False, True):
            for view in np.unique(layout.views, axis=0):
                total += best(filtered(rules, joint, action, hit, view), left - 1)
        return total

    start = np.zeros((9, 9))
    start[:, layout.centre] = goal_prior(rules)
    optimum = best(start, horizon)
    assert BeliefPlayer(rules).exact_score() == pytest.approx(optimum)
    assert score_bound(rules) >= optimum - 1e-9


def test_search_comes_through_every_cell_of_9x9():
    path = search_path(MazeRules())
    assert len(set(path.cells.tolist())) == 65


def test_order_of_the_players():
    settings: list[dict[str, Any]] = [{}, {"size": 5, "relocation": "2019"}, {"size": 11, "horizon": 120}]
    for arguments in settings:
        rules = MazeRules(**arguments)
        random, belief, oracle = (make_player(name, rules).exact_score() for name in PLAYERS)
        assert random < belief < score_bound(rules) < oracle


def test_same_seed_same_scores():
    for name in PLAYERS:
        one = evaluate_player(name, episodes=20, seed=5, size=5, horizon=30)
        other = evaluate_player(name, episodes=20, seed=5, size=5, horizon=30)
        np.testing.assert_array_equal(one.returns, other.returns)


def test_horizon_of_one_step():
    scores = reference_scores({"size": 3, "horizon": 1}, episodes=50, seed=0)
    assert scores["oracle"].exact == pytest.approx(40 / 9)
    assert scores["belief"].exact == pytest.approx(10 / 9)


def test_bad_requests_are_named():
    with pytest.raises(ValueError, match="choose one of random, belief, oracle"):
        evaluate_player("best")
    with pytest.raises(ValueError, match="number of mazes"):
        evaluate_player("random", episodes=0)
    with pytest.raises(ValueError, match="positive goal_reward"):
        evaluate_player("belief", goal_reward=-1.0)
    with pytest.raises(ValueError, match="sizes up to 13, got 15"):
        evaluate_player("belief", size=15)


def test_belief_player_is_left_out_where_it_cannot_play():
    assert list(reference_scores({"size": 15, "horizon": 5}, 2, 0)) == ["random", "oracle"]
    assert list(reference_scores({"size": 3, "horizon": 5, "goal_reward": 0}, 2, 0)) == ["random", "oracle"]
    assert list(reference_scores({"size": 3, "horizon": 5}, 2, 0)) == ["random", "belief", "oracle"]


def test_the_two_parts_of_an_episode():
    rewards = np.array([[0, -0.1, 0, 0], [10, 0, 0, 0], [0, -0.1, 0, 10], [10, 0, 0, -0.1]])
    phases = episode_phases(rewards)
    assert phases.never_found == 0.5
    assert phases.first_find == (2 + 3) / 2
    assert phases.reward_per_step == pytest.approx((0 + 10 - 0.1) / (2 + 1))
    nothing = episode_phases(np.zeros((3, 2)))
    assert nothing.never_found == 1
    assert np.isnan(nothing.first_find)
    assert np.isnan(nothing.reward_per_step)


def test_the_parts_add_up_to_the_score():
    scores = evaluate_player("belief", episodes=400, seed=3)
    phases = scores.phases
    assert phases.never_found == 0
    # The first find pays 10; walls cost little, and nobody who knows the map runs into them on purpose.
    expected = 10 + (200 - phases.first_find) * phases.reward_per_step
    assert scores.mean == pytest.approx(expected, abs=1)

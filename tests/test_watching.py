"""Watching agents in the maze: what is recorded, compared and drawn, and that training is left alone."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import set_random_seed
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnm_rl.agents import RecurrentA2C
from mnm_rl.agents.checkpoint import random_state
from mnm_rl.analysis import Trace, recall_errors
from mnm_rl.analysis.maze.episode_figure import EpisodeFigure
from mnm_rl.analysis.maze.episodes import MazeEpisodes, watch_episodes
from mnm_rl.analysis.maze.figures import COLUMNS, draw_goal_similarity, draw_paths
from mnm_rl.analysis.maze.goal_similarity import (
    LEAST_STEPS,
    Comparison,
    by_distance,
    by_place,
    goal_similarities,
    walking_distances,
)
from mnm_rl.analysis.maze.numbers import describe_finds, describe_similarities
from mnm_rl.analysis.maze.report import analyze_agent
from mnm_rl.analysis.maze.watcher import SEED, MemoryWatcher
from mnm_rl.envs import MazeRules, MazeVecEnv
from mnm_rl.training.folder import A2C_AGENT, SUPERVISED, create_run
from mnm_rl.training.rl.agent import make_agent, make_logger
from mnm_rl.training.rl.config import A2CConfig, config_to_dict
from mnm_rl.training.rl.environments import make_env

SMALL_MNM = {"key_size": 4, "value_size": 5, "memory_widths": [3], "heads": 2}
HORIZON = 25


def config(core: str = "mnm-p", **options: Any) -> A2CConfig:
    settings = {"hidden_size": 6, **(SMALL_MNM if core == "mnm-p" else {})}
    maze = {"env": "MNMMaze-5x5", "env_kwargs": f'{{"horizon": {HORIZON}}}', "n_envs": 3}
    return A2CConfig(**{**maze, "core": core, "core_settings": settings, "seed": 3, **options})


def new_agent(config: A2CConfig) -> Any:
    return make_agent(config, make_env(config, config.n_envs))


def watched(core: str = "mnm-p", mazes: int = 4) -> tuple[RecurrentA2C, MazeEpisodes]:
    agent = new_agent(config(core))
    env = make_env(config(core), mazes)
    env.seed(7)
    assert isinstance(env, MazeVecEnv)
    return agent, watch_episodes(agent, env)


@pytest.mark.parametrize("core", ["mnm-p", "lstm"])
def test_an_episode_is_recorded_as_it_was_played(core):
    agent, episodes = watched(core)
    layout, steps = episodes.rules.layout, range(HORIZON)
    assert episodes.cells.shape == episodes.actions.shape == (HORIZON, 4)
    assert (episodes.cells[0] == layout.centre).all()
    bumps = layout.bumps[episodes.cells, episodes.actions]
    np.testing.assert_allclose(episodes.rewards, 10 * episodes.found - 0.1 * bumps, rtol=1e-6)
    np.testing.assert_allclose(episodes.returns, episodes.rewards.sum(0), rtol=1e-5)
    moved = layout.next_cell[episodes.cells, episodes.actions][:-1]
    assert (episodes.cells[1:] == moved)[~episodes.found[:-1]].all()
    assert episodes.found.any(), "otherwise the seed should be another one"

    env = make_env(config(core), 4)
    env.seed(7)
    observation: Any = env.reset()
    state, policy = agent.policy.initial_state(4), agent.policy
    for t in steps:
        tensor, starts = torch.as_tensor(observation), torch.full((4,), t == 0)
        with torch.no_grad():
            values = policy.predict_values(tensor, state, starts)
            distribution, state = policy.get_distribution(tensor, state, starts)
        actions = torch.as_tensor(episodes.actions[t])
        probabilities = episodes.probabilities[t, range(4), episodes.actions[t]]
        np.testing.assert_allclose(probabilities, distribution.log_prob(actions).exp(), atol=1e-5)
        np.testing.assert_allclose(episodes.values[t], values, atol=1e-5)
        observation, rewards, _, _ = env.step(episodes.actions[t])
        np.testing.assert_array_equal(rewards, episodes.rewards[t])


def test_an_agent_with_a_core_for_its_values_is_watched():
    agent = new_agent(config(separate_critic=True))
    episodes = watch_episodes(agent, make_env(config(), 2))  # pyright: ignore[reportArgumentType]
    assert episodes.values.shape == episodes.probabilities.shape[:2] == (HORIZON, 2)
    np.testing.assert_allclose(episodes.probabilities.sum(-1), 1, rtol=1e-5)


def test_the_trace_is_that_of_the_core_and_one_maze_can_be_taken_out():
    agent, episodes = watched()
    assert set(agent.policy.core.trace_names) <= set(episodes.trace.tensors)
    assert episodes.trace["read_values"].shape == (HORIZON, 4, 2, 5)
    one = episodes.only(2)
    np.testing.assert_array_equal(one.cells[:, 0], episodes.cells[:, 2])
    np.testing.assert_array_equal(one.found[:, 0], episodes.found[:, 2])
    assert one.returns == episodes.returns[2]
    torch.testing.assert_close(one.trace["rates"][:, 0], episodes.trace["rates"][:, 2])
    assert "rates" not in watched("lstm")[1].trace


def random_episodes(steps: int, mazes: int, heads: int, seed: int) -> MazeEpisodes:
    """Random walks with relocations in a maze of 3x3, so that goals are found often; random memory values."""
    rules, generator = MazeRules(size=3, horizon=steps), np.random.default_rng(seed)
    layout, shape = rules.layout, (steps, mazes)
    goals = generator.integers(layout.num_cells, size=mazes)
    actions = generator.integers(4, size=shape)
    cells = np.empty(shape, dtype=np.intp)
    cells[0] = layout.centre
    for t in range(1, steps):
        moved = layout.next_cell[cells[t - 1], actions[t - 1]]
        cells[t] = np.where(moved == goals, generator.integers(layout.num_cells, size=mazes), moved)
    vectors = torch.as_tensor(generator.normal(size=(2, *shape, heads, 4)))
    trace = Trace({"read_values": vectors[0], "write_values": vectors[1]})
    numbers = generator.random(shape).astype(np.float32)
    probabilities = np.full((*shape, 4), 0.25, dtype=np.float32)
    return MazeEpisodes(rules, cells, goals, actions, numbers, probabilities, numbers, trace)


def slow_similarities(episodes: MazeEpisodes, now: str, then: str, delay: int) -> dict[str, np.ndarray]:
    """From the definitions, pair of steps by pair of steps."""
    steps, mazes = episodes.cells.shape
    rows, columns = (
        (v - v.mean((0, 1))).flatten(2).numpy() for v in (episodes.trace[now], episodes.trace[then])
    )
    result = {name: np.full((steps, mazes), np.nan) for name in ("later", "other_goal", "before")}

    def mean(t: int, b: int, other: int, visits: list[int]) -> float:
        pairs = [(rows[t, b], columns[s + delay, other]) for s in visits]
        cosines = [x @ y / (np.linalg.norm(x) * np.linalg.norm(y)) for x, y in pairs]
        return float(np.mean(cosines)) if cosines else np.nan

    finds = [np.flatnonzero(episodes.found[:, b]).tolist() for b in range(mazes)]
    visits = [[s for s in own[1:] if s + delay < steps] for own in finds]
    for b in range(mazes):
        other = (b - 1) % mazes
        for t in range(steps):
            known = bool(finds[b]) and t >= finds[b][0]
            result["later"][t, b] = mean(t, b, b, [s for s in visits[b] if s + 1 < t])
            if known and episodes.goals[b] != episodes.goals[other]:
                result["other_goal"][t, b] = mean(t, b, other, [s for s in visits[other] if s + 1 < t])
            if not known:
                result["before"][t, b] = mean(t, b, b, visits[b])
    return result


@settings(max_examples=25, deadline=None)
@given(
    steps=st.integers(4, 30),
    mazes=st.integers(2, 4),
    heads=st.integers(1, 2),
    delay=st.integers(0, 1),
    seed=st.integers(0, 1000),
)
def test_similarities_with_the_goal_are_those_of_the_definition(steps, mazes, heads, delay, seed):
    episodes = random_episodes(steps, mazes, heads, seed)
    expected = slow_similarities(episodes, "read_values", "write_values", delay)
    values = goal_similarities(episodes, Comparison("read_values", "write_values", delay))
    for name, numbers in expected.items():
        np.testing.assert_allclose(getattr(values, name), numbers, atol=1e-6, err_msg=name)


def test_a_memory_that_reads_the_same_at_the_goal_only_is_alike_there_only():
    episodes = random_episodes(200, 8, 1, 0)
    near = torch.as_tensor(episodes.found)
    vectors = torch.where(near[..., None, None], torch.tensor([1.0, 0, 0, 0]), episodes.trace["read_values"])
    episodes.trace.tensors["read_values"] = vectors
    values = goal_similarities(episodes, Comparison("read_values", "read_values", 0)).later
    known = ~np.isnan(values)
    assert values[known & episodes.found].min() > 0.99
    assert abs(values[known & ~episodes.found].mean()) < 0.2


def test_walking_distances():
    layout = MazeRules().layout
    distances = walking_distances(layout)
    np.testing.assert_array_equal(distances, distances.T)
    neighbours = distances[np.arange(layout.num_cells)[:, None], layout.next_cell]
    np.testing.assert_array_equal(neighbours, np.where(layout.bumps, 0, 1))
    corner, opposite = layout.cell_at[1, 1], layout.cell_at[9, 9]
    assert distances[corner, opposite] == 16
    # Between pillars one has to walk around.
    assert distances[layout.cell_at[2, 1], layout.cell_at[2, 3]] == 4


def test_means_by_distance_and_by_place_leave_out_what_is_rare():
    episodes = random_episodes(150, 6, 1, 1)
    values = np.random.default_rng(2).normal(size=episodes.cells.shape)
    values[:50] = np.nan
    distances = walking_distances(episodes.rules.layout)[episodes.cells, episodes.goals]
    means, deviations = by_distance(episodes, values)
    positions = episodes.rules.layout.positions
    offsets = positions[episodes.cells] - positions[episodes.goals]
    places = by_place(episodes, values)
    assert places.shape == (5, 5)
    for distance, (mean, deviation) in enumerate(zip(means, deviations, strict=True)):
        check_group(values[(distances == distance) & ~np.isnan(values)], mean, deviation)
    for row, column in np.ndindex(5, 5):
        at = (offsets == (row - 2, column - 2)).all(-1)
        check_group(values[at & ~np.isnan(values)], float(places[row, column]))
    assert np.isnan(places).any()
    assert not np.isnan(places).all()


def check_group(numbers: np.ndarray, mean: float, deviation: float | None = None) -> None:
    if len(numbers) < LEAST_STEPS:
        assert np.isnan(mean)
        return
    np.testing.assert_allclose(mean, numbers.mean(), atol=1e-9)
    if deviation is not None:
        np.testing.assert_allclose(deviation, numbers.std(), atol=1e-9)


def test_a_picture_depends_on_its_step_alone():
    episode = watched()[1].only(0)
    figure = EpisodeFigure(episode, dpi=50)
    first = figure.show(5)
    assert first.shape == (215, 440, 3)
    other = figure.show(20)
    assert (first[:, 200:] != other[:, 200:]).any(), "the cursors move"
    np.testing.assert_array_equal(figure.show(5), first)
    np.testing.assert_array_equal(EpisodeFigure(episode, dpi=50).show(5), first)


def test_the_path_begins_after_the_last_relocation(monkeypatch):
    episodes = random_episodes(60, 1, 1, 4)
    drawn = []
    monkeypatch.setattr(
        "mnm_rl.analysis.maze.episode_figure.render_frame",
        lambda layout, agent, goal, path, tile: drawn.append((agent, goal, path)) or np.zeros((9, 9, 3)),
    )
    figure = EpisodeFigure(episodes, dpi=30)
    finds = np.flatnonzero(episodes.found)
    assert len(finds) > 2
    for step, start in ((finds[0], 0), (finds[1], finds[0] + 1), (finds[1] + 1, finds[1] + 1)):
        figure.show(int(step))
        cells = episodes.cells[start : step + 1, 0].tolist()
        assert drawn[-1] == (cells[-1], episodes.goals[0], cells)


def test_paths_side_by_side_say_how_good_they_are():
    episodes = watched()[1]
    figure = draw_paths({"one": episodes.only(0), "two": episodes.only(1)}, 5, 20)
    titles = [axes.get_title() for axes in figure.axes]
    for title, name, number in zip(titles, ("one", "two"), (0, 1), strict=True):
        assert title.startswith(f"{name}: reward {episodes.returns[number]:.1f}")
        found = episodes.found[5:20, number].sum()
        assert {0: "not found", 1: "once"}.get(found, f"{found} times") in title


def test_maps_around_the_goal_show_the_means():
    episodes = random_episodes(150, 6, 1, 1)
    figure = draw_goal_similarity(episodes)
    values = goal_similarities(episodes, Comparison("read_values", "write_values", 1))
    maps = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(maps) == 6
    assert isinstance(maps[0], np.ma.MaskedArray)
    np.testing.assert_array_equal(maps[0].filled(np.nan), by_place(episodes, values.later))
    lines = {line.get_label(): line for line in figure.axes[6].lines}
    curve = lines["with earlier visits of this goal"].get_ydata()
    np.testing.assert_array_equal(curve, by_distance(episodes, values.later)[0])


def test_goal_similarity_of_a_core_without_values_is_refused():
    with pytest.raises(ValueError, match="lstm has no read_values"):
        draw_goal_similarity(watched("lstm")[1])


def make_run(directory: Path, config: A2CConfig) -> Path:
    create_run(directory, A2C_AGENT, config_to_dict(config))
    agent = new_agent(config)
    agent.set_logger(Logger(None, []))
    agent.learn(config.n_envs * HORIZON)
    agent.save(directory / "checkpoint.zip")
    return directory


@pytest.mark.parametrize("core", ["mnm-p", "lstm"])
def test_all_pictures_of_a_run(core, tmp_path, monkeypatch):
    drawn: dict[str, Figure] = {}

    def draw(self: Figure, path: Path, **_: object) -> None:
        drawn[path.name.partition(".")[2].rpartition(f".{os.getpid()}")[0]] = self
        path.touch()

    monkeypatch.setattr(Figure, "savefig", draw)
    run = make_run(tmp_path / "run", config(core))
    path = run if core == "mnm-p" else run / "checkpoint.zip"
    shown = analyze_agent(path, tmp_path / "out", seed=5, episodes=3)
    names = ["maze-agent.gif", "maze-agent.png", "trace.pt", "maze-before-after.png"]
    names += ["maze-goal-similarity.png"] if core == "mnm-p" else []
    names += ["maze-numbers.txt"]
    assert [path.name for path in shown] == names
    with Image.open(tmp_path / "out" / "maze-agent.gif") as animation:
        assert getattr(animation, "n_frames") == HORIZON  # noqa: B009
    trace = Trace.load(tmp_path / "out" / "trace.pt")
    assert (tmp_path / "out" / "trace.pt").stat().st_size < 60_000, "one maze, not all"
    assert (trace.length, trace.batch_size, trace.metadata["core"]) == (HORIZON, 1, core)
    assert "untrained: reward" in drawn["maze-before-after.png"].axes[0].get_title()
    assert "after 3 episodes: reward" in drawn["maze-before-after.png"].axes[1].get_title()


def test_the_numbers_are_means_over_the_steps_they_name():
    _, episodes = watched()
    found = episodes.found
    text = describe_finds(episodes)
    chosen = [b for b in range(4) if found[:-1, b].any()]
    assert 0 < len(chosen) < 4, "otherwise the seed should be another one"
    assert found.sum(0).max() > 1, "otherwise the seed should be another one"
    assert text.startswith(
        f"4 episodes, mean reward {episodes.returns.mean():.1f}; {len(chosen)} with a find"
    )
    steps: dict[str, list[tuple[int, int]]] = {}
    peaks = 0
    for b in chosen:
        finds = np.flatnonzero(found[:, b])
        sizes = episodes.trace["write_sizes"][:, b].mean(1)
        peaks += int(sizes.argmax()) == finds[0] + 1
        for t in range(HORIZON):
            name = "at other steps after the first find"
            if t <= finds[0]:
                name = "before the first find"
            elif t == finds[0] + 1:
                name = "at the first reward"
            elif t - 1 in finds:
                name = "at later rewards"
            steps.setdefault(name, []).append((t, b))
    for name, places in steps.items():
        times, mazes = (list(part) for part in zip(*places, strict=True))
        value = episodes.values[times, mazes].mean()
        rate = episodes.trace["rates"][times, mazes].mean()
        sizes = "/".join(f"{size:.2f}" for size in episodes.trace["write_sizes"][times, mazes].mean(0))
        line = next(line for line in text.splitlines() if line.startswith(name))
        assert line.removeprefix(name).split()[:3] == [f"{value:.2f}", f"{rate:.2f}", sizes]
    assert f"largest write size of the episode at the first reward: {peaks} of {len(chosen)}" in text


def test_the_similarities_in_numbers_are_those_of_the_curves():
    episodes = random_episodes(steps=60, mazes=4, heads=1, seed=0)
    lines = describe_similarities(episodes).splitlines()
    assert len(lines) == 5 * len(COLUMNS)
    for number, column in enumerate(COLUMNS):
        similarities = goal_similarities(episodes, column.comparison)
        title, heading, later, *_ = lines[5 * number : 5 * number + 5]
        assert title == column.title.replace("\n", " ")
        means, _ = by_distance(episodes, similarities.later)
        expected = [
            f"{means[int(d)]:.2f}" if int(d) < len(means) and not np.isnan(means[int(d)]) else "-"
            for d in heading.split()[4:]
        ]
        assert later.split()[-len(expected) :] == expected


def test_what_cannot_be_watched_is_refused_with_a_reason(tmp_path):
    with pytest.raises(ValueError, match="There is no run"):
        analyze_agent(tmp_path / "nothing", tmp_path)
    cartpole = A2CConfig(env="CartPole-v1", core="lstm")
    create_run(tmp_path / "cartpole", A2C_AGENT, config_to_dict(cartpole))
    with pytest.raises(ValueError, match=r"in the maze .* plays CartPole-v1"):
        analyze_agent(tmp_path / "cartpole", tmp_path)
    create_run(tmp_path / "words", SUPERVISED, {})
    with pytest.raises(ValueError, match="of kind supervised"):
        analyze_agent(tmp_path / "words", tmp_path)
    create_run(tmp_path / "maze", A2C_AGENT, config_to_dict(config()))
    with pytest.raises(ValueError, match="episodes must be at least 2, got 1"):
        analyze_agent(tmp_path / "maze", tmp_path, episodes=1)


def train(config: A2CConfig, logger: Logger, updates: int, *callbacks: Any, **load: Any) -> Any:
    env = make_env(config, config.n_envs)
    agent = RecurrentA2C.load(env=env, force_reset=False, **load) if load else make_agent(config, env)
    agent.set_logger(logger)
    missing = updates * config.n_envs * HORIZON - agent.num_timesteps
    return agent.learn(missing, list(callbacks), reset_num_timesteps=not load)


def test_training_is_the_same_whether_it_is_watched_or_not(tmp_path):
    # A falling rate would depend on the length of the two halves.
    run, silent = config(schedule="constant"), Logger(None, [])
    plain = train(run, silent, 4)
    expected = random_state()["torch"]

    def watcher() -> MemoryWatcher:
        env = make_env(run, 1)
        assert isinstance(env, MazeVecEnv)
        return MemoryWatcher(env, every=2)

    train(run, make_logger(tmp_path / "one", True), 2, watcher()).save(tmp_path / "half.zip")
    logger = make_logger(tmp_path / "two", True)
    resumed = train(run, logger, 4, watcher(), path=tmp_path / "half.zip", device="cpu")
    np.testing.assert_array_equal(random_state()["torch"], expected)
    for name, value in plain.policy.state_dict().items():
        assert torch.equal(value, resumed.policy.state_dict()[name]), name


def test_tensorboard_gets_the_episode_and_the_memory(tmp_path):
    env = make_env(config(), 1)
    assert isinstance(env, MazeVecEnv)
    logger = make_logger(tmp_path, True)
    agent = train(config(), logger, 3, MemoryWatcher(env, every=2))
    logger.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    steps = [0, 2 * 3 * HORIZON, 3 * 3 * HORIZON]
    assert [event.step for event in events.Images("watch/episode")] == steps
    assert {"memory/rates", "memory/write_size_layer_1", "memory/write_size_layer_2"} <= set(
        events.Tags()["histograms"]
    )
    set_random_seed(SEED)
    env.seed(SEED)
    episode = watch_episodes(agent, env)
    assert events.Scalars("watch/reward")[-1].value == pytest.approx(episode.returns[0], abs=1e-5)
    for layer in (1, 2):
        event = events.Scalars(f"memory_distance_from_start/layer_{layer}")[-1]
        assert event.value == pytest.approx(float(episode.trace["memory_distances"][-1, 0, layer - 1]))
    recalled = recall_errors(agent.policy.core, episode.trace, delays=[4]).cosines
    assert events.Scalars("memory_recall_cosine/delay_4")[-1].value == pytest.approx(float(recalled))
    assert "memory_recall_cosine/delay_32" not in events.Tags()["scalars"]  # longer than the episode


def test_without_tensorboard_nothing_is_played():
    env = make_env(config(), 1)
    assert isinstance(env, MazeVecEnv)
    train(config(), Logger(None, []), 2, MemoryWatcher(env, every=1))
    assert not env.mazes.started.any()


def test_how_often_a_run_is_watched():
    assert A2CConfig().updates_between_watches == 500
    assert A2CConfig(watch_every=0).updates_between_watches == 0
    assert A2CConfig(env="CartPole-v1").updates_between_watches == 0
    A2CConfig(env="CartPole-v1", watch_every=0).check()
    with pytest.raises(ValueError, match=r"watch_every is for the maze \(MNMMaze-9x9\), not for CartPole-v1"):
        A2CConfig(env="CartPole-v1", watch_every=10).check()
    with pytest.raises(ValueError, match="watch_every must not be negative, got -1"):
        A2CConfig(watch_every=-1).check()

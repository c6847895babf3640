"""All pictures of a run in the maze."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from stable_baselines3.common.utils import set_random_seed

from mnm_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from mnm_rl.analysis.maze.episode_figure import EpisodeFigure
from mnm_rl.analysis.maze.episodes import MazeEpisodes, watch_episodes
from mnm_rl.analysis.maze.figures import draw_goal_similarity, draw_paths
from mnm_rl.analysis.maze.film import save_animation
from mnm_rl.analysis.maze.numbers import describe_finds, describe_similarities
from mnm_rl.envs import MazeVecEnv
from mnm_rl.files import atomic_write
from mnm_rl.training.files import check_writable_directory
from mnm_rl.training.folder import AGENTS, read_kind
from mnm_rl.training.options import check_seed
from mnm_rl.training.rl.agent import check_same_spaces, make_agent, read_agent
from mnm_rl.training.rl.config import AgentConfig, config_from_dict
from mnm_rl.training.rl.environments import is_maze, make_env

FRAMES_PER_SECOND = 8
PICTURE_DPI, ANIMATION_DPI = 130, 90
NUMBERS_FILE = "maze-numbers.txt"
COMPARED = (0.5, 0.8)
"""The part of the episode in which the untrained and the trained agent are compared."""


def analyze_agent(
    run: Path,
    out: Path,
    seed: int = 1_000_000,
    episodes: int = 256,
    device: str = "cpu",
    trusted: bool = False,
) -> dict[Path, str]:
    """Watch an agent in the maze and draw what there is to see.

    An animation, a still picture and the trace of the episode with the median reward; the paths of the
    untrained and the trained agent in that maze; for cores that read and write values, where they are like
    those at the goal; and the numbers of all episodes.

    Args:
        run: folder of a run, or a checkpoint in such a folder.
        out: folder for the pictures.
        seed: of the episodes; training runs use seeds near 0.
        episodes: how many are watched.
        device: where the policy runs.
        trusted: whether the run may run code; see :func:`mnm_rl.training.rl.agent.read_agent`.

    Returns:
        what each file shows.

    Raises:
        ValueError: there is no such run, it is not in the maze, or ``episodes`` is less than 2.
    """
    config = _read_config(run, trusted)
    if episodes < 2:
        raise ValueError(f"episodes must be at least 2, got {episodes}.")
    check_seed(seed)
    check_writable_directory(out)
    agent = read_agent(run, config, device, trusted)
    trained = _watch(agent, config, seed, episodes)
    median = int(np.argsort(trained.returns)[episodes // 2])
    episode = trained.only(median)
    # Maze number n of a batch is the single maze whose seed is larger by n.
    untrained = _watch(make_agent(config, make_env(config, config.n_envs), device), config, seed + median, 1)
    played = agent.num_timesteps // trained.rules.horizon
    out.mkdir(parents=True, exist_ok=True)
    shown = _draw_episode(episode, out)
    shown |= _draw_paths({"untrained": untrained, f"after {played:,} episodes": episode}, out)
    if _compares_values(trained):
        shown |= _draw_similarity(trained, out)
    return shown | _write_numbers(trained, out)


def _read_config(run: Path, trusted: bool) -> AgentConfig:
    """The config of a run in the maze."""
    kind, values = read_kind(run, trusted)
    if kind not in AGENTS:
        agents = ", ".join(each.name for each in AGENTS)
        raise ValueError(f"{run} is a run of kind {kind.name}, not of an agent ({agents}).")
    config = config_from_dict(values, kind)
    if not is_maze(config.env):
        raise ValueError(f"Only agents in the maze (MNMMaze-9x9) can be watched; {run} plays {config.env}.")
    return config


def _watch(agent: RecurrentOnPolicyAlgorithm, config: AgentConfig, seed: int, episodes: int) -> MazeEpisodes:
    env = make_env(config, episodes)
    assert isinstance(env, MazeVecEnv)
    check_same_spaces(agent, env)
    set_random_seed(seed)
    env.seed(seed)
    return watch_episodes(agent, env)


def _draw_episode(episode: MazeEpisodes, out: Path) -> dict[Path, str]:
    steps = len(episode.cells)
    finds = np.flatnonzero(episode.found)
    # A step on to the goal shows a whole path.
    still = int(finds[np.abs(finds - steps // 2).argmin()]) if len(finds) else steps // 2
    picture, animation, trace = out / "maze-agent.png", out / "maze-agent.gif", out / "trace.pt"
    with atomic_write(picture) as temporary:
        Image.fromarray(EpisodeFigure(episode, PICTURE_DPI).show(still)).save(temporary)
    figure = EpisodeFigure(episode, ANIMATION_DPI)
    save_animation([figure.show(step) for step in range(steps)], animation, FRAMES_PER_SECOND)
    episode.trace.save(trace)
    return {
        animation: f"the episode with the median reward, {episode.returns[0]:.1f}",
        picture: f"step {still} of the same episode",
        trace: "what the memory did in it, for mnm_rl.analysis.Trace.load",
    }


def _draw_paths(agents: dict[str, MazeEpisodes], out: Path) -> dict[Path, str]:
    horizon = len(next(iter(agents.values())).cells)
    first, last = (round(part * horizon) for part in COMPARED)
    path = out / "maze-before-after.png"
    with atomic_write(path) as temporary:
        draw_paths(agents, first, last).savefig(temporary, dpi=PICTURE_DPI)
    rewards = " and ".join(f"{name}: {episode.returns[0]:.1f}" for name, episode in agents.items())
    return {path: f"steps {first} to {last} of the untrained and the trained agent ({rewards})"}


def _draw_similarity(episodes: MazeEpisodes, out: Path) -> dict[Path, str]:
    path = out / "maze-goal-similarity.png"
    with atomic_write(path) as temporary:
        draw_goal_similarity(episodes).savefig(temporary, dpi=PICTURE_DPI)
    count, reward = len(episodes.goals), episodes.returns.mean()
    return {
        path: f"memory values compared with those at the goal, {count} episodes, mean reward {reward:.1f}"
    }


def _compares_values(episodes: MazeEpisodes) -> bool:
    return {"read_values", "write_values"} <= episodes.trace.tensors.keys()


def _write_numbers(episodes: MazeEpisodes, out: Path) -> dict[Path, str]:
    parts = [describe_finds(episodes)]
    if _compares_values(episodes):
        parts.append(describe_similarities(episodes))
    path = out / NUMBERS_FILE
    with atomic_write(path) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n")
    return {path: "what agent and memory do before, at and after finds; means over the episodes"}

"""Evaluate a run: the return of an agent's episodes, or the test errors of a supervised model.

$ python scripts/evaluate.py runs/MNMMaze-9x9-mnm-p-seed0
$ python scripts/evaluate.py runs/MNMMaze-9x9-mnm-p-seed0 --video episode.gif
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from PIL import Image
from stable_baselines3.common.utils import set_random_seed

from mnm_rl.agents import RecurrentA2C
from mnm_rl.analysis.maze.film import draw_maze_episode, film_episode, save_animation
from mnm_rl.commands.parsing import parse_all
from mnm_rl.envs import MazeVecEnv, reference_scores
from mnm_rl.envs.players import EpisodeScores
from mnm_rl.training.command_line import one_sentence_errors
from mnm_rl.training.devices import set_up_torch
from mnm_rl.training.files import check_writable_directory
from mnm_rl.training.folder import AGENT, SUPERVISED, read_kind
from mnm_rl.training.rl.agent import read_agent
from mnm_rl.training.rl.config import A2CConfig, config_from_dict
from mnm_rl.training.rl.environments import is_maze, make_env, maze_arguments
from mnm_rl.training.rl.evaluation import Score, evaluate_agent
from mnm_rl.training.supervised.evaluation import describe_errors, evaluate_run

PARALLEL_MAZES, PARALLEL_OTHERS = 100, 16
EPISODES, SEED, PICTURE_STEPS = 1000, 1_000_000, 60


@dataclass(frozen=True)
class Args:
    """What to evaluate."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run, or a checkpoint in such a folder."""
    episodes: int | None = None
    """Agents: episodes per line of the table; 1,000 if not given."""
    seed: int | None = None
    """Agents: of the episodes; 1,000,000 if not given, training runs use seeds near 0."""
    video: Path | None = None
    """Write an animation of one episode to this GIF file."""
    picture: Path | None = None
    """The maze only: draw the path of an episode's first steps into this image file."""
    picture_steps: int | None = None
    """Steps in the picture; 60 if not given."""
    data: str | None = None
    """bAbI: folder or archive with the official files, if not where the run found them."""
    instance: Literal[1, 2, 3, 4] | None = None
    """Dictionary inference only: test on this instance, if not on that of the run."""
    trusted: bool = False
    """The run is your own or of somebody you trust: modules that it names are imported, and its files may run
    code, as Stable-Baselines3's can."""
    device: str = "cpu"
    """cpu or cuda."""
    threads: int = 1
    """Processor threads."""


def main(args: Args) -> None:
    """Find out what kind of run it is."""
    set_up_torch(args.device, args.threads)
    kind, values = read_kind(args.run, args.trusted)
    if kind is AGENT:
        evaluate_a2c(args, values)
    elif kind is SUPERVISED:
        evaluate_supervised(args)
    else:
        raise ValueError(f"{args.run} is a run of kind {kind.name}; there is nothing to evaluate.")


def evaluate_a2c(args: Args, values: dict[str, Any]) -> None:
    """Mean episode reward, stochastic and deterministic, beside the reference players."""
    for name, meant_for in (("instance", "dictionary inference"), ("data", "bAbI")):
        if getattr(args, name) is not None:
            raise ValueError(f"{name} is for runs of {meant_for}, not for an agent.")
    episodes = EPISODES if args.episodes is None else args.episodes
    seed = SEED if args.seed is None else args.seed
    steps = PICTURE_STEPS if args.picture_steps is None else args.picture_steps
    for name, value, least in (("episodes", episodes, 2), ("seed", seed, 0), ("picture_steps", steps, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")
    config = config_from_dict(values)
    if args.video is not None:
        _check_video(args.video)
    if args.picture is not None:
        _check_picture(args.picture, config)
    path = AGENT.parameters(args.run)
    agent = read_agent(args.run, config, args.device, args.trusted)
    print(f"{config.env}, {config.core}, {path}, {agent._n_updates} updates, {episodes} episodes each")
    maze_columns = "   first find  never  reward per step after it" if is_maze(config.env) else ""
    print(f"{'':22}reward  95% confidence{maze_columns}")
    for name, deterministic in (("agent, stochastic", False), ("agent, deterministic", True)):
        parallel = min(episodes, PARALLEL_MAZES if is_maze(config.env) else PARALLEL_OTHERS)
        env = make_env(config, parallel)
        _seed(env, seed)
        score = evaluate_agent(agent, env, episodes, deterministic)
        env.close()
        _print_score(name, score)
    if is_maze(config.env):
        for name, score in reference_scores(maze_arguments(config), episodes, seed).items():
            _print_score(f"{name} player", score)
    if args.video is not None:
        _film(agent, config, args.video, seed)
    if args.picture is not None:
        _draw(agent, config, args.picture, seed, steps)


def _print_score(name: str, score: Score | EpisodeScores) -> None:
    """A line of the table."""
    line = f"{name:20}{score.mean:8.2f}  +-{score.confidence:6.2f}"
    if (phases := score.phases) is not None:
        line += f"{phases.first_find:17.1f} {phases.never_found:6.1%} {phases.reward_per_step:9.3f}"
    print(line, flush=True)


def evaluate_supervised(args: Args) -> None:
    """Errors on the test set, of the parameters with the lowest validation error."""
    for name in ("episodes", "seed", "video", "picture", "picture_steps"):
        if getattr(args, name) is not None:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} is for agents; {args.run} is a supervised run, without episodes.")
    if args.instance is not None and read_kind(args.run, args.trusted)[1].get("task") != "dictionary":
        raise ValueError("instance is for runs of dictionary inference.")
    changes: dict[str, Any] = {} if args.data is None else {"data": args.data}
    if args.instance is not None:
        changes |= {"support_size": None, "length": None, "smaller_instances": False}
        changes["instance"] = args.instance
    print(describe_errors(*evaluate_run(args.run, "test", args.device, args.trusted, **changes)))


def _seed(env: Any, seed: int) -> None:
    set_random_seed(seed)
    env.seed(seed)


def _check_video(path: Path) -> None:
    if path.suffix.lower() != ".gif":
        raise ValueError(f"The animation is a GIF file, so {path} should end in .gif.")
    check_writable_directory(path.parent)


def _check_picture(path: Path, config: A2CConfig) -> None:
    if not is_maze(config.env):
        raise ValueError(f"Only episodes in the maze can be drawn, not in {config.env}.")
    if path.suffix.lower() not in (".png", ".gif", ".jpg"):
        raise ValueError(f"The picture is a .png, .gif or .jpg file, not {path}.")
    check_writable_directory(path.parent)


def _draw(agent: RecurrentA2C, config: A2CConfig, path: Path, seed: int, steps: int) -> None:
    env = make_env(config, 1)
    assert isinstance(env, MazeVecEnv)
    _seed(env, seed)
    Image.fromarray(draw_maze_episode(agent, env, steps)).save(path)
    print(f"The first {steps} steps of an episode: {path}")


def _film(agent: RecurrentA2C, config: A2CConfig, path: Path, seed: int) -> None:
    env = make_env(config, 1)
    _seed(env, seed)
    frames = film_episode(agent, env)
    env.close()
    save_animation(frames, path, frames_per_second=8 if is_maze(config.env) else 20)
    print(f"Animation of one episode, {len(frames)} steps: {path}")


def run_from_command_line() -> None:
    """Turn bad input into one sentence and exit status 2."""
    with one_sentence_errors("evaluate.py"):
        main(parse_all(Args, __doc__))

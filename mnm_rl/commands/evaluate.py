"""Evaluate a run: the return of an agent's episodes, or the test errors of a supervised model.

$ mnm-rl evaluate runs/MNMMaze-9x9-mnm-p-seed0
$ mnm-rl evaluate runs/MNMMaze-9x9-mnm-p-seed0 --video episode.gif
$ mnm-rl evaluate maze-highest        # a model that comes with the package
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from PIL import Image
from stable_baselines3.common.utils import set_random_seed

from mnm_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from mnm_rl.analysis.maze.film import check_filmable, draw_maze_episode, film_episode, save_animation
from mnm_rl.commands.parsing import parse_all
from mnm_rl.envs import MazeVecEnv, reference_scores
from mnm_rl.envs.players import EpisodeScores
from mnm_rl.files import atomic_write
from mnm_rl.pretrained import shipped_folder
from mnm_rl.tasks import TASKS, task_options
from mnm_rl.training.command_line import one_sentence_errors
from mnm_rl.training.devices import set_up_torch
from mnm_rl.training.files import check_output_file
from mnm_rl.training.folder import AGENTS, SUPERVISED, RunKind, read_kind
from mnm_rl.training.options import check_seed
from mnm_rl.training.rl.agent import read_agent, updates_made
from mnm_rl.training.rl.config import AgentConfig, config_from_dict
from mnm_rl.training.rl.display import EpisodeCounter
from mnm_rl.training.rl.environments import is_maze, make_env, maze_arguments, maze_rules
from mnm_rl.training.rl.evaluation import Score, evaluate_agent
from mnm_rl.training.supervised.config import config_from_dict as supervised_config
from mnm_rl.training.supervised.evaluation import describe_errors, evaluate_run

PARALLEL_MAZES, PARALLEL_OTHERS = 100, 16
EPISODES, SEED, PICTURE_STEPS = 1000, 1_000_000, 60
SIZES = ("length", "repeats", "items")
FEWEST_EPISODES, SECONDS = 100, 60.0
"""Where episodes are slow, fewer are played."""


@dataclass(frozen=True)
class Args:
    """What to evaluate."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run or of a model, or a checkpoint in such a folder; or the name of a model that comes with
    the package, such as maze-highest."""
    episodes: int | None = None
    """Agents: episodes per line of the table; if not given, 1,000, or as many as take about a minute, but no
    fewer than 100."""
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
    length: int | None = None
    """Copy and repeat copy: test on sequences of so many vectors, if not on those of the run's lengths."""
    repeats: int | None = None
    """Repeat copy: test on so many copies, if not on the run's numbers."""
    items: int | None = None
    """Associative recall: test on sequences of so many items, if not on the run's numbers."""
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
    args = replace(args, run=shipped_folder(args.run))
    kind, values = read_kind(args.run, args.trusted)
    if kind in AGENTS:
        evaluate_trained_agent(args, kind, values)
    elif kind is SUPERVISED:
        evaluate_supervised(args, values)
    else:
        raise ValueError(f"{args.run} is a run of kind {kind.name}; there is nothing to evaluate.")


def evaluate_trained_agent(args: Args, kind: RunKind, values: dict[str, Any]) -> None:
    """Mean episode reward, stochastic and deterministic, beside the reference players."""
    of_tasks = ((name, _tasks_with(name)) for name in SIZES)
    for name, meant_for in (("instance", "dictionary inference"), ("data", "bAbI"), *of_tasks):
        if getattr(args, name) is not None:
            raise ValueError(f"{name} is for runs of {meant_for}, not for an agent.")
    seed = SEED if args.seed is None else args.seed
    steps = PICTURE_STEPS if args.picture_steps is None else args.picture_steps
    check_seed(seed)
    for name, value, least in (("episodes", args.episodes, 2), ("picture_steps", steps, 1)):
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")
    config = config_from_dict(values, kind)
    _check_pictures(args, config, steps)
    path = kind.parameters(args.run)
    agent = read_agent(args.run, config, args.device, args.trusted)
    if args.video is not None:
        env = make_env(config, 1)
        check_filmable(env)
        env.close()
    episodes = args.episodes or _affordable_episodes(agent, config, seed)
    print(f"{config.env}, {config.core}, {path}, {updates_made(agent)} updates, {episodes} episodes each")
    maze_columns = "   first find  never  reward per step after it" if is_maze(config.env) else ""
    print(f"{'':22}reward  95% confidence{maze_columns}")
    for name, deterministic in (("agent, stochastic", False), ("agent, deterministic", True)):
        env = make_env(config, min(episodes, PARALLEL_MAZES if is_maze(config.env) else PARALLEL_OTHERS))
        _seed(env, seed)
        with EpisodeCounter(name, episodes) as counter:
            score = evaluate_agent(agent, env, episodes, deterministic, counter.count)
        env.close()
        _print_score(name, score)
    if is_maze(config.env):
        for name, score in reference_scores(maze_arguments(config), episodes, seed).items():
            _print_score(f"{name} player", score)
    if args.video is not None:
        _film(agent, config, args.video, seed)
    if args.picture is not None:
        _draw(agent, config, args.picture, seed, steps)


def _affordable_episodes(agent: RecurrentOnPolicyAlgorithm, config: AgentConfig, seed: int) -> int:
    """As many as are played in about a minute, by the time that a few take."""
    if is_maze(config.env):
        return EPISODES
    env = make_env(config, PARALLEL_OTHERS)
    _seed(env, seed)
    began = time.monotonic()
    evaluate_agent(agent, env, PARALLEL_OTHERS, deterministic=False)
    env.close()
    in_time = int(PARALLEL_OTHERS * SECONDS / max(time.monotonic() - began, 1e-9))
    return max(FEWEST_EPISODES, min(EPISODES, in_time))


def _print_score(name: str, score: Score | EpisodeScores) -> None:
    """A line of the table."""
    line = f"{name:20}{score.mean:8.2f}  +-{score.confidence:6.2f}"
    if (phases := score.phases) is not None:
        line += f"{phases.first_find:17.1f} {phases.never_found:6.1%} {phases.reward_per_step:9.3f}"
    print(line, flush=True)


def evaluate_supervised(args: Args, values: dict[str, Any]) -> None:
    """Errors on the test set, of the parameters with the lowest validation error."""
    for name in ("episodes", "seed", "video", "picture", "picture_steps"):
        if getattr(args, name) is not None:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} is for agents; {args.run} is a supervised run, without episodes.")
    if args.instance is not None and values.get("task") != "dictionary":
        raise ValueError("instance is for runs of dictionary inference.")
    changes: dict[str, Any] = {} if args.data is None else {"data": args.data}
    changes |= _fixed_sizes(args, values)
    if args.instance is not None:
        changes |= {"support_size": None, "length": None, "smaller_instances": False}
        changes["instance"] = args.instance
    print(describe_errors(*evaluate_run(args.run, "test", args.device, args.trusted, **changes)))


def _fixed_sizes(args: Args, values: dict[str, Any]) -> dict[str, int]:
    """Options of the task that test sequences of one size, if one is given.

    Raises:
        ValueError: the task has no such size, or not this one.
    """
    given = {name: size for name in SIZES if (size := getattr(args, name)) is not None}
    if not given:
        return {}
    can_be_fixed = task_options(str(values.get("task"))).can_be_fixed
    for name in given:
        if name not in can_be_fixed:
            raise ValueError(f"{name} is for runs of {_tasks_with(name)}.")
    fixed = {option: size for name, size in given.items() for option in can_be_fixed[name]}
    config = supervised_config(values)
    try:
        config.with_task_options(**fixed)
    except ValueError as error:
        message = str(error)
        for name in given:  # the options that are refused are the task's; what was written are its sizes
            message = re.sub(rf"\b({'|'.join(can_be_fixed[name])})\b", name, message)
        raise ValueError(message) from error
    return fixed


def _tasks_with(size: str) -> str:
    """Names of the tasks that can be tested with a size of choice."""
    return " and ".join(name for name, options in TASKS.items() if size in options.can_be_fixed)


def _seed(env: Any, seed: int) -> None:
    set_random_seed(seed)
    env.seed(seed)


def _check_pictures(args: Args, config: AgentConfig, steps: int) -> None:
    """Before anything is played: that what is to be drawn can be drawn and written."""
    if args.video is not None:
        check_output_file(args.video, (".gif",))
        if args.picture is not None and args.picture.resolve() == args.video.resolve():
            raise ValueError(f"picture and video cannot both be {args.video}.")
    if args.picture is None:
        if args.picture_steps is not None:
            raise ValueError("picture_steps is of a picture; give --picture, too.")
        return
    if not is_maze(config.env):
        raise ValueError(f"Only episodes in the maze can be drawn, not in {config.env}.")
    if steps > (horizon := maze_rules(config).horizon):
        raise ValueError(f"picture_steps must be at most {horizon}, the length of an episode, got {steps}.")
    check_output_file(args.picture, (".png", ".gif", ".jpg"))


def _draw(agent: RecurrentOnPolicyAlgorithm, config: AgentConfig, path: Path, seed: int, steps: int) -> None:
    env = make_env(config, 1)
    assert isinstance(env, MazeVecEnv)
    _seed(env, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        Image.fromarray(draw_maze_episode(agent, env, steps)).save(temporary)
    print(f"The first {steps} steps of an episode: {path}")


def _film(agent: RecurrentOnPolicyAlgorithm, config: AgentConfig, path: Path, seed: int) -> None:
    env = make_env(config, 1)
    _seed(env, seed)
    frames = film_episode(agent, env)
    env.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_animation(frames, path, frames_per_second=8 if is_maze(config.env) else 20)
    print(f"Animation of one episode, {len(frames)} steps: {path}")


def run_from_command_line() -> None:
    """Turn bad input into one sentence and exit status 2."""
    with one_sentence_errors("evaluate.py"):
        main(parse_all(Args, __doc__))

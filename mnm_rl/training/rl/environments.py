"""Environments by id, for the scripts: the batched maze, MiniGrid as vectors, anything else as it is."""

from __future__ import annotations

import multiprocessing
import re
import signal
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from mnm_rl.agents.arguments import one_line
from mnm_rl.agents.flattening import flattened
from mnm_rl.agents.spaces import check_kinds
from mnm_rl.agents.wrappers import PreviousActionReward
from mnm_rl.envs import MazeRules, MazeVecEnv
from mnm_rl.sizes import check_fits
from mnm_rl.training.options import parse_json_object
from mnm_rl.training.rl.custom_wrappers import MakeWrapped, find_wrapper, try_wrappers
from mnm_rl.training.rl.minigrid import Mission, SymbolicVector, is_minigrid
from mnm_rl.training.rl.own_environments import EnvironmentFault, NamedFaults, NamedSubprocVecEnv
from mnm_rl.training.rl.tabulated import TabulatedVecEnv, can_be_tabulated, tabulate
from mnm_rl.updates import process_share

MAZE_ID = re.compile(r"^(?:mnm_rl:)?MNMMaze-(\d+)x(\d+)(?:-v0)?$")

MODULES = {"MiniGrid-": "minigrid", "BabyAI-": "minigrid", "popgym-": "popgym"}
"""How ids begin -> the module that registers them."""
ENV_BYTES, PROCESS_BYTES = 1000, 10 * 2**20
"""What an environment in its wrappers, or a process with one, needs at least."""


@dataclass(frozen=True)
class EnvConfig:
    """Which environment, and how it is observed."""

    env: str = "MNMMaze-9x9"
    """Gymnasium id; "module:id" imports the module first. MiniGrid is observed as a vector, one-hot, with the
    words of the mission where it varies."""
    env_kwargs: str = "{}"
    """Arguments of the environment, as JSON: '{"relocation": "2019"}'."""
    previous_action: bool | None = None
    """Observe the previous action. The maze: yes, if not given, which learns faster; others: no."""
    previous_reward: bool = False
    """Observe the previous reward, which the maze always shows."""
    drop_observations: str = ""
    """Numbers of a vector observation to hide, such as 1,3 (the velocities of CartPole)."""
    reward_scale: float = 1.0
    """Learn from rewards times this number; what is shown stays as it is. Not for the maze."""
    normalize: Literal["none", "observations", "rewards", "both"] | None = None
    """Bring observations, rewards or both (of observations those that are numbers) to a common scale, by
    statistics of the run so far. What is shown stays as it is. Not for the maze."""
    wrapper: tuple[str, ...] = ()
    """Wrappers directly around each environment, the innermost first, as module:Class, such as
    popgym.wrappers:Antialias; not for the maze."""
    mission: Mission | None = None
    """MiniGrid only: observe the words of the mission, or drop it; words where it varies, if not given."""
    direction: bool | None = None
    """MiniGrid only: observe which way the agent looks (no, if not given)."""
    subprocesses: bool = False
    """Step each environment in a process of its own; not for the maze, which is one batch."""
    tabulated: bool = False
    """MiniGrid-Memory only: play the same episodes from tables, which are made at the start; a step then
    takes a fraction of the time."""

    def check_environment(self) -> None:
        """Raise a ValueError for options that the environment cannot have; cheap, nothing is built."""
        parse_json_object(self.env_kwargs, "env_kwargs")
        if self.env.count(":") > 1 or not all(part.strip() for part in self.env.split(":")):
            raise ValueError(f"env must be an id of Gymnasium's or module:id, got {self.env!r}.")
        _indices(self.drop_observations)
        if self.tabulated:
            self._check_tabulated()
        for name in self.wrapper:
            find_wrapper(name)
        if is_maze(self.env):
            maze_rules(self)
            if self.mission is not None or self.direction is not None:
                raise ValueError("mission and direction are options of MiniGrid, not of the maze.")
            if self.subprocesses or self.drop_observations or self.reward_scale != 1:
                raise ValueError("subprocesses, drop_observations and reward_scale are not for the maze.")
            if self.normalize not in (None, "none"):
                raise ValueError("normalize is not for the maze.")
            if self.wrapper:
                raise ValueError("wrapper is not for the maze, whose environments are one batch.")
            if self.previous_reward:
                raise ValueError("The maze always shows the previous reward; leave out previous_reward.")

    def _check_tabulated(self) -> None:
        if not can_be_tabulated(self.env):
            raise ValueError(
                "tabulated is for MiniGrid-Memory (MiniGrid-MemoryS7-v0, MiniGrid-MemoryS13Random-v0, ...), "
                f"not for {self.env}."
            )
        if self.subprocesses or self.drop_observations or self.wrapper:
            raise ValueError(
                "A tabulated environment takes neither subprocesses, nor drop_observations, nor a wrapper."
            )


def is_maze(env_id: str) -> bool:
    """Whether an id is one of the invisible-goal mazes."""
    return MAZE_ID.match(env_id) is not None


def ids_of(env_id: str) -> list[str]:
    """All ids that mean the same environment, the given one first: without its module, the maze's alias."""
    bare = env_id.rpartition(":")[2]
    alias = bare.removesuffix("-v0")
    return list(dict.fromkeys((env_id, bare, *((alias, f"{alias}-v0") if is_maze(bare) else ()))))


def maze_arguments(config: EnvConfig) -> dict[str, Any]:
    """Arguments of the maze: size from the id, previous action observed unless the config says otherwise."""
    match = MAZE_ID.match(config.env)
    assert match is not None
    if match[1] != match[2]:
        raise ValueError(f"{config.env} is not square.")
    previous_action = True if config.previous_action is None else config.previous_action
    given = parse_json_object(config.env_kwargs, "env_kwargs")
    if "previous_action" in given and config.previous_action is not None:
        raise ValueError("Give previous_action once: as an option or in env_kwargs.")
    return {"size": int(match[1]), "previous_action": previous_action, **given}


def maze_rules(config: EnvConfig) -> MazeRules:
    """The rules that a maze config stands for.

    Raises:
        ValueError: an argument that the maze does not have, or a value that is not allowed.
    """
    try:
        return MazeRules(**maze_arguments(config))
    except TypeError as error:
        raise ValueError(f"env_kwargs: {str(error).replace('MazeRules.__init__()', 'the maze')}.") from error


def make_env(config: EnvConfig, n_envs: int) -> VecEnv:
    """Build the environments of a run, monitored.

    Raises:
        ValueError: the id is unknown, or an option does not fit the environment.
    """
    if is_maze(config.env):
        return MazeVecEnv(n_envs, **maze_arguments(config), render_mode="rgb_array")
    env = _tabulated(config, n_envs) if config.tabulated else _separate(config, n_envs)
    if config.previous_action or config.previous_reward:
        try:
            return PreviousActionReward(env, bool(config.previous_action), config.previous_reward)
        except ValueError as error:
            raise ValueError(f"The environment {config.env!r} cannot be made: {error}") from error
    return env


def _tabulated(config: EnvConfig, n_envs: int) -> VecEnv:
    table = tabulate(config.env, config.env_kwargs, config.mission, bool(config.direction))
    return TabulatedVecEnv(n_envs, table, config.reward_scale)


def _separate(config: EnvConfig, n_envs: int) -> VecEnv:
    """One environment beside the other, each in its wrappers."""
    check_fits(n_envs * (PROCESS_BYTES if config.subprocesses else ENV_BYTES), f"n_envs {n_envs}")
    env_id, env_kwargs = _with_module(config.env), parse_json_object(config.env_kwargs, "env_kwargs")
    if config.wrapper:
        try_wrappers(env_id, config.wrapper, env_kwargs)
    try:
        return make_vec_env(
            MakeWrapped(env_id, config.wrapper) if config.wrapper else env_id,
            n_envs,
            env_kwargs=env_kwargs,
            wrapper_class=_wrap,  # pyright: ignore[reportArgumentType]
            wrapper_kwargs={
                "dropped": _indices(config.drop_observations),
                "reward_scale": config.reward_scale,
                "mission": config.mission,
                "direction": config.direction,
                "name": config.env,
            },
            vec_env_cls=NamedSubprocVecEnv if config.subprocesses else DummyVecEnv,
        )
    except EnvironmentFault:
        raise
    # Environments check their arguments each in its own way, or not at all.
    except Exception as error:
        reason = (str(error) or type(error).__name__).rstrip(".")
        raise ValueError(f"The environment {config.env!r} cannot be made: {reason}.") from error


def environments_here(n_envs: int) -> int:
    """How many of a run's environments this process has.

    Raises:
        ValueError: the processes that train together cannot have as many each.
    """
    processes = process_share()[1]
    if n_envs % processes:
        raise ValueError(f"n_envs {n_envs} cannot be shared evenly by {processes} processes.")
    return n_envs // processes


def normalized_env(config: EnvConfig, env: VecEnv, discount: float) -> VecEnv:
    """The environments of a run as they are trained in: with ``normalize``, in a VecNormalize.

    Args:
        config: the run's.
        env: by :func:`make_env`.
        discount: of the returns by whose spread rewards are divided.

    Raises:
        ValueError: the observations are no numbers, or images.
    """
    if config.normalize in (None, "none"):
        return env
    observations, rewards = config.normalize != "rewards", config.normalize != "observations"
    keys = None
    space = env.observation_space
    if observations and isinstance(space, spaces.Dict):
        keys = [key for key, part in space.spaces.items() if is_numbers(part)]
    if observations and not (keys or is_numbers(space)) and rewards:
        observations = False
    elif observations and not (keys or is_numbers(space)):
        raise ValueError(
            f"The observations of {config.env} are no numbers that could be normalised: {one_line(space)}; "
            "give --normalize rewards or none."
        )
    return VecNormalize(
        env, norm_obs=observations, norm_reward=rewards, gamma=discount, clip_obs=10.0, norm_obs_keys=keys
    )


def is_numbers(space: spaces.Space) -> bool:
    """Whether observations of a space can be brought to a common scale."""
    return isinstance(space, spaces.Box) and not is_image_space(space)


def _with_module(env_id: str) -> str:
    """The id, with the module that registers it where that is known; Gymnasium imports it, in any process."""
    module = next((module for start, module in MODULES.items() if env_id.startswith(start)), None)
    return env_id if module is None else f"{module}:{env_id}"


def _wrap(
    env: gymnasium.Env,
    dropped: list[int],
    reward_scale: float,
    mission: Mission | None,
    direction: bool | None,
    name: str,
) -> gymnasium.Env:
    """Called around the monitor, which therefore sees the rewards as they are."""
    if multiprocessing.parent_process() is not None:
        # Ctrl-C reaches all processes; the parent still needs this one to finish its update.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    env = NamedFaults(env, name)
    if reward_scale != 1:
        env = gymnasium.wrappers.TransformReward(env, lambda reward: reward_scale * float(reward))
    if is_minigrid(env):
        env = SymbolicVector(env, mission, bool(direction))
    elif mission is not None or direction is not None:
        raise ValueError("mission and direction are options of MiniGrid's environments")
    env = flattened(env)
    if dropped:
        env = DropObservations(env, dropped)
    check_kinds(env.observation_space, env.action_space)
    return env


class DropObservations(gymnasium.ObservationWrapper):
    """Hide some numbers of a vector observation.

    Args:
        env: an environment with a one-dimensional Box observation.
        dropped: which numbers, from 0.

    Raises:
        ValueError: the observation is not a vector, or has no such numbers.
    """

    def __init__(self, env: gymnasium.Env, dropped: list[int]):
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"drop_observations needs a vector observation, not {space}.")
        self._kept = [index for index in range(space.shape[0]) if index not in dropped]
        if max(dropped) >= space.shape[0] or not self._kept:
            raise ValueError(f"drop_observations {dropped} does not fit an observation of {space.shape[0]}.")
        self.observation_space = spaces.Box(space.low[self._kept], space.high[self._kept], dtype=space.dtype)  # pyright: ignore

    def observation(self, observation: NDArray[Any]) -> NDArray[Any]:
        """What is left of an observation."""
        return observation[self._kept]


def _indices(text: str) -> list[int]:
    try:
        indices = [int(part) for part in text.split(",")] if text.strip() else []
    except ValueError as error:
        raise ValueError(f"drop_observations must be whole numbers such as 1,3, got {text!r}.") from error
    if any(index < 0 for index in indices) or len(set(indices)) < len(indices):
        raise ValueError(f"drop_observations must be different and not negative, got {text!r}.")
    return indices

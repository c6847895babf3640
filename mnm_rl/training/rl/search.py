"""A search of settings: what is searched, and how a trial is judged."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from mnm_rl.training.curves import mean
from mnm_rl.training.folder import A2C_AGENT, PPO_AGENT
from mnm_rl.training.rl.agent import make_agent
from mnm_rl.training.rl.config import AgentConfig
from mnm_rl.training.rl.environments import make_env
from mnm_rl.training.rl.own_environments import EnvironmentFault
from mnm_rl.training.rl.recorder import LinearSettings
from mnm_rl.training.study import Choice, FailedTrial, Range, Space, StoppedTrial, inside, rounded
from mnm_rl.updates import NonFiniteError

Objective = Literal["final", "area"]
LAST_SHARE = 0.2
"""Episodes that end in this last part of the steps make the final reward."""
BINS = 20
"""Equal parts of the steps, whose mean rewards make the area under the curve; a trial that is not promising
may be ended after any of them."""

BOTH: Space = {
    "learning_rate": Range(1e-4, 1e-2, log=True),
    "schedule": Choice(("constant", "linear")),
    "gamma": Choice((0.9, 0.95, 0.98, 0.99, 0.995, 0.999)),
    "gae_lambda": Choice((0.8, 0.9, 0.95, 0.98, 1.0)),
    "ent_coef": Range(1e-5, 1e-1, log=True),
    "vf_coef": Range(0.05, 1.0, log=True),
    "max_grad_norm": Range(0.3, 5.0, log=True),
    "normalize": Choice(("none", "both")),
}
"""What is searched for both algorithms. A setting that the run does not have is left out."""
SPACES: dict[str, Space] = {
    A2C_AGENT.name: {
        **BOTH,
        "n_steps": Choice((16, 32, 64, 128)),
        "normalize_advantage": Choice((False, True)),
    },
    PPO_AGENT.name: {
        **BOTH,
        "n_steps": Choice((32, 64, 128, 256)),
        "n_epochs": Choice((2, 4, 6, 8, 10)),
        "minibatches": Choice((1, 2, 4, 8)),
        "clip_range": Choice((0.1, 0.2, 0.3)),
    },
}
"""Kind of run -> what is searched; ``minibatches`` of an epoch stand for ``batch_size``."""


def search_space(config: AgentConfig, fixed: Collection[str] = ()) -> dict[str, Range | Choice]:
    """What is searched for a run.

    Args:
        config: with the values of what is fixed.
        fixed: names of settings that stay as they are.

    Raises:
        ValueError: nothing is left to search.
    """
    known = {each.name for each in dataclasses.fields(config)} | {"minibatches"}
    space = {name: each for name, each in SPACES[config.kind.name].items() if name in known - {*fixed}}
    if "batch_size" in fixed:
        space.pop("minibatches", None)
    length = getattr(config, "bptt_steps", None)
    if length is not None and "n_steps" in space:
        space["n_steps"] = _those(space["n_steps"], lambda steps: steps % length == 0)
    if "minibatches" in space:
        space["minibatches"] = _those(space["minibatches"], lambda count: config.n_envs % count == 0)
    space = {name: each for name, each in space.items() if not isinstance(each, Choice) or each.values}
    if not space:
        raise ValueError("Nothing is left to search: every setting of the search space is given.")
    return space


def chosen_config(config: AgentConfig, drawn: Mapping[str, Any]) -> AgentConfig:
    """The run with what was drawn from its space, its numbers rounded."""
    values = {name: rounded(value) for name, value in drawn.items()}
    count = values.pop("minibatches", None)
    chosen = dataclasses.replace(config, **values)
    if count is not None:
        chosen = dataclasses.replace(chosen, batch_size=chosen.rollout_steps * chosen.n_envs // count)
    return chosen


def drawn_from(config: AgentConfig, space: Space) -> dict[str, Any]:
    """A run's own settings as a draw from a space, as far as they lie in it."""
    values = {name: getattr(config, name, None) for name in space}
    values |= {"gamma": config.discount, "n_steps": config.rollout_steps, "minibatches": None}
    return inside(space, values)


def _those(dimension: Range | Choice, fits: Callable[[Any], bool]) -> Choice:
    assert isinstance(dimension, Choice)
    return Choice(tuple(filter(fits, dimension.values)))


class Result(NamedTuple):
    """How a trial went."""

    final: float
    """Mean reward of the last episodes, see :func:`final_reward`."""
    area: float
    """Mean reward over the whole trial, see :func:`area_under_curve`."""
    timesteps: int
    seconds: float
    """In all."""
    steps_per_second: float
    """While it learned."""

    def value(self, objective: Objective) -> float:
        """What the search makes as large as it can."""
        return self.final if objective == "final" else self.area


Episode = tuple[int, float]
"""Timestep at which an episode ended, and its reward."""


def train_trial(
    config: AgentConfig,
    is_stopped: Callable[[], bool] = lambda: False,
    report: Callable[[int, float], bool] = lambda part, reward: False,
) -> Result:
    """Train an agent as ``train-a2c`` and ``train-ppo`` do, without a folder.

    Args:
        config: the run.
        is_stopped: asked before every rollout.
        report: told after each of the :data:`BINS` parts of the steps its number and the mean reward of its
            episodes; whether to end the trial.

    Raises:
        ValueError: the environment or the agent cannot be built.
        FailedTrial: the training did not stay finite, or no episode ended.
        StoppedTrial: ``report`` wanted it.
        KeyboardInterrupt: ``is_stopped`` wanted it.
    """
    started = time.monotonic()
    env = make_env(config, config.n_envs)
    try:
        agent = make_agent(config, env)
        agent.set_logger(Logger(None, []))
        total = config.total_timesteps
        recorder = _Recorder(total, is_stopped, report)
        settings = LinearSettings(total, config.linear_settings)
        begun = time.monotonic()
        try:
            agent.learn(total, [recorder, settings], log_interval=total + 1)
        except EnvironmentFault:
            raise
        except (NonFiniteError, ValueError) as error:  # torch's distributions refuse NaN by a ValueError
            raise FailedTrial(" ".join(str(error).split())) from error
        ended = time.monotonic()
    finally:
        env.close()
    # The last rollout may take more steps; episodes that end in those would favour long rollouts.
    episodes = [each for each in recorder.episodes if each[0] <= total]
    if not episodes:
        raise FailedTrial(f"No episode ended in {total} timesteps.")
    return Result(
        final_reward(episodes, total, config.n_envs),
        area_under_curve(episodes, total),
        agent.num_timesteps,
        ended - started,
        agent.num_timesteps / (ended - begun),
    )


class _Recorder(BaseCallback):
    """Remember the episodes, and end the trial when asked to."""

    def __init__(self, total: int, is_stopped: Callable[[], bool], report: Callable[[int, float], bool]):
        super().__init__()
        self.episodes: list[Episode] = []
        self._total, self._is_stopped, self._report = total, is_stopped, report
        self._reported = 0

    def _on_step(self) -> bool:
        if self.locals["dones"].any():
            for info in self.locals["infos"]:
                if "episode" in info:
                    self.episodes.append((self.num_timesteps, float(info["episode"]["r"])))
        return True

    def _on_rollout_start(self) -> None:
        if self._is_stopped():
            raise KeyboardInterrupt
        part = self.num_timesteps * BINS // self._total
        if part > self._reported:
            recent = [reward for step, reward in self.episodes if step * BINS > self._reported * self._total]
            self._reported = part
            if recent and self._report(part, mean(recent)):
                raise StoppedTrial


def final_reward(episodes: Sequence[Episode], total: int, n_envs: int) -> float:
    """Mean reward of the episodes that ended in the last fifth of the steps.

    Where fewer than ``n_envs`` did, as in environments with long episodes, of the last ``n_envs`` episodes.
    """
    late = [reward for step, reward in episodes if step > (1 - LAST_SHARE) * total]
    return mean(late if len(late) >= n_envs else [reward for _, reward in episodes[-n_envs:]])


def area_under_curve(episodes: Sequence[Episode], total: int) -> float:
    """Mean over equal parts of the steps of the mean reward of the episodes that ended in them.

    A part in which none ended has the reward of the one before, or, at the start, of the first that has one.
    """
    bins: list[list[float]] = [[] for _ in range(BINS)]
    for step, reward in episodes:
        bins[math.ceil(step * BINS / total) - 1].append(reward)
    rewards: list[float] = []
    current = next(mean(each) for each in bins if each)
    for each in bins:
        current = mean(each) if each else current
        rewards.append(current)
    return mean(rewards)

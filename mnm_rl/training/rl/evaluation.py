"""How good an agent is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from mnm_rl.agents.masks import MaskedPlayer
from mnm_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from mnm_rl.envs import MazeVecEnv
from mnm_rl.envs.phases import Phases, episode_phases
from mnm_rl.sizes import check_fits
from mnm_rl.training.rl.agent import check_same_spaces

BYTES_PER_NUMBER = 24
"""Of a number of Python's in a list, at least."""


class Score(NamedTuple):
    """Mean return of an episode."""

    mean: float
    confidence: float
    """Half the width of the 95% confidence interval."""
    episodes: int
    phases: Phases | None
    """The maze only: its search for the goal, and its returns to it."""


def evaluate_agent(
    agent: RecurrentOnPolicyAlgorithm,
    env: VecEnv,
    episodes: int,
    deterministic: bool,
    tick: Callable[[int], None] = lambda played: None,
) -> Score:
    """Play whole episodes; each environment plays its share, so that short episodes do not count more.

    Args:
        agent: what plays.
        env: where, newly seeded; what the agent observes of it is normalised as in its training.
        episodes: how many.
        deterministic: most likely actions instead of drawn ones.
        tick: called after every step with the number of whole episodes so far.

    Raises:
        ValueError: there is not enough memory for so many, or the environment is not like the agent's.
    """
    env = agent._wrap_env(env)  # moves the channels of images, as in training
    check_same_spaces(agent, env)
    env = agent.normalize_env(env)
    is_maze = isinstance(env, MazeVecEnv)
    kept = env.mazes.rules.horizon if is_maze else 1
    check_fits(episodes * kept * BYTES_PER_NUMBER, f"the rewards of {episodes} episodes")
    rewards: list[list[float]] = [[] for _ in range(env.num_envs)]

    def remember(variables: dict[str, Any], _: object) -> None:
        if is_maze:
            rewards[variables["i"]].append(variables["reward"])
        if variables["i"] == 0:
            tick(int(variables["episode_counts"].sum()))

    returns, _ = evaluate_policy(
        MaskedPlayer(agent, env),  # pyright: ignore[reportArgumentType]
        env,
        n_eval_episodes=episodes,
        deterministic=deterministic,
        return_episode_rewards=True,
        callback=remember,
    )
    numbers = np.asarray(returns, dtype=np.float64)
    spread = numbers.std(ddof=1) if len(numbers) > 1 else np.nan
    phases = None
    if is_maze:
        # All episodes have the same length, and each environment has played whole ones.
        steps = np.concatenate(rewards).reshape(-1, env.mazes.rules.horizon)
        phases = episode_phases(steps.T)
    return Score(float(numbers.mean()), float(1.96 * spread / len(numbers) ** 0.5), len(numbers), phases)

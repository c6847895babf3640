"""Whole maze episodes with everything that one can see of them from outside and inside.

Dimensions: ``T`` time (the maze's horizon), ``B`` mazes, ``A`` = 4 actions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mnm_rl.agents.on_policy import RecurrentOnPolicyAlgorithm
from mnm_rl.analysis import Trace
from mnm_rl.envs import MazeRules, MazeVecEnv
from mnm_rl.sizes import check_fits


@dataclass(frozen=True)
class MazeEpisodes:
    """One episode of each of B mazes. Step t is what happens from the t-th observation to the reward."""

    rules: MazeRules
    """What was played."""
    cells: NDArray[np.intp]
    """Where the agent is when it acts, ``[T, B]``."""
    goals: NDArray[np.intp]
    """``[B]``."""
    actions: NDArray[np.integer]
    """``[T, B]``."""
    rewards: NDArray[np.float32]
    """``[T, B]``."""
    probabilities: NDArray[np.float32]
    """Of the actions, ``[T, B, A]``."""
    values: NDArray[np.float32]
    """What the agent expects of the rest of the episode, discounted, ``[T, B]``."""
    trace: Trace
    """What the memory did, ``[T, B, ...]`` each."""

    @property
    def found(self) -> NDArray[np.bool_]:
        """The steps on to the goal, ``[T, B]``; each is paid at once and seen with the next observation."""
        return self.rules.layout.next_cell[self.cells, self.actions] == self.goals

    @property
    def returns(self) -> NDArray[np.float64]:
        """Sum of the rewards, ``[B]``."""
        return self.rewards.sum(0, dtype=np.float64)

    def only(self, number: int) -> MazeEpisodes:
        """The episode of one maze, with B = 1."""
        own = slice(number, number + 1)
        return MazeEpisodes(
            self.rules,
            self.cells[:, own],
            self.goals[own],
            self.actions[:, own],
            self.rewards[:, own],
            self.probabilities[:, own],
            self.values[:, own],
            self.trace.example(number),
        )


def watch_episodes(
    agent: RecurrentOnPolicyAlgorithm, env: MazeVecEnv, deterministic: bool = False
) -> MazeEpisodes:
    """Play one episode in every maze, then run the core over what was seen once more and record it.

    Args:
        agent: what plays.
        env: where; begins new episodes.
        deterministic: most likely actions instead of drawn ones.

    Raises:
        ValueError: there is not enough memory for what is recorded.
    """
    _check_trace_fits(agent, env)
    observation: Any = env.reset()
    state, starts = None, np.ones(env.num_envs, dtype=bool)
    goals = env.mazes.goal.copy()
    observations, cells, actions, rewards = [], [], [], []
    for _ in range(env.mazes.rules.horizon):
        observations.append(observation)
        cells.append(env.mazes.cell.copy())
        chosen, state = agent.predict(observation, state, starts, deterministic)
        observation, reward, starts, _ = env.step(chosen)
        actions.append(chosen)
        rewards.append(reward)
    probabilities, values, trace = _look_inside(agent, np.stack(observations))
    return MazeEpisodes(
        env.mazes.rules,
        np.stack(cells),
        goals,
        np.stack(actions),
        np.stack(rewards),
        probabilities,
        values,
        trace,
    )


def _check_trace_fits(agent: RecurrentOnPolicyAlgorithm, env: MazeVecEnv) -> None:
    """At least the core's outputs are kept, of every step of every maze."""
    steps = env.num_envs * env.mazes.rules.horizon
    check_fits(4 * steps * agent.policy.core.output_size, f"the trace of {env.num_envs} episodes")


@torch.no_grad()
def _look_inside(
    agent: RecurrentOnPolicyAlgorithm, observations: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], Trace]:
    """Action probabilities ``[T, B, A]``, values ``[T, B]`` and trace of episodes ``[T, B, O]``."""
    policy = agent.policy
    tensor = torch.as_tensor(observations, device=agent.device)
    features: Any = policy.extract_features(tensor.flatten(0, 1))
    output = policy.core(features.unflatten(0, tensor.shape[:2]), record=True)
    logits, values = policy.action_parameters(output.outputs), policy.values(output.outputs)
    tensors = {**(output.trace or {}), "meta_loss": output.meta_loss}
    trace = Trace({name: tensor.cpu() for name, tensor in tensors.items()}, {"core": policy.core_name})
    return logits.softmax(-1).cpu().numpy(), values.cpu().numpy(), trace

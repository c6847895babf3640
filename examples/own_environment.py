"""An agent on a Gymnasium environment of your own, whose state is hidden most of the time.

    python examples/own_environment.py

A lamp shows one of four colours at the first step and is then dark. Pressing the button of that colour is
rewarded until the episode ends: without a memory that is a quarter of the presses.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from mnm_rl.agents import RecurrentA2C

COLOURS, PRESSES = 4, 10


class Lamp(gymnasium.Env[np.ndarray, np.int64]):
    """Observation: the colour that the lamp shows, one-hot, or zeros; action: the button to press."""

    observation_space = spaces.Box(0.0, 1.0, (COLOURS,), np.float32)
    action_space = spaces.Discrete(COLOURS)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Choose a colour and show it."""
        super().reset(seed=seed)
        self.colour, self.presses = int(self.np_random.integers(COLOURS)), 0
        return np.eye(COLOURS, dtype=np.float32)[self.colour], {}

    def step(self, action: np.int64) -> Any:
        """Press a button; the lamp stays dark."""
        self.presses += 1
        reward = float(action == self.colour) / PRESSES
        return np.zeros(COLOURS, np.float32), reward, self.presses == PRESSES, False, {}


def main() -> None:
    """Train, and print the mean reward before and after."""
    torch.set_num_threads(1)
    small = {"hidden_size": 32, "key_size": 16, "value_size": 16, "memory_widths": (16, 16)}
    agent = RecurrentA2C(
        "MlpPolicy",
        make_vec_env(Lamp, n_envs=16, seed=0),
        n_steps=PRESSES,  # one update after every episode of the 16 lamps
        learning_rate=5e-3,
        gamma=0.5,  # a press is rewarded at once
        gae_lambda=0.9,
        ent_coef=0.1,
        max_grad_norm=4.0,
        normalize_advantage=True,
        policy_kwargs={"core": "mnm-p", "core_kwargs": small},
        seed=0,
    )
    print(f"before: {mean_reward(agent):.2f} of 1")
    agent.learn(48_000)
    print(f"after {agent.num_timesteps:,} steps: {mean_reward(agent):.2f} of 1")


def mean_reward(agent: RecurrentA2C) -> float:
    """Over 200 episodes, the actions drawn from the policy."""
    env = make_vec_env(Lamp, n_envs=16, seed=1000)
    return float(np.mean(evaluate_policy(agent, env, n_eval_episodes=200, deterministic=False)[0]))


if __name__ == "__main__":
    main()

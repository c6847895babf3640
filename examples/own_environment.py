"""An agent on a Gymnasium environment of your own, whose state is hidden most of the time.

    python examples/own_environment.py

At the first step the agent is shown which of two doors is right. Then it walks down a corridor that looks the
same everywhere, and only the door that it takes at the end is rewarded. Without a memory half of the episodes
are lost.
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

CORRIDOR = 5
NOTHING, LEFT, RIGHT, DOORS = range(4)


class Corridor(gymnasium.Env[np.ndarray, np.int64]):
    """A sign, a corridor, two doors. Observation: one-hot of what is seen; action: 0 left, 1 right."""

    observation_space = spaces.Box(0.0, 1.0, (4,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Put up a new sign."""
        super().reset(seed=seed)
        self.time, self.right_door = 0, int(self.np_random.integers(2))
        return self._see(LEFT + self.right_door), {}

    def step(self, action: np.int64) -> Any:
        """Walk on, whatever the action; at the doors take one."""
        self.time += 1
        if self.time <= CORRIDOR:
            return self._see(DOORS if self.time == CORRIDOR else NOTHING), 0.0, False, False, {}
        return self._see(NOTHING), float(action == self.right_door), True, False, {}

    def _see(self, what: int) -> np.ndarray:
        return np.eye(4, dtype=np.float32)[what]


def main() -> None:
    """Train, and print the mean reward before and after."""
    torch.set_num_threads(1)
    env = make_vec_env(Corridor, n_envs=16, seed=0)
    small = {"hidden_size": 32, "key_size": 16, "value_size": 16, "memory_widths": (16, 16)}
    agent = RecurrentA2C(
        "MlpPolicy",
        env,
        n_steps=2 * (CORRIDOR + 1),  # two episodes for each update
        learning_rate=3e-3,
        max_grad_norm=4.0,
        normalize_advantage=True,
        policy_kwargs={"core": "mnm-p", "core_kwargs": small},
        seed=0,
    )
    print(f"before: {mean_reward(agent):.2f} of 1")
    agent.learn(36_000)
    print(f"after {agent.num_timesteps:,} steps: {mean_reward(agent):.2f} of 1")


def mean_reward(agent: RecurrentA2C) -> float:
    """Over 200 episodes, the actions drawn from the policy."""
    env = make_vec_env(Corridor, n_envs=16, seed=1000)
    return float(np.mean(evaluate_policy(agent, env, n_eval_episodes=200, deterministic=False)[0]))


if __name__ == "__main__":
    main()

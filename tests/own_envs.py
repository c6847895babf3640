"""Environments as users write them, each with a fault of its own."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

UNIT = spaces.Box(-1.0, 1.0, (3,), np.float32)


class Sampled(gymnasium.Env):
    """Observations of any space, drawn from it; no end."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), 1.0, False, False, {}


class Own(gymnasium.Env):
    """Three numbers, two actions, episodes of ten steps."""

    observation_space: spaces.Space = UNIT
    action_space: spaces.Space = spaces.Discrete(2)
    total = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        self.total += 1
        return self.observe(), self.reward(action), self.time == 10, False, {}

    def observe(self) -> Any:
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)

    def reward(self, action: Any) -> Any:
        return 1.0


class FailsInStep(Own):
    def step(self, action):
        raise KeyError("no such room")


class FailsInReset(Own):
    def reset(self, **_):
        return {}["missing"]


class FailsLater(Own):
    def reward(self, action):
        if self.total == 30:
            raise TypeError("a fault of the user's own")
        return 1.0


class WrongShape(Own):
    def observe(self):
        return np.zeros(4, np.float32)


class RewardOfNothing(Own):
    def reward(self, action):
        return None


class FourValues(Own):
    def step(self, action):
        return super().step(action)[:4]


class OnlyObservation(Own):
    def reset(self, **options):
        return super().reset(**options)[0]


class BadMasks(Own):
    def action_masks(self):
        return [False, False]


class MasksThatFail(Own):
    def action_masks(self):
        raise IndexError("beyond the last action")


class OutOfDiscrete(Own):
    observation_space = spaces.Discrete(4)

    def observe(self):
        return 7


class Texts(Own):
    observation_space = spaces.Text(5)

    def observe(self):
        return "a"


class NoNumbers(Own):
    observation_space = spaces.Box(0.0, 1.0, (0,), np.float32)

    def observe(self):
        return np.zeros(0, np.float32)


class NoDimension(Own):
    observation_space = spaces.Box(0.0, 1.0, (), np.float32)

    def observe(self):
        return np.float32(0.5)


class UnboundedActions(Own):
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)


class WholeActions(Own):
    action_space = spaces.Box(0, 10, (2,), np.int64)

    def reward(self, action):
        assert self.action_space.contains(action), action
        return 1.0


class NanOnce(Own):
    def reward(self, action):
        return float("nan") if self.total == 45 else 1.0


FAULTS = {
    "FailsInStep": r"own:FailsInStep-v0 failed in step\(\): KeyError: 'no such room' \(own_envs.py, line",
    "FailsInReset": r"own:FailsInReset-v0 failed in reset\(\): KeyError: 'missing' \(own_envs.py, line \d+\)",
    "WrongShape": r"reset\(\) returned an observation of shape \[4\], its observation_space has \[3\]",
    "RewardOfNothing": r"own:RewardOfNothing-v0 failed in step\(\): TypeError: .*'NoneType'",
    "FourValues": r"own:FourValues-v0 failed in step\(\): AssertionError: The `info` returned by `step",
    "OnlyObservation": r"reset\(\) returned one ndarray, not an observation and an info",
    "BadMasks": r"action mask of environment 0 allows nothing",
    "MasksThatFail": r"failed in action_masks\(\): IndexError: beyond the last action \(own_envs.py, line",
    "Texts": r"The observation space Text\(.*\) cannot be served",
    "NoNumbers": r"has no numbers to observe",
    "NoDimension": r"has a Box without a dimension; give it the shape \(1,\)",
    "UnboundedActions": r"must have finite bounds",
    "OutOfDiscrete": r"An observation lies outside of Discrete\(4\)",
}
"""Class -> what is said of it."""

for _name in (*FAULTS, "Own", "FailsLater", "WholeActions", "NanOnce"):
    gymnasium.register(f"own:{_name}-v0".partition(":")[2], f"own_envs:{_name}")

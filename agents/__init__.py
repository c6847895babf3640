"""Recurrent A2C for Stable-Baselines3, with any core of `mnm_rl.cores` as its memory.

RecurrentA2C                  the algorithm
RecurrentActorCriticPolicy    features, core, heads for action and value ("MlpPolicy", "CnnPolicy", ...)
SequenceRolloutBuffer         what a rollout stores
"""

from mnm_rl.agents.a2c import RecurrentA2C
from mnm_rl.agents.buffers import SequenceRolloutBuffer
from mnm_rl.agents.policies import (
    RecurrentActorCriticCnnPolicy,
    RecurrentActorCriticPolicy,
    RecurrentMultiInputActorCriticPolicy,
)

__all__ = [
    "RecurrentA2C",
    "RecurrentActorCriticCnnPolicy",
    "RecurrentActorCriticPolicy",
    "RecurrentMultiInputActorCriticPolicy",
    "SequenceRolloutBuffer",
]

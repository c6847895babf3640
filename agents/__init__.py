"""Recurrent A2C and PPO for Stable-Baselines3, with any core of :mod:`mnm_rl.cores` as their memory.

RecurrentA2C, RecurrentPPO    the algorithms
RecurrentActorCriticPolicy    features, core, heads for action and value ("MlpPolicy", "CnnPolicy", ...)
SequenceRolloutBuffer         what a rollout stores
ActingStep                    one step as a module of tensors, for torch.jit.trace and other exports
PreviousActionReward          a VecEnv that shows the previous action and reward
MaskedPlayer                  an agent that asks the environment which actions it allows, for evaluate_policy
HParamCallback                all settings of a run and what it ended with, in TensorBoard's HPARAMS
agent_settings                all settings of an agent as a flat dictionary, for trackers of runs
FlatSpaces                    an environment with Tuple or nested spaces as a flat one
"""

from mnm_rl.agents.a2c import RecurrentA2C
from mnm_rl.agents.acting_step import ActingStep
from mnm_rl.agents.buffers import SequenceRolloutBuffer
from mnm_rl.agents.flattening import FlatSpaces
from mnm_rl.agents.hparams import HParamCallback, agent_settings
from mnm_rl.agents.masks import MaskedPlayer
from mnm_rl.agents.policies import (
    RecurrentActorCriticCnnPolicy,
    RecurrentActorCriticPolicy,
    RecurrentMultiInputActorCriticPolicy,
)
from mnm_rl.agents.ppo import RecurrentPPO
from mnm_rl.agents.wrappers import PreviousActionReward

__all__ = [
    "ActingStep",
    "FlatSpaces",
    "HParamCallback",
    "MaskedPlayer",
    "PreviousActionReward",
    "RecurrentA2C",
    "RecurrentActorCriticCnnPolicy",
    "RecurrentActorCriticPolicy",
    "RecurrentMultiInputActorCriticPolicy",
    "RecurrentPPO",
    "SequenceRolloutBuffer",
    "agent_settings",
]

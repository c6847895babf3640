"""Acting through a whole rollout, without what needs to be looked at once only.

What a policy is made of decides which of its parts have a quick form: the features, a step of its core
(:meth:`mnm_rl.cores.MemoryCore.quick_step`), and the choice of an action. A policy of another class that
overrides what it does, one with hooks, and one on another device act as they always do.

Dimensions: ``B`` environments, ``O`` output size of the core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from stable_baselines3.common.utils import obs_as_tensor
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook  # pyright: ignore[reportPrivateImportUsage]

from mnm_rl.agents.buffers import Observations
from mnm_rl.agents.distributions import Categorical
from mnm_rl.agents.policies import RecurrentActorCriticPolicy
from mnm_rl.agents.spaces import check_finite
from mnm_rl.cores import PairedCore
from mnm_rl.cores.quick import QuickStep, Unchanged, departure, is_ordinary_call, quick_draw

METHODS = (
    *("act", "_choose", "_step", "_pick", "_masks", "_choose_from"),
    *("action_parameters", "distribution", "extract_features"),
)
"""Methods of a policy that the quick form stands for."""


class QuickActing:
    """:meth:`RecurrentActorCriticPolicy.act` for the steps of a rollout, inside of ``core.acting()``.

    The same actions from the same random numbers, up to the rounding of
    :meth:`~mnm_rl.cores.MemoryCore.quick_step`. A change to the policy between two steps is seen
    (:class:`mnm_rl.cores.quick.Unchanged`).

    Args:
        policy: what acts; the states that it is given must be right ones.
    """

    def __init__(self, policy: RecurrentActorCriticPolicy):
        self._policy = policy
        self._prepare()

    @torch.no_grad()
    def __call__(
        self,
        observation: Observations,
        state: Any,
        episode_starts: NDArray[Any],
        action_masks: NDArray[Any] | None = None,
    ) -> tuple[NDArray[Any], Any]:
        """See :meth:`RecurrentActorCriticPolicy.act`."""
        if not self._unchanged():
            self._prepare()
        if self._step is None:
            # An act of one's own need not know masks, where the environment has none.
            masks = {} if action_masks is None else {"action_masks": action_masks}
            return self._policy.act(observation, state, episode_starts, **masks)
        check_finite(observation)
        starts = torch.from_numpy(episode_starts) if np.count_nonzero(episode_starts) else None
        outputs, state = self._step(self._features(observation), state, starts)
        if self._draw is None or action_masks is not None:
            masks = self._policy._masks(action_masks)
            return self._policy._choose_from(outputs, False, masks)[0], state
        return self._draw(outputs).numpy(), state

    def _prepare(self) -> None:
        """Look at the policy."""
        self._unchanged = Unchanged(self._policy.modules())
        self._step = _quick_step(self._policy)
        self._draw = None if self._step is None else _quick_draw(self._policy)
        self._features = _quick_features(self._policy) or self._usual_features

    def _usual_features(self, observation: Any) -> Tensor:
        return self._policy.extract_features(obs_as_tensor(observation, torch.device("cpu")))


def _quick_step(policy: RecurrentActorCriticPolicy) -> QuickStep | None:
    is_usual = (
        departure(policy, RecurrentActorCriticPolicy, METHODS, {}) is None and not _has_any_global_hook()
    )
    on_cpu = policy.value_net.weight.device.type == "cpu"
    return policy.core.quick_step() if is_usual and on_cpu and is_ordinary_call() else None


def _quick_draw(policy: RecurrentActorCriticPolicy) -> Callable[[Tensor], Tensor] | None:
    """Actions ``[B]`` from outputs ``[B, O]``, where logits come from them by one layer."""
    layers = policy.mlp_extractor
    is_usual = (
        type(policy.distribution) is Categorical
        and not isinstance(policy.core, PairedCore)
        and departure(policy, RecurrentActorCriticPolicy, (), {"mlp_extractor": MlpExtractor}) is None
        and departure(layers, MlpExtractor, ("forward_actor",), {"policy_net": nn.Sequential}) is None
        and len(layers.policy_net) == 0  # pyright: ignore[reportArgumentType]
    )
    return quick_draw(policy, "action_net") if is_usual else None


def _quick_features(policy: RecurrentActorCriticPolicy) -> Callable[[Any], Tensor] | None:
    """The features of observations that are such already: numbers in rows."""
    space, extractor = policy.observation_space, policy.features_extractor
    is_usual = (
        isinstance(space, spaces.Box)
        and len(space.shape) == 1
        and departure(policy, RecurrentActorCriticPolicy, (), {"features_extractor": FlattenExtractor})
        is None
        and departure(extractor, FlattenExtractor, ("forward",), {"flatten": nn.Flatten}) is None
    )
    return (lambda observation: torch.from_numpy(observation).float()) if is_usual else None

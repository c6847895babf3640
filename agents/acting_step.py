"""One step of an agent as a module of tensors, for ``torch.jit.trace`` and other exports.

Dimensions: ``B`` environments.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from mnm_rl.agents.policies import RecurrentActorCriticPolicy
from mnm_rl.cores import reset_state


class ActingStep(nn.Module):
    """``(obs, episode_start, *state) -> (action, value, *state)``, nothing of which depends on numbers.

    The most likely action, as the environment takes it. Resets are choices between tensors
    (``torch.where``), so that a traced graph resets whenever it is told to, also if no episode started while
    it was traced. The number of environments may change, too::

        step = ActingStep(agent.policy)
        state = step.initial_state(1)
        traced = torch.jit.trace(step, (obs, torch.tensor([True]), *state))
        action, value, *state = traced(obs, episode_start, *state)

    Action masks are not part of it: every action counts as allowed. The module holds a copy of the policy;
    MNM cores run their reference loop in it, which is made of torch's own operations.

    Args:
        policy: what acts.

    Raises:
        ValueError: the core's state grows from step to step (``lstm-salu``), which a graph of fixed shapes
            cannot hold.
    """

    low: Tensor | None
    high: Tensor | None

    def __init__(self, policy: RecurrentActorCriticPolicy):
        super().__init__()
        self.policy = copy.deepcopy(policy)
        self.policy.set_training_mode(False)
        self.policy.requires_grad_(False)
        for module in self.policy.core.modules():
            _use_plain_loop(module)
        initial = self.policy.initial_state(1)
        self._check_shapes(initial)
        self._state_type = type(initial)
        self._fields = [f"initial_{name}" for name in initial._fields]
        for name, field in zip(self._fields, initial, strict=True):
            self.register_buffer(name, field.clone(), persistent=False)
        space = self.policy.action_space
        for name in ("low", "high"):
            bound = torch.as_tensor(getattr(space, name)) if isinstance(space, spaces.Box) else None
            self.register_buffer(
                name, None if bound is None else bound.to(self.policy.device), persistent=False
            )

    def initial_state(self, batch_size: int) -> tuple[Tensor, ...]:
        """The recurrent state at the start, tensors ``[B, ...]``."""
        return tuple(field.repeat(batch_size, *[1] * (field.dim() - 1)) for field in self._initial())

    @torch.no_grad()
    def forward(self, obs: Any, episode_start: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Act.

        Args:
            obs: ``[B, *observation_shape]``, a dictionary of such for Dict spaces.
            episode_start: boolean ``[B]``; where true the state is replaced by the initial one.
            state: the recurrent state before the step, tensors ``[B, ...]``.

        Returns:
            actions ``[B, *action_shape]``, values ``[B]``, and the tensors of the state after the step.
        """
        policy = self.policy
        before = reset_state(self._state_type(*state), self._initial(), episode_start)
        outputs, after = policy.core.step(policy.extract_features(obs), before)
        action = policy.distribution.mode(policy.action_parameters(outputs))
        return self._action(action), policy.values(outputs), *after

    def _action(self, action: Tensor) -> Tensor:
        if self.low is not None and self.high is not None:
            return torch.minimum(torch.maximum(action, self.low), self.high)
        start = self.policy.first_action
        return action if start is None else action + torch.as_tensor(start, device=action.device)

    def _initial(self) -> Any:
        return self._state_type(*[getattr(self, name) for name in self._fields])

    def _check_shapes(self, initial: Any) -> None:
        weight = next(self.policy.core.parameters())
        inputs = torch.zeros(1, self.policy.core.input_size, device=weight.device, dtype=weight.dtype)
        with torch.no_grad():
            _, after = self.policy.core.step(inputs, initial)
        if [field.shape for field in after] != [field.shape for field in initial]:
            raise ValueError(
                f"The state of the core {self.policy.core_name!r} grows with every step, and a graph of "
                "fixed shapes cannot hold it."
            )


def _use_plain_loop(core: nn.Module) -> None:
    """Kernels are not torch's own operations, or choose by the numbers what to do."""
    config: Any = getattr(core, "config", None)
    if hasattr(config, "kernel"):
        changes = {"kernel": "reference", "snapshot_every": None}
        known = {name: value for name, value in changes.items() if hasattr(config, name)}
        core.config = dataclasses.replace(config, **known)  # pyright: ignore

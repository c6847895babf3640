"""Sampling and evaluating actions straight from the network's output, one class per kind of action space.

Stable-Baselines3's distributions build several objects per step, which takes longer than a step of an LSTM.
These do the same arithmetic and keep nothing.

Dimensions: ``N`` any leading dimensions, ``A`` numbers that parametrise a distribution.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional as F

from mnm_rl.agents.arguments import one_line


class ActionEvaluation(NamedTuple):
    """What training needs to know about actions, ``[N]`` each."""

    log_probs: Tensor
    entropy: Tensor
    concentration: Tensor | None


class ActionDistribution(ABC):
    """A family of distributions over the actions of a space, parametrised by ``[N, A]`` numbers."""

    @abstractmethod
    def sample(self, parameters: Tensor) -> Tensor:
        """Draw actions ``[N, *action_shape]``."""

    @abstractmethod
    def mode(self, parameters: Tensor) -> Tensor:
        """The most likely actions ``[N, *action_shape]``."""

    @abstractmethod
    def log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """Log-probability (density) of the actions, ``[N]``."""

    @abstractmethod
    def entropy(self, parameters: Tensor) -> Tensor:
        """Entropy in nats, ``[N]``."""

    def evaluate(self, parameters: Tensor, actions: Tensor) -> ActionEvaluation:
        """All that training needs at once: :meth:`log_prob`, :meth:`entropy` and :meth:`concentration`."""
        return ActionEvaluation(
            self.log_prob(parameters, actions), self.entropy(parameters), self.concentration(parameters)
        )

    def masked(self, parameters: Tensor, allowed: Tensor) -> Tensor:
        """The parameters ``[N, A]`` of a distribution that never gives what is not allowed, ``[N, M]``.

        Raises:
            ValueError: the actions are numbers, of which none can be forbidden.
        """
        raise ValueError("Action masks are for Discrete, MultiDiscrete and MultiBinary actions.")

    def concentration(self, parameters: Tensor) -> Tensor | None:
        """``sum_a pi(a)^2``, summed over the parts of an action, ``[N]``; ``None`` where it is undefined."""
        del parameters
        return None


FORBIDDEN = -1e8
"""The logit of what is not allowed: its probability is zero in single precision, its logarithm finite."""


class Categorical(ActionDistribution):
    """One of A actions, from logits."""

    def masked(self, parameters: Tensor, allowed: Tensor) -> Tensor:
        """See base class."""
        return parameters.masked_fill(~allowed, FORBIDDEN)

    def sample(self, parameters: Tensor) -> Tensor:
        """See base class; the Gumbel trick, an argmax over A numbers."""
        return (parameters - torch.empty_like(parameters).exponential_().log_()).argmax(-1)

    def mode(self, parameters: Tensor) -> Tensor:
        """See base class."""
        return parameters.argmax(-1)

    def log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """See base class."""
        return self.evaluate(parameters, actions).log_probs

    def entropy(self, parameters: Tensor) -> Tensor:
        """See base class."""
        log_probs = F.log_softmax(parameters, dim=-1)
        return -(log_probs.exp() * log_probs).sum(-1)

    def concentration(self, parameters: Tensor) -> Tensor:
        """See base class."""
        return F.softmax(parameters, dim=-1).square().sum(-1)

    def evaluate(self, parameters: Tensor, actions: Tensor) -> ActionEvaluation:
        """See base class; the probabilities are computed once for all."""
        log_probs = F.log_softmax(parameters, dim=-1)
        probs = log_probs.exp()
        chosen = log_probs.gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)
        return ActionEvaluation(chosen, -(probs * log_probs).sum(-1), probs.square().sum(-1))


class MultiCategorical(ActionDistribution):
    """Several independent choices, from the logits of all of them side by side."""

    def __init__(self, sizes: list[int]):
        self.sizes = sizes
        self.choice = Categorical()

    def masked(self, parameters: Tensor, allowed: Tensor) -> Tensor:
        """See base class."""
        return self.choice.masked(parameters, allowed)

    def sample(self, parameters: Tensor) -> Tensor:
        """See base class."""
        return torch.stack([self.choice.sample(part) for part in self._split(parameters)], -1)

    def mode(self, parameters: Tensor) -> Tensor:
        """See base class."""
        return torch.stack([self.choice.mode(part) for part in self._split(parameters)], -1)

    def log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """See base class."""
        pairs = zip(self._split(parameters), actions.unbind(-1), strict=True)
        return torch.stack([self.choice.log_prob(part, chosen) for part, chosen in pairs]).sum(0)

    def entropy(self, parameters: Tensor) -> Tensor:
        """See base class."""
        return torch.stack([self.choice.entropy(part) for part in self._split(parameters)]).sum(0)

    def concentration(self, parameters: Tensor) -> Tensor:
        """See base class."""
        return torch.stack([self.choice.concentration(part) for part in self._split(parameters)]).sum(0)

    def evaluate(self, parameters: Tensor, actions: Tensor) -> ActionEvaluation:
        """See base class."""
        pairs = zip(self._split(parameters), actions.unbind(-1), strict=True)
        parts = zip(*[self.choice.evaluate(part, chosen) for part, chosen in pairs], strict=True)
        return ActionEvaluation(*[torch.stack(part).sum(0) for part in parts])

    def _split(self, parameters: Tensor) -> tuple[Tensor, ...]:
        return parameters.split(self.sizes, dim=-1)


class Bernoulli(ActionDistribution):
    """A independent bits, from logits."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape

    def masked(self, parameters: Tensor, allowed: Tensor) -> Tensor:
        """See base class; two booleans for each bit, whether it may be off and whether it may be on."""
        off, on = allowed.unflatten(-1, (-1, 2)).unbind(-1)
        return parameters.masked_fill(~on, FORBIDDEN).masked_fill(~off, -FORBIDDEN)

    def sample(self, parameters: Tensor) -> Tensor:
        """See base class."""
        return self._shaped((torch.rand_like(parameters) < parameters.sigmoid()).float())

    def mode(self, parameters: Tensor) -> Tensor:
        """See base class."""
        return self._shaped((parameters > 0).float())

    def log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """See base class."""
        bits = actions.reshape(parameters.shape).to(parameters.dtype)
        return -F.binary_cross_entropy_with_logits(parameters, bits, reduction="none").sum(-1)

    def entropy(self, parameters: Tensor) -> Tensor:
        """See base class."""
        probability = parameters.sigmoid()
        return (F.softplus(parameters) - parameters * probability).sum(-1)

    def concentration(self, parameters: Tensor) -> Tensor:
        """See base class."""
        probability = parameters.sigmoid()
        return (probability.square() + (1 - probability).square()).sum(-1)

    def _shaped(self, bits: Tensor) -> Tensor:
        return bits.reshape(*bits.shape[:-1], *self.shape)


class DiagonalGaussian(ActionDistribution):
    """Independent normal numbers: means from the network, standard deviations trained apart from it."""

    def __init__(self, shape: tuple[int, ...], log_std: Tensor):
        self.shape = shape
        self.log_std = log_std

    def sample(self, parameters: Tensor) -> Tensor:
        """See base class."""
        return self._shaped(parameters + self.log_std.exp() * torch.randn_like(parameters))

    def mode(self, parameters: Tensor) -> Tensor:
        """See base class."""
        return self._shaped(parameters)

    def log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """See base class."""
        distance = (actions.reshape(parameters.shape) - parameters) / self.log_std.exp()
        return (-0.5 * distance.square() - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self, parameters: Tensor) -> Tensor:
        """See base class."""
        entropy = (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()
        return entropy.expand(parameters.shape[:-1])

    def _shaped(self, numbers: Tensor) -> Tensor:
        return numbers.reshape(*numbers.shape[:-1], *self.shape)


class StateDependentGaussian(ActionDistribution):
    """Normal numbers whose noise is a linear function of features of the state: gSDE.

    Raffin et al. 2022, "Smooth exploration for robotic reinforcement learning" (arXiv 2005.05719), section 3.

    The function is drawn, ``[K, A]`` for each environment, and kept for several steps: for the same features
    the noise is the same, so that it lasts. The density is the one over all functions, as in
    Stable-Baselines3: ``N(mean, (features^2) @ (std^2))``. Parameters are means and features side by side,
    ``[N, A + K]``; nothing is propagated back into the features through the noise.

    Args:
        shape: of an action, with A numbers.
        log_std: logarithm of the standard deviations of the function's weights, ``[K, A]``.

    Attributes:
        weights: the functions, ``[B, K, A]``; None before the first is drawn.
    """

    EPSILON = 1e-6

    def __init__(self, shape: tuple[int, ...], log_std: Tensor):
        self.shape = shape
        self.log_std = log_std
        self.weights: Tensor | None = None

    def draw_noise(self, n_envs: int, only: Tensor | None = None) -> Tensor:
        """Draw the function of each environment anew.

        Args:
            n_envs: B.
            only: boolean ``[B]``, environments that get another one, if there is one for each already.

        Returns:
            the functions, ``[B, K, A]``.
        """
        std = self.log_std.detach().exp()
        drawn = std * torch.randn(n_envs, *std.shape, device=std.device, dtype=std.dtype)
        former = self.weights
        if only is not None and former is not None and _alike(former, drawn):
            drawn = torch.where(only[:, None, None], drawn, former)
        self.weights = drawn
        return drawn

    def sample(self, parameters: Tensor) -> Tensor:
        """See base class; parameters are ``[B, A + K]``."""
        mean, features = self._split(parameters)
        weights = self.weights
        if weights is None or len(weights) != len(mean) or weights.device != mean.device:
            weights = self.draw_noise(len(mean))
        return self._shaped(mean + torch.bmm(features.unsqueeze(1), weights.to(mean.dtype)).squeeze(1))

    def mode(self, parameters: Tensor) -> Tensor:
        """See base class."""
        return self._shaped(self._split(parameters)[0])

    def log_prob(self, parameters: Tensor, actions: Tensor) -> Tensor:
        """See base class."""
        mean, features = self._split(parameters)
        std = self._std(features)
        distance = (actions.reshape(mean.shape) - mean) / std
        return (-0.5 * distance.square() - std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self, parameters: Tensor) -> Tensor:
        """See base class."""
        std = self._std(self._split(parameters)[1])
        return (std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def _std(self, features: Tensor) -> Tensor:
        """Of the actions, ``[N, A]``."""
        return (features.square() @ (2 * self.log_std).exp() + self.EPSILON).sqrt()

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        mean, features = parameters.split([math.prod(self.shape), len(self.log_std)], dim=-1)
        return mean, features.detach()

    def _shaped(self, numbers: Tensor) -> Tensor:
        return numbers.reshape(*numbers.shape[:-1], *self.shape)


def _alike(one: Tensor, other: Tensor) -> bool:
    return (one.shape, one.device, one.dtype) == (other.shape, other.device, other.dtype)


def make_distribution(
    space: spaces.Space, log_std: Tensor | None = None, use_sde: bool = False
) -> ActionDistribution:
    """The family that fits an action space, with the numbers in the order Stable-Baselines3 gives them.

    Args:
        space: of the actions.
        log_std: for Box actions, the parameter of their deviations.
        use_sde: their noise depends on the state.

    Raises:
        ValueError: no family fits the space.
    """
    if isinstance(space, spaces.Discrete):
        return Categorical()
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return MultiCategorical(space.nvec.tolist())
    if isinstance(space, spaces.MultiBinary):
        return Bernoulli(space.shape)
    if isinstance(space, spaces.Box) and log_std is not None:
        return (StateDependentGaussian if use_sde else DiagonalGaussian)(space.shape, log_std)
    raise ValueError(f"The action space {one_line(space)} cannot be served.")

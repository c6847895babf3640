"""Actor-critic policies around a recurrent core.

    observation -> features extractor -> (encoder) -> core -> (layers of net_arch) -> action head, value head

With ``separate_critic`` the value head has an encoder and a core of its own.

Dimensions: ``T`` time, ``B`` environments, ``I`` features, ``O`` output size of the core.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.distributions import Distribution, StateDependentNoiseDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    MlpExtractor,
    NatureCNN,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.common.utils import obs_as_tensor
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F
from torch.nn.modules.module import _has_any_global_hook  # pyright: ignore[reportPrivateImportUsage]

from mnm_rl.agents.arguments import one_line
from mnm_rl.agents.buffers import Observations
from mnm_rl.agents.distributions import (
    ActionDistribution,
    DiagonalGaussian,
    StateDependentGaussian,
    make_distribution,
)
from mnm_rl.agents.masks import checked_masks
from mnm_rl.agents.policy_core import CoreSettings, actor_and_critic, head_inputs
from mnm_rl.agents.policy_settings import check_policy_settings, check_sde, renamed
from mnm_rl.agents.spaces import check_extractor, check_finite, check_observation, first_numbers, is_finite
from mnm_rl.agents.states import checked_starts, checked_state, state_fits, state_tensors, state_to_arrays
from mnm_rl.cores import CoreChoice, MemoryCore, PairedCore, core_name, innermost
from mnm_rl.cores.quick import departure

NOT_FINITE = (
    "The policy's output is not finite for finite observations: its parameters or its state are not, or too "
    "large."
)


class SequenceEvaluation(NamedTuple):
    """What training needs to know about a sequence."""

    values: Tensor
    """``[T, B]``."""
    log_probs: Tensor
    """Of the actions taken, ``[T, B]``."""
    entropy: Tensor
    """``[T, B]``."""
    concentration: Tensor | None
    """``sum_a pi(a)^2``, ``[T, B]``; ``None`` for continuous actions."""
    meta_loss: Tensor
    """The core's own loss, ``[T, B]``."""
    state: Any
    """Recurrent state after the last step."""


class RecurrentActorCriticPolicy(ActorCriticPolicy):
    """Policy and value function with one recurrent core, or one each. Known as ``"MlpPolicy"``.

    Args:
        observation_space: any that Stable-Baselines3's A2C takes.
        action_space: Discrete, MultiDiscrete, MultiBinary or Box.
        lr_schedule: learning rate as a function of the remaining progress.
        core: a name of :func:`mnm_rl.cores.core_names`, a reference such as ``"package.module:ClassName"``,
            or a class derived from :class:`mnm_rl.cores.MemoryCore`.
        core_kwargs: its settings, such as ``{"hidden_size": 100}``.
        core_layers: so many such cores on top of each other.
        encoder_arch: sizes of layers between the features and the core; none by default.
        separate_critic: give the value function an encoder and a core of its own, so that its error does not
            change what the policy remembers.
        net_arch: sizes of layers between core and heads, as in Stable-Baselines3; none by default.
        activation_fn: nonlinearity of the layers of ``encoder_arch`` and ``net_arch``.
        ortho_init: orthogonal initialisation of all but the core.
        log_std_init: initial logarithm of the standard deviation of Box actions.
        features_extractor_class: what turns an observation into a vector.
        features_extractor_kwargs: its arguments.
        normalize_images: divide images by 255.
        optimizer_class: torch optimizer.
        optimizer_kwargs: its arguments, without the learning rate.
        use_sde: let the noise of Box actions depend on the state and last for several steps (generalized
            state-dependent exploration); the algorithms have this setting, and pass it.
        other: settings of Stable-Baselines3's and sb3-contrib's policies, with the values that change nothing
            here (``share_features_extractor=True``, ``squash_output=False``, ...), and those that have
            another name here: ``n_lstm_layers`` is ``core_layers``, ``enable_critic_lstm``
            ``separate_critic``, and ``lstm_hidden_size`` ``core_kwargs={"hidden_size": ...}``.

    Raises:
        ValueError: unknown core, a setting that is not allowed, or spaces that cannot be served.
        TypeError: unknown setting of the core or of the policy, or one of another type.
    """

    core: MemoryCore
    first_action: Any
    """First number of Discrete and MultiDiscrete actions that do not count from 0, ``None`` for others."""
    _distribution: ActionDistribution

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        core: CoreChoice = "lstm",
        core_kwargs: Mapping[str, Any] | None = None,
        core_layers: int = 1,
        encoder_arch: Sequence[int] = (),
        separate_critic: bool = False,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.Tanh,
        ortho_init: bool = True,
        log_std_init: float = 0.0,
        features_extractor_class: type[BaseFeaturesExtractor] = FlattenExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        use_sde: bool = False,
        **other: Any,
    ):
        check_sde(use_sde, action_space)
        given = {
            "core_kwargs": {} if core_kwargs is None else core_kwargs,
            "core_layers": core_layers,
            "separate_critic": separate_critic,
        }
        settings = CoreSettings(core, encoder_arch=encoder_arch, **renamed(other, given))
        check_policy_settings(
            *(net_arch, activation_fn, ortho_init, log_std_init, features_extractor_class),
            *(features_extractor_kwargs, normalize_images, optimizer_class, optimizer_kwargs),
        )
        check_extractor(features_extractor_class, observation_space, normalize_images)
        self._observation_starts = first_numbers(observation_space)
        self.first_action = first_numbers(action_space).get("")
        self._core_settings = settings
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch=[] if net_arch is None else net_arch,
            activation_fn=activation_fn,
            ortho_init=ortho_init,
            use_sde=use_sde,
            log_std_init=log_std_init,
            features_extractor_class=features_extractor_class,
            features_extractor_kwargs=features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        self._distribution = make_distribution(action_space, getattr(self, "log_std", None), use_sde)
        self._weights_of_playing: Tensor | None = None
        if use_sde:
            self.reset_noise()

    @property
    def distribution(self) -> ActionDistribution:
        """Samples and evaluates actions, with the ``log_std`` that the policy has now."""
        if isinstance(self._distribution, DiagonalGaussian | StateDependentGaussian):
            self._distribution.log_std = self.log_std
        return self._distribution

    @property
    def core_name(self) -> str:
        """Name of the core; the reference of one that was given as a class."""
        return core_name(self._core_settings.core)

    @property
    def memory(self) -> Any:
        """The core that can be looked into: the top one of several layers, the policy's of two."""
        return innermost(self.core)

    def initial_state(self, batch_size: int) -> Any:
        """Recurrent state at the start of an episode."""
        return self.core.initial_state(batch_size)

    @torch.no_grad()
    def act(
        self,
        observation: Observations,
        state: Any,
        episode_starts: NDArray[np.bool_],
        deterministic: bool = False,
        action_masks: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[Any], Any]:
        """Choose actions for one step of B environments; neither values nor probabilities are computed.

        Args:
            observation: ``[B, *observation_shape]``, a dictionary of such for Dict spaces.
            state: recurrent state before the step.
            episode_starts: ``[B]``; where true the state is replaced by the initial one.
            deterministic: take the most likely action instead of drawing one.
            action_masks: what is allowed, ``[B, M]`` (see :mod:`mnm_rl.agents.masks`); everything if not
                given.

        Returns:
            actions ``[B, *action_shape]``, not clipped to the action space and counted from 0 (see
            :meth:`clip_actions`), and the state after the step.

        Raises:
            ValueError: an observation or a number of a Box action is not finite. Parameters are not looked
                at, see :meth:`check_parameters`.
        """
        check_finite(observation)
        # BaseModel.device walks through all parameters, which takes as long as the environments' step.
        device = self.value_net.weight.device
        tensors = obs_as_tensor(observation, device)  # pyright: ignore[reportArgumentType]
        starts = torch.as_tensor(episode_starts, device=device) if episode_starts.any() else None
        actions, _, state = self._choose(tensors, state, starts, deterministic, self._masks(action_masks))
        return actions, state

    def check_parameters(self) -> None:
        """Raise a ValueError if a parameter is not finite; actions of such a policy mean nothing."""
        for name, parameter in self.named_parameters():
            # The sum is faster, and may overflow.
            values = parameter.detach()
            if not math.isfinite(values.sum()) and not bool(values.isfinite().all()):
                raise ValueError(f"The policy's parameter {name} is not finite.")

    def evaluate_sequence(
        self,
        observations: PyTorchObs,
        actions: Tensor,
        state: Any,
        episode_starts: Tensor,
        action_masks: Tensor | None = None,
    ) -> SequenceEvaluation:
        """Run whole sequences through the core in one call.

        Args:
            observations: ``[T, B, *observation_shape]``.
            actions: ``[T, B, *action_shape]``.
            state: recurrent state before the first step.
            episode_starts: boolean ``[T, B]``.
            action_masks: what was allowed, boolean ``[T, B, M]``; everything if not given.

        Raises:
            ValueError: the state is not one of this core for B environments.
        """
        state = self.checked_state(state, episode_starts.shape[1])
        output = self.core(self._sequence_features(observations, episode_starts), state, episode_starts)
        parameters, values = self._parameters_and_values(output.outputs, action_masks)
        evaluation = self.distribution.evaluate(parameters, actions)
        return SequenceEvaluation(values, *evaluation, meta_loss=output.meta_loss, state=output.state)

    def _parameters_and_values(self, outputs: Tensor, action_masks: Tensor | None) -> tuple[Tensor, Tensor]:
        """What :meth:`action_parameters` and :meth:`values` give, by one product where it can be one.

        Gradients of both then go back to the outputs at once, which are large for a sequence.
        """
        if not self._heads_are_joint():
            return self.action_parameters(outputs, action_masks), self.values(outputs)
        heads: list[Any] = [self.action_net, self.value_net]
        weight, bias = torch.cat([head.weight for head in heads]), torch.cat([head.bias for head in heads])
        parameters, values = F.linear(outputs, weight, bias).split([len(weight) - 1, 1], -1)
        if action_masks is not None:
            parameters = self.distribution.masked(parameters, action_masks)
        return parameters, values.squeeze(-1)

    def _heads_are_joint(self) -> bool:
        """Whether both heads are one layer each, of the same outputs, and nobody has changed what they do."""
        heads = {"action_net": nn.Linear, "value_net": nn.Linear, "mlp_extractor": MlpExtractor}
        layers = self.mlp_extractor
        return (
            not (self.use_sde or isinstance(self.core, PairedCore) or _has_any_global_hook())
            and departure(self, RecurrentActorCriticPolicy, ("action_parameters", "values"), heads) is None
            and len(layers.policy_net) + len(layers.value_net) == 0
        )

    def action_parameters(self, outputs: Tensor, action_masks: Tensor | None = None) -> Tensor:
        """Numbers of the distribution over actions, ``[..., A]``.

        Args:
            outputs: of the core, ``[..., O]``.
            action_masks: what is allowed, boolean ``[..., M]``; everything if not given.
        """
        actor, _ = actor_and_critic(self.core, outputs)
        features = self.mlp_extractor.forward_actor(actor)
        parameters = self.action_net(features)
        if self.use_sde:
            parameters = torch.cat([parameters, features], -1)
        return parameters if action_masks is None else self.distribution.masked(parameters, action_masks)

    def values(self, outputs: Tensor) -> Tensor:
        """Values ``[...]`` from outputs of the core ``[..., O]``."""
        _, critic = actor_and_critic(self.core, outputs)
        return self.value_net(self.mlp_extractor.forward_critic(critic)).squeeze(-1)

    def predict_values(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, obs: PyTorchObs, state: Any, episode_starts: Tensor
    ) -> Tensor:
        """Values ``[B]`` of observations ``[B, ...]``, given the state before them.

        Raises:
            ValueError: the state is not one of this core for B environments.
        """
        outputs, _ = self._checked_step(obs, state, episode_starts)
        return self.values(outputs)

    def get_distribution(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, obs: PyTorchObs, state: Any, episode_starts: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Distribution, Any]:
        """Stable-Baselines3's distribution over the actions of one step, and the state after it.

        Actions of Discrete spaces are counted from 0, whatever their first number is.

        Raises:
            ValueError: the state is not one of this core for B environments.
        """
        outputs, state = self._checked_step(obs, state, episode_starts)
        parameters = self.action_parameters(outputs, action_masks)
        if not isinstance(self.action_space, spaces.Box):
            return self.action_dist.proba_distribution(parameters), state
        means = self.action_net.out_features
        mean, features = parameters[..., :means], parameters[..., means:]
        further = (features,) if self.use_sde else ()
        return self.action_dist.proba_distribution(mean, self.log_std, *further), state

    def reset_noise(self, n_envs: int = 1) -> None:
        """Draw the noise of ``use_sde`` anew, which is kept until the next call.

        Args:
            n_envs: environments that will be acted in.

        Raises:
            ValueError: the policy has no such noise.
        """
        if not isinstance(self.distribution, StateDependentGaussian):
            raise ValueError("reset_noise() is for policies with use_sde=True.")
        weights = self.distribution.draw_noise(n_envs)
        # Stable-Baselines3's distribution has the same; what it draws itself has gradients, and no copies.
        theirs = self.action_dist
        assert isinstance(theirs, StateDependentNoiseDistribution)
        theirs.exploration_mat, theirs.exploration_matrices = weights[0], weights
        theirs.weights_dist = Normal(torch.zeros_like(weights[0]), self.log_std.detach().exp())

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        obs: PyTorchObs,
        state: Any,
        episode_starts: Tensor,
        deterministic: bool = False,
        action_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Any]:
        """One step: actions ``[B, *action_shape]``, values ``[B]``, log-probabilities ``[B]``, state.

        Actions are those of :meth:`act`: neither clipped nor moved to the first number of a Discrete space.

        Raises:
            ValueError: the state is not one of this core for B environments.
        """
        outputs, state = self._checked_step(obs, state, episode_starts)
        parameters = self.action_parameters(outputs, action_masks)
        actions = self._pick(parameters, deterministic)
        return actions, self.values(outputs), self.distribution.log_prob(parameters, actions), state

    def evaluate_actions(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        obs: PyTorchObs,
        actions: Tensor,
        state: Any,
        episode_starts: Tensor,
        action_masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values, log-probabilities and entropy ``[T, B]`` of sequences; see :meth:`evaluate_sequence`."""
        evaluation = self.evaluate_sequence(obs, actions, state, episode_starts, action_masks)
        return evaluation.values, evaluation.log_probs, evaluation.entropy

    def predict(
        self,
        observation: NDArray[Any] | dict[str, NDArray[Any]],
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
        action_masks: NDArray[Any] | None = None,
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], ...] | None]:
        """Choose actions; the state comes and goes as a tuple of numpy arrays, each ``[B, ...]``.

        Args:
            observation: one, or a batch of B.
            state: what the last call returned; ``None`` at the start.
            episode_start: ``[B]``; where true the state is replaced by the initial one.
            deterministic: take the most likely action instead of drawing one.
            action_masks: what is allowed, ``[B, M]`` or ``[M]`` for one observation, as the environment's
                ``action_masks()`` gives it; everything if not given.

        Returns:
            actions as the environment takes them, arrays also for one observation, and the state.

        Raises:
            ValueError: the state, ``episode_start`` or ``action_masks`` is not one for so many environments,
                or an observation is not one of the space or not finite, or what Gymnasium's ``reset()``
                returns, with the info.
        """
        if isinstance(observation, tuple):
            raise ValueError(
                "predict() takes an observation, not a tuple such as Gymnasium's (observation, info); an "
                "environment whose observations are tuples goes into mnm_rl.agents.FlatSpaces first."
            )
        self.set_training_mode(False)
        check_observation(observation, self.observation_space)
        check_finite(observation)
        tensors, is_batch = self.obs_to_tensor(observation)
        batch_size = len(next(iter(tensors.values())) if isinstance(tensors, dict) else tensors)
        starts = checked_starts(episode_start, batch_size)
        if action_masks is not None:
            action_masks = checked_masks(action_masks, self.action_space, batch_size)
        new = np.ones(batch_size, np.bool_) if state is None else starts
        with torch.no_grad(), self._noise_of_playing(None if deterministic else new):
            chosen, parameters, new_state = self._choose(
                tensors,
                self.state_from_arrays(state, batch_size),
                torch.tensor(starts, device=self.device),
                deterministic,
                self._masks(action_masks),
            )
        # Numbers that are not finite still have a largest one, which would be an action.
        if not is_finite(parameters.cpu().numpy()):
            raise ValueError(NOT_FINITE)
        actions = self.clip_actions(chosen)
        return actions if is_batch else actions.squeeze(axis=0), state_to_arrays(new_state)

    @contextlib.contextmanager
    def _noise_of_playing(self, new_episodes: NDArray[np.bool_] | None) -> Iterator[None]:
        """State-dependent noise of its own for what is not a rollout, drawn where an episode is new, ``[B]``.

        A rollout that is under way keeps its noise. Nothing is done for None, or without such noise.
        """
        distribution = self.distribution
        if new_episodes is None or not isinstance(distribution, StateDependentGaussian):
            yield
            return
        of_rollout, distribution.weights = distribution.weights, self._weights_of_playing
        try:
            rows = torch.tensor(new_episodes, device=self.log_std.device)
            distribution.draw_noise(len(new_episodes), rows)
            yield
        finally:
            self._weights_of_playing, distribution.weights = distribution.weights, of_rollout

    def clip_actions(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Actions as the environment takes them.

        Those of a Box are within it, and whole numbers where it has such; those of a Discrete space are
        counted from its start.
        """
        space = self.action_space
        if isinstance(space, spaces.Box):
            clipped = np.clip(actions, space.low, space.high)
            return clipped if space.dtype.kind == "f" else np.rint(clipped).astype(space.dtype)
        return actions if self.first_action is None else actions + self.first_action

    def extract_features(
        self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor | None = None
    ) -> Any:
        """See base class, which takes numbers of Discrete spaces as counted from 0.

        Raises:
            ValueError: a number of a Discrete or MultiDiscrete space is not one of its numbers.
        """
        if self._observation_starts:
            obs = self._counted_from_zero(obs)
        try:
            return super().extract_features(obs, features_extractor)
        except RuntimeError as error:
            if "Class values must be" not in str(error):  # of torch's one_hot
                raise
            raise ValueError(f"An observation lies outside of {one_line(self.observation_space)}.") from error

    def _counted_from_zero(self, obs: PyTorchObs) -> PyTorchObs:
        starts = self._observation_starts
        if not isinstance(obs, dict):
            return obs - torch.as_tensor(starts[""], device=obs.device)
        return {
            key: part - torch.as_tensor(starts[key], device=part.device) if key in starts else part
            for key, part in obs.items()
        }

    def state_from_arrays(self, arrays: tuple[NDArray[Any], ...] | None, batch_size: int) -> Any:
        """The inverse of :func:`~mnm_rl.agents.states.state_to_arrays`; the initial state for ``None``.

        Raises:
            ValueError: the arrays are not a state of this core for so many environments.
        """
        if arrays is None:
            return self.initial_state(batch_size)
        return self.checked_state(state_tensors(arrays, self.value_net.weight.device), batch_size)

    def checked_state(self, state: Any, batch_size: int) -> Any:
        """The state, of the core's own type and dtype; the initial state for ``None``.

        Raises:
            ValueError: it is not a state of this core for so many environments.
        """
        return checked_state(state, self.initial_state(batch_size), self.core_name, batch_size)

    def state_fits(self, state: Any, batch_size: int) -> bool:
        """Whether tensors are a state of this core for so many environments."""
        return state_fits(state, self.initial_state(batch_size))

    def _masks(self, action_masks: NDArray[np.bool_] | None) -> Tensor | None:
        return (
            None
            if action_masks is None
            else torch.as_tensor(action_masks, device=self.value_net.weight.device)
        )

    def _choose(
        self,
        obs: PyTorchObs,
        state: Any,
        episode_starts: Tensor | None,
        deterministic: bool,
        action_masks: Tensor | None,
    ) -> tuple[NDArray[Any], Tensor, Any]:
        """Actions, the numbers that they were drawn from, and the state after the step."""
        outputs, state = self._step(obs, state, episode_starts)
        return *self._choose_from(outputs, deterministic, action_masks), state

    def _choose_from(
        self, outputs: Tensor, deterministic: bool, action_masks: Tensor | None
    ) -> tuple[NDArray[Any], Tensor]:
        """Actions from outputs of the core ``[B, O]``, and the numbers that they were drawn from."""
        parameters = self.action_parameters(outputs, action_masks)
        actions = self._pick(parameters, deterministic).cpu().numpy()
        if actions.dtype.kind == "f" and not is_finite(actions):
            raise ValueError(NOT_FINITE)
        return actions, parameters

    def _pick(self, parameters: Tensor, deterministic: bool) -> Tensor:
        return self.distribution.mode(parameters) if deterministic else self.distribution.sample(parameters)

    def _step(self, obs: PyTorchObs, state: Any, episode_starts: Tensor | None) -> tuple[Tensor, Any]:
        return self.core.step(self.extract_features(obs), state, episode_starts)  # pyright: ignore

    def _checked_step(self, obs: PyTorchObs, state: Any, episode_starts: Tensor | None) -> tuple[Tensor, Any]:
        batch_size = len(next(iter(obs.values())) if isinstance(obs, dict) else obs)
        return self._step(obs, self.checked_state(state, batch_size), episode_starts)

    def _sequence_features(self, observations: PyTorchObs, episode_starts: Tensor) -> Tensor:
        """``[T, B, I]``; extractors take one leading dimension only."""
        if isinstance(observations, dict):
            flat: PyTorchObs = {key: part.flatten(0, 1) for key, part in observations.items()}
        else:
            flat = observations.flatten(0, 1)
        return self.extract_features(flat).unflatten(0, episode_starts.shape)  # pyright: ignore

    def _build_mlp_extractor(self) -> None:
        """Called by the base class before it builds heads and optimizer."""
        # Extractors of MultiDiscrete observations give a numpy number, which torch refuses.
        self.core = self._core_settings.build(int(self.features_dim), self.activation_fn, self.ortho_init)
        self.mlp_extractor = MlpExtractor(
            head_inputs(self.core), self.net_arch, self.activation_fn, device=self.device
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = {**super()._get_constructor_parameters(), **vars(self._core_settings)}
        for name in ("squash_output", "full_std", "use_expln"):
            data.pop(name, None)
        return data


class RecurrentActorCriticCnnPolicy(RecurrentActorCriticPolicy):
    """The same with a convolutional network in front, for images. Known as ``"CnnPolicy"``."""

    def __init__(self, *args: Any, features_extractor_class: Any = NatureCNN, **kwargs: Any):
        super().__init__(*args, features_extractor_class=features_extractor_class, **kwargs)


class RecurrentMultiInputActorCriticPolicy(RecurrentActorCriticPolicy):
    """The same for Dict observations. Known as ``"MultiInputPolicy"``."""

    def __init__(self, *args: Any, features_extractor_class: Any = CombinedExtractor, **kwargs: Any):
        super().__init__(*args, features_extractor_class=features_extractor_class, **kwargs)

"""What recurrent A2C and PPO share: acting for a rollout, its values, and checks of all settings.

Dimensions: ``T`` time (n_steps), ``B`` environments (n_envs).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from mnm_rl.agents.arguments import check_base_settings, check_device, check_dictionary, check_learn, made_env
from mnm_rl.agents.buffers import SequenceRolloutBuffer
from mnm_rl.agents.flattening import flattened
from mnm_rl.agents.masks import ask_for_masks, chosen_masking, mask_parts
from mnm_rl.agents.normalization import check_normalised_rewards
from mnm_rl.agents.policies import (
    RecurrentActorCriticCnnPolicy,
    RecurrentActorCriticPolicy,
    RecurrentMultiInputActorCriticPolicy,
)
from mnm_rl.agents.policy_settings import check_sde
from mnm_rl.agents.processes import (
    SharedStatistics,
    check_alike,
    least_of_processes,
    mean_over_processes,
    seed_own_draws,
    take_from_first,
)
from mnm_rl.agents.quick_acting import QuickActing
from mnm_rl.agents.resumable import ResumableAlgorithm
from mnm_rl.agents.returns import advantages_and_returns
from mnm_rl.agents.settings import (
    COUNT,
    FRACTION,
    LIMIT,
    OTHER_POLICIES,
    WEIGHT,
    OtherSettings,
    check_flag,
    check_foreign_settings,
    check_learning_rate,
    check_number,
)
from mnm_rl.agents.spaces import check_spaces
from mnm_rl.updates import GuardedOptimizer, process_share

EntropyKind = Literal["entropy", "concentration"]


class Losses(NamedTuple):
    """Parts of the loss of one update, scalars."""

    policy: Tensor
    value: Tensor
    entropy: Tensor
    concentration: Tensor | None
    meta: Tensor

    def numbers(self) -> dict[str, float]:
        """For the log."""
        numbers = {
            "policy_loss": self.policy.item(),
            "value_loss": self.value.item(),
            "entropy": self.entropy.item(),
            "meta_loss": self.meta.item(),
        }
        return (
            numbers if self.concentration is None else {**numbers, "concentration": self.concentration.item()}
        )


class RecurrentOnPolicyAlgorithm(ResumableAlgorithm):
    """An actor-critic algorithm for recurrent policies that learns from whole rollouts.

    In a group of ``torch.distributed`` every process makes an agent of the same settings with environments
    of its own, as many as each other, and calls :meth:`learn`: all of them then make the same updates, from
    everything that was played. What is shared is in :mod:`mnm_rl.agents.processes`.

    A subclass has its own settings, sets them before it calls this constructor, extends
    :meth:`_check_numbers` and :meth:`_check_settings` by them, and makes its update in ``train``.

    Args:
        policy: as for the algorithms.
        env: environment or its id.
        learning_rate: number, or function of the remaining progress (1 to 0).
        n_steps: T.
        gamma: discount per step.
        gae_lambda: 1 for Monte-Carlo returns.
        ent_coef: weight of the term that keeps the policy exploring.
        entropy_kind: that term: minus the entropy, or the concentration ``sum_a pi(a)^2``.
        vf_coef: weight of the squared error of the values.
        meta_coef: weight of the core's own loss.
        max_grad_norm: gradients are scaled down to this norm.
        normalize_advantage: to mean 0 and standard deviation 1.
        use_sde: state-dependent exploration, for Box actions.
        sde_sample_freq: steps for which its noise is kept; -1: for a rollout.
        bootstrap_time_limit: add ``gamma * V(last observation)`` where a time limit cut an episode off.
        rollout_buffer_class: :class:`SequenceRolloutBuffer` or a subclass.
        rollout_buffer_kwargs: further arguments of it.
        stats_window_size: episodes that ``rollout/ep_rew_mean`` averages over.
        tensorboard_log: folder for TensorBoard.
        policy_kwargs: arguments of the policy.
        verbose: 0 for no output.
        seed: of all random numbers, below 2^32.
        device: where the policy runs.
        other: settings of other algorithms.

    Raises:
        ValueError: spaces that cannot be served, an unknown core or environment, or a value that is not
            allowed; nothing has been built then.
        TypeError: unknown setting of the core, of the policy or of the agent, or a policy, an environment or
            a setting of another kind.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": RecurrentActorCriticPolicy,
        "CnnPolicy": RecurrentActorCriticCnnPolicy,
        "MultiInputPolicy": RecurrentMultiInputActorCriticPolicy,
    }
    other_settings: ClassVar[OtherSettings] = {}
    """Settings of other algorithms: the values that change nothing here, and why others would."""
    tags: ClassVar[Mapping[str, str]] = {}
    """Numbers of an update that are logged under another name."""
    rollout_buffer: SequenceRolloutBuffer  # pyright: ignore[reportIncompatibleVariableOverride]
    last_update: dict[str, float]
    """Numbers of the last update, by name."""
    _use_masking = False
    _statistics: SharedStatistics | None = None

    def __init__(
        self,
        policy: str | type[RecurrentActorCriticPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule,
        n_steps: int,
        *,
        gamma: float,
        gae_lambda: float,
        ent_coef: float,
        entropy_kind: EntropyKind,
        vf_coef: float,
        meta_coef: float,
        max_grad_norm: float,
        normalize_advantage: bool,
        use_sde: bool,
        sde_sample_freq: int,
        bootstrap_time_limit: bool,
        rollout_buffer_class: type[SequenceRolloutBuffer] | None,
        rollout_buffer_kwargs: dict[str, Any] | None,
        stats_window_size: int,
        tensorboard_log: str | None,
        policy_kwargs: dict[str, Any] | None,
        verbose: int,
        seed: int | None,
        device: torch.device | str,
        other: dict[str, Any],
        _init_setup_model: bool,
    ):
        own = inspect.signature(type(self).__init__).parameters
        check_foreign_settings(type(self).__name__, other, self.other_settings, own)
        policy_kwargs = _check_policy(policy, policy_kwargs)
        self.learning_rate, self.n_steps, self.gamma, self.gae_lambda = (
            learning_rate,
            n_steps,
            gamma,
            gae_lambda,
        )
        self.ent_coef, self.vf_coef, self.max_grad_norm = ent_coef, vf_coef, max_grad_norm
        self.rollout_buffer_class = rollout_buffer_class or SequenceRolloutBuffer  # pyright: ignore
        self.rollout_buffer_kwargs = {} if rollout_buffer_kwargs is None else rollout_buffer_kwargs
        self._stats_window_size, self.tensorboard_log = stats_window_size, tensorboard_log
        self.verbose, self.seed = verbose, seed
        self.entropy_kind = entropy_kind
        self.meta_coef = meta_coef
        self.normalize_advantage = normalize_advantage
        self.use_sde, self.sde_sample_freq = use_sde, sde_sample_freq
        self.bootstrap_time_limit = bootstrap_time_limit
        self._check_numbers()
        check_device(device)
        if env is None and _init_setup_model:
            raise ValueError("env must not be None, but where load() makes the agent.")
        if env is not None:
            env = flattened(made_env(env, verbose))
            check_spaces(env.observation_space, env.action_space)
            check_sde(use_sde, env.action_space)
        self.last_update = {}
        self.n_processes = process_share()[1]
        super().__init__(
            policy,
            env,  # pyright: ignore[reportArgumentType]
            learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            rollout_buffer_class=self.rollout_buffer_class,
            rollout_buffer_kwargs=self.rollout_buffer_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def _setup_model(self) -> None:
        self._check_settings()
        super()._setup_model()
        seed_own_draws(self.seed, self.device)
        self.guard = GuardedOptimizer(
            self.policy.optimizer, self.policy.parameters(), self.max_grad_norm, average_gradients=True
        )
        self.core_state = self.policy.initial_state(self.n_envs)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        use_masking: bool | None = None,
    ) -> Self:
        """Train for ``total_timesteps`` more environment steps; see the base class.

        Args:
            total_timesteps: steps of single environments.
            callback: called at every step.
            log_interval: updates between two entries of the log.
            tb_log_name: name of the run for TensorBoard; the algorithm's if not given.
            reset_num_timesteps: count the steps from 0.
            progress_bar: show one.
            use_masking: choose only actions that the environment's ``action_masks()`` allows, as
                sb3-contrib's ``MaskablePPO``; where it has such a method, if not given.

        Raises:
            ValueError: an argument has a value that is not allowed, or the agent has no environment; nothing
                has been done then.
            TypeError: an argument is of another type.
            NonFiniteError: many updates in a row were not finite.
        """
        name = self.algorithm or "run" if tb_log_name is None else tb_log_name
        check_learn(*(self, total_timesteps, callback, log_interval, name, reset_num_timesteps, progress_bar))
        assert self.env is not None
        self._use_masking = chosen_masking(self.env, use_masking)
        self._meet(total_timesteps)
        return super().learn(total_timesteps, callback, log_interval, name, reset_num_timesteps, progress_bar)

    def _meet(self, total_timesteps: int) -> None:
        """Make sure that the processes that learn together are about to do the same, from the same start.

        Raises:
            ValueError: their agents differ in a setting.
        """
        self.n_processes = process_share()[1]
        check_alike(self._shared_settings() | {"total_timesteps": total_timesteps})
        take_from_first(list(self.policy.state_dict().values()))
        assert self.env is not None
        self._statistics = SharedStatistics(self.env)

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        found = super()._setup_learn(*args, **kwargs)
        self._share_statistics()  # first observations count, too
        return found

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        """As the base class, and 0 where the last rollout goes beyond the end.

        A schedule such as ``lambda remaining: remaining * 1e-3`` would be negative there.
        """
        super()._update_current_progress_remaining(min(num_timesteps, total_timesteps), total_timesteps)

    def _share_statistics(self) -> None:
        if self._statistics is not None:
            self._statistics.share()

    def _shared_settings(self) -> dict[str, Any]:
        """What has to be the same in all processes."""
        return {
            "algorithm": type(self).__name__,
            "number of environments": self.n_envs,
            "n_steps": self.n_steps,
            "num_timesteps": self.num_timesteps,
            "number of parameters": sum(each.numel() for each in self.policy.parameters()),
            "normalize_advantage": self.normalize_advantage,
            "max_grad_norm": self.max_grad_norm,
        }

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        observation: Any,
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
        action_masks: NDArray[Any] | None = None,
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], ...] | None]:
        """Choose actions; see :meth:`mnm_rl.agents.RecurrentActorCriticPolicy.predict`."""
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks)

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Act for ``n_rollout_steps`` and fill the buffer; see the base class.

        Raises:
            ValueError: a setting was changed to what is not allowed, or an observation, an action, a
                parameter or, with VecNormalize, a reward is not finite.
            TypeError: the buffer is not a :class:`SequenceRolloutBuffer`.
        """
        self._check_settings()
        buffer = self._buffer_that_fits(rollout_buffer, n_rollout_steps)
        self._fit_core_state()
        self.policy.check_parameters()
        self.policy.set_training_mode(False)
        self.mark_rollout_start()
        mask_size = sum(mask_parts(self.action_space)) if self._use_masking else None
        buffer.start(self.core_state, *[] if mask_size is None else [mask_size])
        callback.on_rollout_start()
        with self.policy.core.acting():
            goes_on = self._act(env, callback, buffer, n_rollout_steps)
        if not self._all_go_on(goes_on):
            return False
        self._share_statistics()
        rollout_buffer = buffer  # pyright: ignore[reportAssignmentType] - callbacks find it among the locals
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def _all_go_on(self, goes_on: bool) -> bool:
        """Whether no process's callback ended the training; if one did, all have come as far as it has."""
        all_go_on, timesteps = least_of_processes([goes_on, self.num_timesteps], self.device)
        if not all_go_on:
            self.num_timesteps = int(timesteps)
        return bool(all_go_on)

    def _buffer_that_fits(self, buffer: RolloutBuffer, n_rollout_steps: int) -> SequenceRolloutBuffer:
        """The buffer, or a new one if ``n_steps`` or the number of environments was changed."""
        if not isinstance(buffer, SequenceRolloutBuffer):
            raise TypeError(
                f"The rollout buffer must be a SequenceRolloutBuffer, not a {type(buffer).__name__}."
            )
        if (buffer.buffer_size, buffer.n_envs) == (n_rollout_steps, self.n_envs):
            return buffer
        if buffer is not self.rollout_buffer or type(buffer) is not self.rollout_buffer_class:
            raise ValueError(
                f"The rollout buffer takes {buffer.buffer_size} steps of {buffer.n_envs} environments, "
                f"but a rollout has {n_rollout_steps} steps of {self.n_envs}."
            )
        self.rollout_buffer = self.rollout_buffer_class(
            n_rollout_steps,
            self.observation_space,  # pyright: ignore[reportArgumentType]
            self.action_space,
            device=self.device,
            gae_lambda=self.gae_lambda,
            gamma=self.gamma,
            n_envs=self.n_envs,
            **self.rollout_buffer_kwargs,
        )
        return self.rollout_buffer

    def _fit_core_state(self) -> None:
        """At the start of episodes, a policy of another width than the last one begins with its own state."""
        assert self._last_episode_starts is not None
        if self._last_episode_starts.all() and not self.policy.state_fits(self.core_state, self.n_envs):
            self.core_state = self.policy.initial_state(self.n_envs)
        self.core_state = self.policy.checked_state(self.core_state, self.n_envs)

    def _act(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: SequenceRolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """The steps of a rollout; false if the callback ended the training."""
        act = QuickActing(self.policy)  # pyright: ignore[reportArgumentType]
        for step in range(n_rollout_steps):
            if self._draws_noise_at(step):
                self.policy.reset_noise(env.num_envs)
            obs, episode_starts = self._last_obs, self._last_episode_starts
            masks = {"action_masks": ask_for_masks(env)} if self._use_masking else {}
            actions, state = act(obs, self.core_state, episode_starts, **masks)  # pyright: ignore
            new_obs, rewards, dones, infos = env.step(self.policy.clip_actions(actions))
            self.num_timesteps += env.num_envs * self.n_processes
            check_normalised_rewards(env, rewards)
            rollout_buffer.add(obs, actions, rewards, episode_starts, **masks)  # pyright: ignore
            self._last_obs, self._last_episode_starts, self.core_state = new_obs, dones, state  # pyright: ignore
            callback.update_locals(locals())
            if not callback.on_step():
                return False
            if np.count_nonzero(dones):
                self._update_info_buffer(infos, dones)
                if self.bootstrap_time_limit:
                    self._add_terminal_values(rollout_buffer.rewards[step], dones, infos)
        return True

    def _draws_noise_at(self, step: int) -> bool:
        """Whether state-dependent noise is drawn before a step of the rollout, counted from 0."""
        kept = self.sde_sample_freq
        return self.policy.use_sde and (step == 0 or (kept > 0 and step % kept == 0))

    def _prepare_update(self) -> None:
        """Make sure that there is a rollout to learn from, and take up what was changed before.

        Raises:
            ValueError: the buffer is not full, the optimizer is not of these parameters, or the learning rate
                is out of range.
        """
        if not self.rollout_buffer.full:
            raise ValueError(
                f"The rollout buffer holds {self.rollout_buffer.pos} new steps of "
                f"{self.rollout_buffer.buffer_size}; an update needs a full one."
            )
        self.guard.use(self.policy.optimizer, self.policy.parameters(), self.max_grad_norm)
        self._update_learning_rate(self.policy.optimizer)

    def _advantages_and_returns(
        self, values: NDArray[np.float32], last_values: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of the rollout, ``[T, B]`` each, from its values ``[T, B]`` and those that follow it, ``[B]``."""
        starts = self.rollout_buffer.episode_starts
        ended = np.concatenate([starts[1:], self._last_episode_starts[None]])  # pyright: ignore
        return advantages_and_returns(
            self.rollout_buffer.rewards, values, last_values, ended, self.gamma, self.gae_lambda
        )

    def _total(self, losses: Losses) -> Tensor:
        exploration = -losses.entropy
        if self.entropy_kind == "concentration" and losses.concentration is not None:
            exploration = losses.concentration
        return (
            losses.policy
            + self.vf_coef * losses.value
            + self.ent_coef * exploration
            + self.meta_coef * losses.meta
        )

    def _record(self, update: dict[str, float]) -> None:
        """Keep the numbers of an update, and log them."""
        if isinstance(self.action_space, spaces.Box):
            update["std"] = self.policy.log_std.exp().mean().item()
        update = mean_over_processes(update, self.device)
        self.last_update = update
        for name, value in update.items():
            self.logger.record(f"train/{self.tags.get(name, name)}", value)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _setup_lr_schedule(self) -> None:
        check_learning_rate(self.learning_rate)
        super()._setup_lr_schedule()
        self._scheduled_rate = self.learning_rate

    def _update_learning_rate(self, optimizers: Any) -> None:
        if self.learning_rate is not self._scheduled_rate:
            self._setup_lr_schedule()
        check_number("The learning rate", self.lr_schedule(self._current_progress_remaining), WEIGHT)
        super()._update_learning_rate(optimizers)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_scheduled_rate", "_use_masking", "_statistics"]

    def _add_terminal_values(
        self, rewards: NDArray[np.float32], dones: NDArray[np.bool_], infos: list[dict[str, Any]]
    ) -> None:
        """Add gamma * V(last observation) to the rewards ``[B]`` of episodes that a time limit cut off."""
        rows = [
            int(row)
            for row in np.flatnonzero(dones)
            if infos[row].get("TimeLimit.truncated", False)
            and infos[row].get("terminal_observation") is not None
        ]
        if not rows:
            return
        observations = [infos[row]["terminal_observation"] for row in rows]
        batch = (
            {key: np.stack([part[key] for part in observations]) for key in observations[0]}
            if isinstance(observations[0], dict)
            else np.stack(observations)
        )
        places = self._tensor(np.array(rows))
        state = type(self.core_state)(*[field[places] for field in self.core_state])
        rewards[rows] += self.gamma * self._values(batch, state, np.zeros(len(rows), dtype=bool))

    def _values_of_last_observations(self) -> NDArray[np.float32]:
        """V of what follows the rollout, ``[B]``; of no interest where the episode has just ended."""
        assert self._last_episode_starts is not None
        if self._last_episode_starts.all():
            return np.zeros(self.n_envs, dtype=np.float32)
        return self._values(self._last_obs, self.core_state, self._last_episode_starts)

    @torch.no_grad()
    def _values(self, obs: Any, state: Any, starts: NDArray[np.bool_]) -> NDArray[np.float32]:
        tensors = obs_as_tensor(obs, self.device)
        return self.policy.predict_values(tensors, state, self._tensor(starts)).cpu().numpy()

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.as_tensor(array, device=self.device)

    def _check_numbers(self) -> None:
        """What can be said without an environment."""
        for name, allowed in NUMBERS.items():
            check_number(name, getattr(self, name), allowed)
        check_learning_rate(self.learning_rate)
        for name in ("normalize_advantage", "bootstrap_time_limit", "use_sde"):
            check_flag(name, getattr(self, name))
        if self.sde_sample_freq != -1:
            check_number("sde_sample_freq", self.sde_sample_freq, COUNT)
        if self.entropy_kind not in get_args(EntropyKind):
            raise ValueError(f"entropy_kind must be entropy or concentration, got {self.entropy_kind!r}.")
        buffer_class = self.rollout_buffer_class
        if not (isinstance(buffer_class, type) and issubclass(buffer_class, SequenceRolloutBuffer)):
            raise ValueError("rollout_buffer_class must be SequenceRolloutBuffer or a subclass of it.")
        check_base_settings(self)

    def _check_settings(self) -> None:
        self._check_numbers()
        if self.entropy_kind == "concentration" and isinstance(self.action_space, spaces.Box):
            raise ValueError(
                "entropy_kind='concentration' is not defined for Box actions; use entropy_kind='entropy'."
            )


NUMBERS = {
    "n_steps": COUNT,
    "gamma": FRACTION,
    "gae_lambda": FRACTION,
    "ent_coef": WEIGHT,
    "vf_coef": WEIGHT,
    "meta_coef": WEIGHT,
    "max_grad_norm": LIMIT,
}
"""Settings that are numbers, and which are allowed."""


def _check_policy(policy: object, kwargs: dict[str, Any] | None) -> dict[str, Any] | None:
    """The policy's arguments without those that Stable-Baselines3 passes by itself."""
    is_own = isinstance(policy, type) and issubclass(policy, RecurrentActorCriticPolicy)
    if not (is_own or isinstance(policy, str)):
        raise TypeError(
            f"The policy must be RecurrentActorCriticPolicy or a subclass of it, or one of "
            f"{', '.join(RecurrentOnPolicyAlgorithm.policy_aliases)}; "
            f"got {getattr(policy, '__name__', type(policy).__name__)}."
        )
    if kwargs is not None:
        check_dictionary("policy_kwargs", kwargs)
    if kwargs is None or "use_sde" not in kwargs:
        return kwargs
    check_foreign_settings("The policy", {"use_sde": kwargs["use_sde"]}, OTHER_POLICIES)
    return {name: value for name, value in kwargs.items() if name != "use_sde"}

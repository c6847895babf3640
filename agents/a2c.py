"""Advantage actor-critic for recurrent policies, with back-propagation through whole rollouts.

Dimensions: ``T`` time (n_steps), ``B`` environments (n_envs).
"""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import Tensor
from torch.nn import functional as F

from mnm_rl.agents.buffers import SequenceRolloutBuffer
from mnm_rl.agents.on_policy import EntropyKind, Losses, RecurrentOnPolicyAlgorithm
from mnm_rl.agents.policies import RecurrentActorCriticPolicy, SequenceEvaluation
from mnm_rl.agents.processes import explained_by, standardized
from mnm_rl.agents.settings import OTHER_ALGORITHMS


class RecurrentA2C(RecurrentOnPolicyAlgorithm):
    """A2C (Mnih et al. 2016) with any recurrent core of :mod:`mnm_rl.cores`.

    One update per rollout of T steps in B environments::

        loss = mean over T, B of [-log pi(a) A + vf_coef (V - R)^2 + meta_coef * meta_loss
                                  + ent_coef * sum_a pi(a)^2   or   - ent_coef * entropy]

    Acting computes actions only. Training runs the whole rollout through the core in one call, from the
    recurrent state at its start, which gives values, log-probabilities and gradients at once: with one update
    per rollout, the parameters are those that acted. Episodes may end anywhere in a rollout.

    An update whose loss or gradient is not finite is skipped and counted (``train/skipped_updates``).

    Settings may be changed between updates: ``gamma``, the coefficients, ``max_grad_norm``,
    ``learning_rate``, ``n_steps``, and also the policy or its optimizer as a whole
    (``model.policy = type(model.policy).load(path)``, ``model.policy.optimizer = torch.optim.SGD(...)``).

    Settings of Stable-Baselines3's A2C and PPO that this agent does not have are accepted with the values
    that change nothing (``use_rms_prop=False``, ``n_epochs=1``, ...), and refused by name otherwise.

    Args:
        policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, or a class. Choose the core with
            ``policy_kwargs={"core": "mnm-p", "core_kwargs": {"hidden_size": 200}}``.
        env: environment or its id.
        learning_rate: number, or function of the remaining progress (1 to 0).
        n_steps: T. Gradients do not reach back beyond a rollout. What follows is given by name.
        gamma: discount per step.
        gae_lambda: 1 for Monte-Carlo returns.
        ent_coef: weight of the term that keeps the policy exploring.
        entropy_kind: that term: minus the entropy, or the concentration ``sum_a pi(a)^2`` (Miconi et al.
            2018), which is not defined for Box actions.
        vf_coef: weight of the squared error of the values.
        meta_coef: weight of the core's own loss.
        max_grad_norm: gradients are scaled down to this norm.
        normalize_advantage: to mean 0 and standard deviation 1 over the rollout, of all processes.
        use_sde: let the noise of Box actions depend on the state and last for several steps (generalized
            state-dependent exploration, Raffin et al. 2022).
        sde_sample_freq: for so many; -1: for a whole rollout.
        bootstrap_time_limit: add ``gamma * V(last observation)`` where an episode was cut off by a time
            limit, as Stable-Baselines3 does.
        rollout_buffer_class: :class:`SequenceRolloutBuffer` or a subclass.
        rollout_buffer_kwargs: further arguments of it.
        stats_window_size: episodes that ``rollout/ep_rew_mean`` averages over.
        tensorboard_log: folder for TensorBoard.
        policy_kwargs: arguments of the policy.
        verbose: 0 for no output.
        seed: of all random numbers, below 2^32.
        device: where the policy runs.
        other: settings of other algorithms; see above.

    Raises:
        ValueError: spaces that cannot be served, an unknown core or environment, or a value that is not
            allowed; nothing has been built then.
        TypeError: unknown setting of the core, of the policy or of the agent, or a policy, an environment or
            a setting of another kind.
    """

    algorithm = "RecurrentA2C"
    other_settings = OTHER_ALGORITHMS

    def __init__(
        self,
        policy: str | type[RecurrentActorCriticPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 7e-4,
        n_steps: int = 128,
        *,
        gamma: float = 0.99,
        gae_lambda: float = 1.0,
        ent_coef: float = 0.0,
        entropy_kind: EntropyKind = "entropy",
        vf_coef: float = 0.5,
        meta_coef: float = 1.0,
        max_grad_norm: float = 0.5,
        normalize_advantage: bool = False,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        bootstrap_time_limit: bool = True,
        rollout_buffer_class: type[SequenceRolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        **other: Any,
    ):
        super().__init__(
            policy,
            env,
            learning_rate,
            n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            entropy_kind=entropy_kind,
            vf_coef=vf_coef,
            meta_coef=meta_coef,
            max_grad_norm=max_grad_norm,
            normalize_advantage=normalize_advantage,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            bootstrap_time_limit=bootstrap_time_limit,
            rollout_buffer_class=rollout_buffer_class,
            rollout_buffer_kwargs=rollout_buffer_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            other=other,
            _init_setup_model=_init_setup_model,
        )

    def train(self) -> None:
        """Make one update from the rollout in the buffer.

        Raises:
            ValueError: the buffer is not full, or the learning rate is out of range.
            NonFiniteError: many updates in a row were not finite.
        """
        self._prepare_update()
        last_values = self._values_of_last_observations()
        self.policy.set_training_mode(True)
        rollout = self.rollout_buffer.sequence()
        evaluation = self.policy.evaluate_sequence(
            rollout.observations,
            rollout.actions,
            self.rollout_buffer.state,
            rollout.episode_starts,
            rollout.action_masks,
        )
        values = evaluation.values.detach().cpu().numpy()
        advantages, returns = self._advantages_and_returns(values, last_values)
        losses = self._losses(evaluation, self._tensor(advantages), self._tensor(returns))
        self._n_updates += 1
        where = f"update {self._n_updates} ({self.num_timesteps} timesteps)"
        info = self.guard.step(self._total(losses), where)
        self._record(
            {
                **losses.numbers(),
                "grad_norm": info.grad_norm,
                "explained_variance": explained_by(values, returns, self.device),
                "skipped_updates": self.guard.skipped,
            }
        )
        self.mark_update_done()

    def _losses(self, evaluation: SequenceEvaluation, advantages: Tensor, returns: Tensor) -> Losses:
        if self.normalize_advantage:
            advantages = standardized(advantages)
        concentration = evaluation.concentration
        return Losses(
            policy=-(evaluation.log_probs * advantages).mean(),
            value=F.mse_loss(evaluation.values, returns),
            entropy=evaluation.entropy.mean(),
            concentration=None if concentration is None else concentration.mean(),
            meta=evaluation.meta_loss.mean(),
        )

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.normalize_advantage and self.n_steps * self.n_envs * self.n_processes < 2:
            raise ValueError("normalize_advantage needs at least two steps per update.")

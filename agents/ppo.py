"""Proximal policy optimization for recurrent policies, with minibatches of whole sequences.

Dimensions: ``T`` time (n_steps), ``B`` environments (n_envs), ``L`` steps of a sequence, ``N`` sequences of a
minibatch.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor
from torch.nn import functional as F

from mnm_rl.agents.buffers import RolloutSequence, SequenceRolloutBuffer
from mnm_rl.agents.minibatches import (
    Cuts,
    Minibatch,
    cut_rollout,
    find_cuts,
    join_states,
    select,
    steps_between,
)
from mnm_rl.agents.on_policy import EntropyKind, Losses, RecurrentOnPolicyAlgorithm
from mnm_rl.agents.policies import RecurrentActorCriticPolicy
from mnm_rl.agents.processes import explained_by, mean_over_processes, standardized
from mnm_rl.agents.settings import (
    COUNT,
    LIMIT,
    NOT_NEGATIVE,
    check_number,
    check_optional_number,
    check_schedule,
)


class Replay(NamedTuple):
    """The rollout run through the policy as it is now, without gradients."""

    log_probs: Tensor
    """Of the actions, ``[T, B]``."""
    values: Tensor
    """``[T, B]``."""
    state: Any
    """Recurrent state before the first step of each sequence."""


class ClipRanges(NamedTuple):
    """As they are at this moment of the training."""

    ratio: float
    values: float | None


class RecurrentPPO(RecurrentOnPolicyAlgorithm):
    """PPO (Schulman et al. 2017) with any recurrent core of :mod:`mnm_rl.cores`.

    Each epoch deals the sequences of a rollout, T steps of B environments, to minibatches of N whole
    sequences and makes a step of the optimizer for each::

        r    = pi(a) / pi(a) when the action was chosen
        loss = mean over L, N of [-min(r A, clip(r, 1 - clip_range, 1 + clip_range) A) + vf_coef (V - R)^2
                                  - ent_coef * entropy   or   + ent_coef * sum_a pi(a)^2
                                  + meta_coef * meta_loss]

    It takes the place of sb3-contrib's ``RecurrentPPO``: arguments and what is logged have the same names
    where they mean the same, ``n_updates`` counts epochs, and ``"MlpLstmPolicy"`` is another name of
    ``"MlpPolicy"``, whose core is an LSTM if nothing is said. What is different: ``batch_size`` counts steps
    of whole sequences and must divide the rollout, so that none is torn apart or padded; and with
    ``bptt_steps`` the states between the sequences of a rollout are computed anew in every epoch, by the
    policy as it is then, instead of being those that it had while it acted.

    Policy and values share the core, unless ``policy_kwargs={"separate_critic": True}``, and one limit of the
    gradient: rewards should be scaled so that returns are not far from 1, as by ``VecNormalize(env)``, or the
    policy hardly learns.

    Acting, saving, resuming and what may be changed between updates are those of
    :class:`mnm_rl.agents.RecurrentA2C`. With one epoch and one minibatch the update is that of A2C.

    A step whose loss or gradient is not finite is skipped and counted (``train/skipped_updates``), and the
    rest of its rollout with it.

    Args:
        policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, or a class. Choose the core with
            ``policy_kwargs={"core": "mnm-p", "core_kwargs": {"hidden_size": 64}}``.
        env: environment or its id.
        learning_rate: number, or function of the remaining progress (1 to 0).
        n_steps: T. Gradients do not reach back beyond a rollout.
        batch_size: steps in a minibatch, L N, of all processes together; each deals its own sequences. If not
            given, a quarter of the rollout, or what is near to it and divides it evenly.
        n_epochs: how often each rollout is learned from. What follows is given by name.
        gamma: discount per step.
        gae_lambda: 1 for Monte-Carlo returns.
        clip_range: how far a probability may move, as a ratio, before its gradient ends; number, or function
            of the remaining progress.
        clip_range_vf: the same for the values, in their own unit; ``None`` for no limit.
        normalize_advantage: to mean 0 and standard deviation 1 over each minibatch.
        ent_coef: weight of the term that keeps the policy exploring.
        entropy_kind: that term: minus the entropy, or the concentration ``sum_a pi(a)^2`` (Miconi et al.
            2018), which is not defined for Box actions.
        vf_coef: weight of the squared error of the values.
        meta_coef: weight of the core's own loss.
        max_grad_norm: gradients are scaled down to this norm.
        target_kl: learning from a rollout ends when the policy has moved by 1.5 times this divergence;
            ``None`` for no limit.
        bptt_steps: L, which divides T; gradients reach back no further. T if not given.
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
        other: settings of other algorithms, with the values that change nothing here.

    Raises:
        ValueError: spaces that cannot be served, an unknown core or environment, a value that is not allowed,
            or a size that does not divide evenly; nothing has been built then.
        TypeError: unknown setting of the core, of the policy or of the agent, or a policy, an environment or
            a setting of another kind.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        **RecurrentOnPolicyAlgorithm.policy_aliases,
        **{
            name.replace("Policy", "LstmPolicy"): policy
            for name, policy in RecurrentOnPolicyAlgorithm.policy_aliases.items()
        },
    }
    algorithm = "RecurrentPPO"
    tags: ClassVar[Mapping[str, str]] = {"policy_loss": "policy_gradient_loss"}

    def __init__(
        self,
        policy: str | type[RecurrentActorCriticPolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule = 1e-3,
        n_steps: int = 128,
        batch_size: int | None = None,
        n_epochs: int = 4,
        *,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.003,
        entropy_kind: EntropyKind = "entropy",
        vf_coef: float = 0.5,
        meta_coef: float = 1.0,
        max_grad_norm: float = 0.5,
        target_kl: float | None = None,
        bptt_steps: int | None = None,
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
        self.batch_size, self.n_epochs, self.bptt_steps = batch_size, n_epochs, bptt_steps
        self.clip_range, self.clip_range_vf, self.target_kl = clip_range, clip_range_vf, target_kl
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

    def _setup_model(self) -> None:
        super()._setup_model()
        self.clip_range = _schedule(self.clip_range)
        if self.clip_range_vf is not None:
            self.clip_range_vf = _schedule(self.clip_range_vf)
        cuts = self._cuts(self.n_steps)
        if self.batch_size is None and cuts.minibatches == 1 < cuts.sequences:
            warnings.warn(
                f"The {cuts.sequences} sequences of a rollout cannot be dealt evenly to a few minibatches, "
                "so each epoch makes one step with all of them; give batch_size, or a number of environments "
                "that four divides.",
                stacklevel=2,
            )

    def train(self) -> None:
        """Learn from the rollout in the buffer, ``n_epochs`` times.

        Raises:
            ValueError: the buffer is not full, or a learning rate, a clip range or a size is not allowed.
            NonFiniteError: many steps in a row were not finite.
        """
        self._prepare_update()
        cuts = self._cuts(self.rollout_buffer.buffer_size)
        clips = self._current_clip_ranges()
        last_values = self._values_of_last_observations()
        rollout = self.rollout_buffer.sequence()
        acted = self._replay(rollout, cuts.length)
        values = acted.values.cpu().numpy()
        advantages, returns = self._advantages_and_returns(values, last_values)
        if not np.isfinite(advantages).all():
            # One such number spoils the whole update, as in A2C, and not only the minibatches that it is in.
            advantages = np.full_like(advantages, np.nan)
        whole = cut_rollout(
            rollout,
            cuts.length,
            acted.state,
            log_probs=acted.log_probs,
            values=acted.values,
            advantages=self._tensor(advantages),
            returns=self._tensor(returns),
        )
        epochs: list[list[dict[str, float]]] = []
        for epoch in range(self.n_epochs):
            if epoch > 0 and cuts.length < len(advantages):
                whole = whole._replace(state=self._replay(rollout, cuts.length).state)
            steps, is_complete = self._learn_once(whole, cuts, clips)
            epochs.append(steps)
            self._n_updates += 1
            if not is_complete:
                break
        self._log(epochs, clips, explained_by(values, returns, self.device))
        self.mark_update_done()

    @torch.no_grad()
    def _replay(self, rollout: RolloutSequence, length: int) -> Replay:
        """The policy as it acts on the rollout, one sequence of all environments after the other."""
        self.policy.set_training_mode(False)
        state, states, log_probs, values = self.rollout_buffer.state, [], [], []
        for start in range(0, len(rollout.actions), length):
            states.append(self.policy.checked_state(state, self.n_envs))
            part = steps_between(rollout, start, start + length)
            evaluation = self.policy.evaluate_sequence(
                part.observations, part.actions, state, part.episode_starts, part.action_masks
            )
            log_probs.append(evaluation.log_probs)
            values.append(evaluation.values)
            state = evaluation.state
        return Replay(torch.cat(log_probs), torch.cat(values), join_states(states))

    def _learn_once(
        self, whole: Minibatch, cuts: Cuts, clips: ClipRanges
    ) -> tuple[list[dict[str, float]], bool]:
        """An epoch: numbers of each step of the optimizer, and whether there may be another epoch."""
        self.policy.set_training_mode(True)
        steps: list[dict[str, float]] = []
        order = torch.from_numpy(np.random.permutation(cuts.sequences))  # noqa: NPY002 - as Stable-Baselines3
        where = f"update {self._n_updates + 1} ({self.num_timesteps} timesteps)"
        for rows in order.to(self.device).view(cuts.minibatches, -1):
            losses, log_ratio = self._losses(select(whole, rows), clips)
            loss = self._total(losses)
            steps.append({**losses.numbers(), "loss": loss.item(), **_moved(log_ratio, clips)})
            if self._moved_too_far(steps[-1]["approx_kl"]):
                return steps, False
            info = self.guard.step(loss, where)
            steps[-1]["grad_norm"] = info.grad_norm
            if not info.applied:
                return steps, False
        return steps, True

    def _moved_too_far(self, approx_kl: float) -> bool:
        """Whether ``target_kl`` ends the learning, on which all processes agree."""
        if self.target_kl is None:
            return False
        moved = mean_over_processes({"approx_kl": approx_kl}, self.device)
        return moved["approx_kl"] > 1.5 * self.target_kl

    def _losses(self, batch: Minibatch, clips: ClipRanges) -> tuple[Losses, Tensor]:
        """The parts of the loss, and ``log r``, ``[L, N]``."""
        evaluation = self.policy.evaluate_sequence(
            batch.observations, batch.actions, batch.state, batch.episode_starts, batch.action_masks
        )
        advantages = batch.advantages
        if self.normalize_advantage and advantages.numel() * self.n_processes > 1:
            advantages = standardized(advantages)
        log_ratio = evaluation.log_probs - batch.log_probs
        ratio = log_ratio.exp()
        clipped = ratio.clamp(1 - clips.ratio, 1 + clips.ratio)
        values = evaluation.values
        if clips.values is not None:
            values = batch.values + (values - batch.values).clamp(-clips.values, clips.values)
        concentration = evaluation.concentration
        losses = Losses(
            policy=-torch.min(ratio * advantages, clipped * advantages).mean(),
            value=F.mse_loss(values, batch.returns),
            entropy=evaluation.entropy.mean(),
            concentration=None if concentration is None else concentration.mean(),
            meta=evaluation.meta_loss.mean(),
        )
        return losses, log_ratio.detach()

    def _log(self, epochs: list[list[dict[str, float]]], clips: ClipRanges, explained: float) -> None:
        steps = [step for epoch in epochs for step in epoch]
        update = {name: float(np.mean([step[name] for step in steps if name in step])) for name in steps[0]}
        update["loss"] = steps[-1]["loss"]
        update["approx_kl"] = float(np.mean([step["approx_kl"] for step in epochs[-1]]))
        update |= {
            "explained_variance": explained,
            "skipped_updates": self.guard.skipped,
            "clip_range": clips.ratio,
        }
        if clips.values is not None:
            update["clip_range_vf"] = clips.values
        self._record(update)
        self.logger.record("train/entropy_loss", -update["entropy"])

    def _current_clip_ranges(self) -> ClipRanges:
        """Raise a ValueError if a function gives what is not allowed."""
        ranges: list[float | None] = []
        for name in ("clip_range", "clip_range_vf"):
            schedule = getattr(self, name)
            value = None if schedule is None else _schedule(schedule)(self._current_progress_remaining)
            if value is not None:
                check_number(f"The value of {name}", value, NOT_NEGATIVE)
            ranges.append(value)
        return ClipRanges(*ranges)  # pyright: ignore[reportArgumentType]

    def _cuts(self, n_steps: int) -> Cuts:
        """How a rollout is cut; a ValueError if it does not divide evenly."""
        cuts = find_cuts(n_steps, self.n_envs, self.bptt_steps, self.batch_size, self.n_processes)
        policy = vars(self).get("policy")
        if cuts.length < n_steps and policy is not None and policy.core.free_dimensions:
            raise ValueError(
                f"bptt_steps must be n_steps, {n_steps}, or None with the core {policy.core_name}, whose "
                f"state grows with every step, got {cuts.length}."
            )
        return cuts

    def _shared_settings(self) -> dict[str, Any]:
        names = ("n_epochs", "batch_size", "bptt_steps", "target_kl")
        return super()._shared_settings() | {name: getattr(self, name) for name in names}

    def _check_numbers(self) -> None:
        super()._check_numbers()
        check_number("n_epochs", self.n_epochs, COUNT)
        for name in ("batch_size", "bptt_steps"):
            check_optional_number(name, getattr(self, name), COUNT)
        check_optional_number("target_kl", self.target_kl, LIMIT)
        for name in ("clip_range", "clip_range_vf"):
            value = getattr(self, name)
            if not (name == "clip_range_vf" and value is None):
                check_schedule(name, value, LIMIT)

    def _check_settings(self) -> None:
        super()._check_settings()
        self._cuts(self.n_steps)


def _schedule(value: float | Schedule) -> FloatSchedule:
    return FloatSchedule(value if callable(value) else float(value))


def _moved(log_ratio: Tensor, clips: ClipRanges) -> dict[str, float]:
    """How far the policy is from the one that acted; http://joschu.net/blog/kl-approx.html."""
    ratio = log_ratio.exp()
    return {
        "approx_kl": (ratio - 1 - log_ratio).mean().item(),
        "clip_fraction": ((ratio - 1).abs() > clips.ratio).float().mean().item(),
    }

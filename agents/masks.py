"""Which actions an environment allows, as sb3-contrib's ``MaskablePPO`` asks for them.

An environment that offers masks has a method ``action_masks()``: booleans, true for what is allowed, one for
each action of a Discrete space, those of all choices of a MultiDiscrete one side by side, and (off, on) for
each bit of a MultiBinary one.

Dimensions: ``B`` environments, ``M`` booleans of a mask.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from mnm_rl.agents.settings import check_flag

METHOD = "action_masks"


def offers_masks(env: VecEnv) -> bool:
    """Whether environments say which actions they allow."""
    return env.has_attr(METHOD)


def chosen_masking(env: VecEnv, wanted: object) -> bool:
    """Whether to ask for masks: if they are wanted, or nothing is said and there are such.

    Raises:
        ValueError: they are wanted, and the environments do not offer them, or it is neither wanted nor not.
    """
    if wanted is None:
        return offers_masks(env)
    check_flag("use_masking", wanted)
    if wanted and not offers_masks(env):
        raise ValueError(f"use_masking=True needs environments with a method {METHOD}(), which these lack.")
    return bool(wanted)


def mask_parts(space: spaces.Space) -> list[int]:
    """For each choice that an action consists of, how many booleans its mask has.

    Raises:
        ValueError: actions that are numbers, of which none can be forbidden.
    """
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(size) for size in space.nvec.ravel()]
    if isinstance(space, spaces.MultiBinary):
        return [2] * math.prod(space.shape)
    raise ValueError(
        f"Action masks are for Discrete, MultiDiscrete and MultiBinary actions, not for {space}."
    )


def ask_for_masks(env: VecEnv) -> NDArray[np.bool_]:
    """What the environments allow at this moment, ``[B, M]``.

    Raises:
        ValueError: an answer is not a mask for the action space.
    """
    answers = env.env_method(METHOD)
    try:
        masks = np.stack([np.asarray(answer).reshape(-1) for answer in answers])
    except ValueError as error:
        raise ValueError("The action masks of the environments have different lengths.") from error
    return checked_masks(masks, env.action_space, env.num_envs)


def checked_masks(masks: Any, space: spaces.Space, batch_size: int) -> NDArray[np.bool_]:
    """Masks of B environments as booleans ``[B, M]``.

    Raises:
        ValueError: they are not that, or leave no action for a choice.
    """
    parts = mask_parts(space)
    found = np.asarray(masks)
    wanted = (batch_size, sum(parts))
    if found.size != math.prod(wanted) or found.dtype.kind not in "biuf":
        raise ValueError(
            f"Action masks for {batch_size} environments must be {list(wanted)} booleans, got an array of "
            f"{found.dtype} of shape {list(found.shape)}."
        )
    allowed = found.reshape(wanted).astype(bool)
    starts = np.cumsum([0, *parts[:-1]])
    some = np.logical_or.reduceat(allowed, starts, axis=1)
    if not some.all():
        env, choice = np.argwhere(~some)[0].tolist()
        which = f" for choice {choice} of the action" if len(parts) > 1 else ""
        raise ValueError(f"The action mask of environment {env} allows nothing{which}.")
    return allowed


class MaskedPlayer:
    """An agent that asks the environment what is allowed before it acts, for ``evaluate_policy``.

    Args:
        agent: of this package.
        env: where it plays.
    """

    def __init__(self, agent: Any, env: VecEnv):
        self._agent, self._env = agent, env
        self._asks = offers_masks(env)

    def predict(
        self,
        observation: Any,
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], tuple[NDArray[Any], ...] | None]:
        """See :meth:`mnm_rl.agents.RecurrentActorCriticPolicy.predict`."""
        masks = {"action_masks": ask_for_masks(self._env)} if self._asks else {}
        return self._agent.predict(observation, state, episode_start, deterministic, **masks)

"""A rollout cut into sequences, and minibatches of whole sequences.

Dimensions: ``T`` steps and ``B`` environments of the rollout, ``L`` steps of a sequence, ``S`` sequences of
the rollout, ``N`` sequences of a minibatch.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mnm_rl.agents.buffers import RolloutSequence

PREFERRED_MINIBATCHES, MOST_MINIBATCHES = 4, 8
"""Of an epoch, where nobody says how large they are."""


class Cuts(NamedTuple):
    """How a rollout is cut."""

    length: int
    """L."""
    sequences: int
    """S."""
    minibatches: int
    """Of an epoch, all of the same size."""


class Minibatch(NamedTuple):
    """Whole sequences, as they were when their actions were chosen."""

    observations: Tensor | dict[str, Tensor]
    """``[L, N, *observation_shape]``."""
    actions: Tensor
    """``[L, N, *action_shape]``."""
    episode_starts: Tensor
    """Boolean ``[L, N]``."""
    action_masks: Tensor | None
    """Boolean ``[L, N, M]``, true for what was allowed; ``None`` where everything was."""
    state: Any
    """Recurrent state before the first step, a tuple of ``[N, ...]``."""
    log_probs: Tensor
    """Of the actions, ``[L, N]``."""
    values: Tensor
    """``[L, N]``."""
    advantages: Tensor
    """``[L, N]``."""
    returns: Tensor
    """``[L, N]``."""


def find_cuts(
    n_steps: int, n_envs: int, bptt_steps: int | None, batch_size: int | None, processes: int = 1
) -> Cuts:
    """How a rollout is cut into sequences and these are dealt to minibatches, in each process for itself.

    Args:
        n_steps: T.
        n_envs: B, of this process.
        bptt_steps: L; T if not given.
        batch_size: steps in a minibatch, of all processes together; if not given, the number of minibatches
            is as near to four as an equal share of the sequences allows, and one if there is none up to
            eight.
        processes: that train together, with as many environments each.

    Raises:
        ValueError: something does not divide evenly; the message says what would.
    """
    length = n_steps if bptt_steps is None else bptt_steps
    if length > n_steps:
        raise ValueError(f"bptt_steps must be at most n_steps, {n_steps}, got {length}.")
    if n_steps % length:
        raise ValueError(
            f"bptt_steps must divide n_steps, {n_steps}, evenly, got {length}; "
            f"{_nearest(length, n_steps)} does."
        )
    sequences = n_steps // length * n_envs
    if batch_size is None:
        possible = [count for count in range(1, MOST_MINIBATCHES + 1) if sequences % count == 0]
        best = min(possible, key=lambda count: (count == 1, abs(count - PREFERRED_MINIBATCHES)))
        return Cuts(length, sequences, best)
    steps_at_once = length * processes
    if batch_size % steps_at_once or sequences % (batch_size // steps_at_once):
        fitting = steps_at_once * _nearest(batch_size / steps_at_once, sequences)
        whole = f"whole sequences of {length}"
        if processes > 1:
            whole += f", equally many from each of {processes} processes,"
        total = n_envs * processes
        raise ValueError(
            f"batch_size counts steps, and must hold {whole} and divide the {n_steps * total} of a rollout "
            f"({n_steps} in each of {total} environments) evenly, got {batch_size}; {fitting} does."
        )
    return Cuts(length, sequences, sequences // (batch_size // steps_at_once))


def cut(tensor: Tensor, length: int) -> Tensor:
    """``[T, B, ...]`` to ``[L, S, ...]``: those of the first environment, in their order, then the next."""
    return tensor.unflatten(0, (-1, length)).movedim(0, 2).flatten(1, 2)


def join_states(states: list[Any]) -> Any:
    """The states before the first, second ... sequence of all environments, in the order of :func:`cut`."""
    return type(states[0])(
        *[torch.stack(fields, dim=1).flatten(0, 1) for fields in zip(*states, strict=True)]
    )


def steps_between(rollout: RolloutSequence, start: int, stop: int) -> RolloutSequence:
    """Some of the steps, of all environments."""
    observations = rollout.observations
    return RolloutSequence(
        {key: part[start:stop] for key, part in observations.items()}
        if isinstance(observations, dict)
        else observations[start:stop],
        rollout.actions[start:stop],
        rollout.episode_starts[start:stop],
        None if rollout.action_masks is None else rollout.action_masks[start:stop],
    )


def cut_rollout(rollout: RolloutSequence, length: int, state: Any, **numbers: Tensor) -> Minibatch:
    """All sequences of a rollout as one minibatch.

    Args:
        rollout: ``[T, B, ...]``.
        length: L.
        state: before the first step of each sequence.
        numbers: the others of :class:`Minibatch`, ``[T, B]``.
    """
    observations = rollout.observations
    return Minibatch(
        {key: cut(part, length) for key, part in observations.items()}
        if isinstance(observations, dict)
        else cut(observations, length),
        cut(rollout.actions, length),
        cut(rollout.episode_starts, length),
        None if rollout.action_masks is None else cut(rollout.action_masks, length),
        state,
        **{name: cut(tensor, length) for name, tensor in numbers.items()},
    )


def select(whole: Minibatch, rows: Tensor) -> Minibatch:
    """Some of the sequences, by their numbers ``[N]``."""
    observations = whole.observations
    parts = {
        name: None if part is None else part[:, rows]
        for name, part in whole._asdict().items()
        if name not in ("observations", "state")
    }
    return Minibatch(
        observations={key: part[:, rows] for key, part in observations.items()}
        if isinstance(observations, dict)
        else observations[:, rows],
        state=type(whole.state)(*[field[rows] for field in whole.state]),
        **parts,
    )


def _nearest(wanted: float, whole: int) -> int:
    """The divisor of ``whole`` that is nearest."""
    small = [number for number in range(1, math.isqrt(whole) + 1) if whole % number == 0]
    divisors = sorted({*small, *(whole // number for number in small)})
    return min(divisors, key=lambda number: abs(number - wanted))

"""The memory's forgetting curve: how well it still gives back what was written some steps ago.

Dimensions: ``T`` time, ``B`` batch, ``H`` heads, ``N`` delays; sizes ``d_k`` key, ``d_v`` value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mnm_rl.analysis.trace import Trace
from mnm_rl.cores import MemoryCore, core_name
from mnm_rl.cores.mnm import Interaction, MNMCore
from mnm_rl.memory import recall, split_weights

DELAYS = (0, 1, 2, 4, 8, 16, 32)


class Forgetting(NamedTuple):
    """How what is recalled compares with what was written, by delay, ``[N]`` each.

    Attributes:
        errors: ``|f - v|^2 / |v|^2``: 0 is perfect recall, 1 as far off as recalling zeros.
        cosines: the cosine of f and v.
    """

    errors: Tensor
    cosines: Tensor


@torch.no_grad()
def recall_errors(
    core: MemoryCore,
    trace: Trace,
    delays: Sequence[int] = DELAYS,
    memory: Tensor | None = None,
    present: Tensor | None = None,
) -> Forgetting:
    """Recall at step ``t`` what was written at step ``t - tau`` (the terms of Munkhdalai et al. 2019, Eq. 5).

    ``f = f_{phi_t}(k^w_{t - tau})`` is compared with ``v = v^w_{t - tau}``, averaged over steps, heads and
    batch. The trace's writes are carried out again; a reset forgets all writes before it.

    Args:
        core: the MNM core whose trace it is.
        trace: of :func:`mnm_rl.analysis.record`.
        delays: tau, each from 0 on.
        memory: phi before the first step, ``[B, F]``; the initial memory if not given.
        present: boolean ``[T, B]``, false in the padding.

    Returns:
        a number for each delay; not a number where no step reaches it.

    Raises:
        ValueError: if the core is not an MNM core, or a delay is negative.
    """
    if not isinstance(core, MNMCore):
        raise ValueError(f"Only MNM cores have a memory that forgets, not the core {core_name(core)}.")
    if not delays or min(delays) < 0:
        raise ValueError(f"delays must be numbers from 0 on, at least one, got {tuple(delays)}.")
    keys, values = trace["write_keys"], trace["write_values"]
    reachable = _reachable(trace, delays, present)
    sums = values.new_zeros(2, len(delays))
    for t, weights in enumerate(_memories(core, trace, memory)):
        past = [max(0, t - tau) for tau in delays]
        asked, written = keys[past].transpose(0, 1), values[past].transpose(0, 1)
        recalled = recall(weights, asked.flatten(1, 2), core.config.output_activation).view_as(written)
        errors = (recalled - written).square().sum(3) / written.square().sum(3)
        cosines = torch.cosine_similarity(recalled, written, 3)
        sums += (torch.stack([errors, cosines]).mean(3) * reachable[t]).sum(1)
    return Forgetting(*(sums / reachable.sum((0, 1))))


def _reachable(trace: Trace, delays: Sequence[int], present: Tensor | None) -> Tensor:
    """Whether a step's write ``tau`` steps before belongs to the same episode, boolean ``[T, B, N]``."""
    reachable = _ages(trace).unsqueeze(2) >= torch.tensor(delays, device=trace["write_keys"].device)
    return reachable if present is None else reachable & present.unsqueeze(2)


def _ages(trace: Trace) -> Tensor:
    """Steps since an example's last reset, ``[T, B]``."""
    steps = torch.arange(trace.length, device=trace["write_keys"].device).unsqueeze(1)
    if "resets" not in trace:
        return steps.expand(-1, trace.batch_size)
    return steps - torch.where(trace["resets"], steps, 0).cummax(0).values


def _memories(core: MNMCore, trace: Trace, memory: Tensor | None) -> Iterator[list[Tensor]]:
    """The weights after every step's write, all layers ``[B, D_l, D_{l-1}]``."""
    initial = split_weights(core.initial_state(trace.batch_size).memory, core.config.widths)
    weights = initial if memory is None else split_weights(memory, core.config.widths)
    vectors = [trace[name] for name in Interaction._fields]
    for t in range(trace.length):
        if "resets" in trace and trace["resets"][t].any():
            mask = trace["resets"][t][:, None, None]
            weights = [torch.where(mask, new, old) for new, old in zip(initial, weights, strict=True)]
        weights = core.write(weights, Interaction(*[vector[t] for vector in vectors]))
        yield weights

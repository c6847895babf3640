"""Scans in segments: the state is kept at the start of each, and the backward pass repeats what lies between.

Between two snapshots the kernels undo writes as ever, but rounding errors no longer add up beyond a segment,
and the vectors of one segment at a time are kept instead of those of all steps. The price is a second forward
pass.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mnm_rl.kernels.problem import MNMState, ScanResult, ScanSettings

SnapshotEvery = int | Literal["auto"] | None
"""Steps between two snapshots; ``auto`` for those that need the least memory, ``None`` for no snapshots."""

Segment = Callable[[Tensor, MNMState, Tensor | None], ScanResult]
"""A scan of some steps, from inputs, state and resets."""


def segment_lengths(every: SnapshotEvery, steps: int, ratio: float) -> list[int]:
    """Lengths of the segments of a sequence.

    The backward pass begins with the last segment, while the snapshots of all before it are still there. So
    with ``auto`` each segment is shorter than the one before by as many steps as a snapshot weighs, and all
    of them need the same memory, about that of sqrt(2 steps ratio) steps' vectors.

    Args:
        every: steps between two snapshots.
        steps: length of the sequence.
        ratio: size of a snapshot in steps' vectors.
    """
    if every is None:
        return [steps]
    if every != "auto":
        return [every] * (steps // every) + ([steps % every] if steps % every else [])
    count = max(1, round(math.sqrt(2 * steps / ratio)))
    ends = [k * steps / count + ratio * k * (count - k) / 2 for k in range(count + 1)]
    whole = sorted({min(steps, max(0, round(end))) for end in ends})
    return [end - start for start, end in pairwise(whole)]


def snapshot_ratio(settings: ScanSettings, hidden_size: int) -> float:
    """Size of a snapshot, which is mostly the memory, in steps' vectors, roughly.

    Args:
        settings: of the scan.
        hidden_size: d_h.
    """
    widths, heads = settings.widths, settings.heads
    memory = sum(rows * columns for columns, rows in pairwise(widths))
    vectors = heads * (2 * widths[0] + widths[-1]) + widths[0]
    # Activations of the write, of the reads and of the recall, and the errors.
    activations = heads * (3 + len(settings.recall_weights)) * sum(widths[1:])
    return memory / (5 * hidden_size + vectors + activations)


def scan_in_segments(
    run: Segment, lengths: list[int], inputs: Tensor, state: MNMState, resets: Tensor | None
) -> ScanResult:
    """Run a scan with a snapshot between every two segments.

    Args:
        run: the scan.
        lengths: of the segments, as :func:`segment_lengths` gives them.
        inputs: ``[T, B, I]``.
        state: the state before the first step.
        resets: boolean ``[T, B]``.
    """
    if not torch.is_grad_enabled() or len(lengths) == 1:
        return run(inputs, state, resets)
    parts = inputs.split(lengths)
    cuts = [None] * len(parts) if resets is None else resets.split(lengths)
    controls, meta_losses = [], []
    for part, cut in zip(parts, cuts, strict=True):
        # Nothing in a scan is random, so there is no generator to set back.
        result = checkpoint(run, part, state, cut, use_reentrant=False, preserve_rng_state=False)
        assert isinstance(result, ScanResult)
        state = result.state
        controls.append(result.controls)
        meta_losses.append(result.meta_loss)
    return ScanResult(torch.cat(controls), torch.cat(meta_losses), state)

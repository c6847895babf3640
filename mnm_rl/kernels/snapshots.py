"""Scans in segments: the state is kept at the start of each, and the backward pass repeats what lies between.

Between two snapshots the kernels undo writes as ever, but rounding errors no longer add up beyond a segment,
and the vectors of one segment at a time are kept instead of those of all steps. The price is a second forward
pass.

Dimensions: ``T`` time, ``B`` batch, ``I`` input size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mnm_rl.kernels.problem import ScanResult, ScanState

Segment = Callable[[Tensor, ScanState, Tensor | None], ScanResult]
"""A scan of some steps, from inputs, state and resets."""


def scan_in_segments(
    run: Segment, steps: int, inputs: Tensor, state: ScanState, resets: Tensor | None
) -> ScanResult:
    """Run a scan with a snapshot every ``steps`` steps.

    Args:
        run: the scan.
        steps: length of a segment; the last one may be shorter.
        inputs: ``[T, B, I]``.
        state: the state before the first step.
        resets: boolean ``[T, B]``.
    """
    if not torch.is_grad_enabled() or inputs.shape[0] <= steps:
        return run(inputs, state, resets)
    parts = inputs.split(steps)
    cuts = [None] * len(parts) if resets is None else resets.split(steps)
    controls, meta_losses = [], []
    for part, cut in zip(parts, cuts, strict=True):
        # Nothing in a scan is random, so there is no generator to set back.
        result = checkpoint(run, part, state, cut, use_reentrant=False, preserve_rng_state=False)
        assert isinstance(result, ScanResult)
        state = result.state
        controls.append(result.controls)
        meta_losses.append(result.meta_loss)
    return ScanResult(torch.cat(controls), torch.cat(meta_losses), state)

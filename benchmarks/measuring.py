"""What the benchmarks of cores share: time of a pass, what autograd keeps, and rounds in turn."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


def seconds(run: Callable[[], Tensor], threads: int) -> float:
    """Time of one forward and backward pass.

    Args:
        run: gives a scalar, without gradients for a forward pass alone.
        threads: with one, processor time of this process counts, and otherwise wall time.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    begun = clock()
    found = run()
    if found.requires_grad:
        found.backward()
    return clock() - begun


def best_of(runs: Mapping[str, Callable[[], Tensor]], rounds: int, threads: int) -> dict[str, float]:
    """Seconds of the best round of each.

    They take turns, round by round, so that what else runs on the machine hits all of them, after one round
    that does not count.

    Args:
        runs: as of :func:`seconds`.
        rounds: how many count.
        threads: see :func:`seconds`.
    """
    best = dict.fromkeys(runs, float("inf"))
    for run in runs.values():
        seconds(run, threads)
    for _ in range(rounds):
        gc.collect()
        for name, run in runs.items():
            best[name] = min(best[name], seconds(run, threads))
    return best


def kept_bytes(run: Callable[[], Tensor], module: nn.Module | None = None) -> int:
    """What autograd keeps for the backward pass, each storage once.

    Args:
        run: the forward pass.
        module: its parameters do not count.
    """
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()} if module else set()
    found: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no storage's place is taken by another

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        alive.append(tensor)
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        assert run().requires_grad
    return sum(found.values())

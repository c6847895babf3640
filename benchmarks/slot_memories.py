"""Time and memory of the DNC: our operation, our plain loop, and the PyPI package ``dnc``.

    OMP_NUM_THREADS=1 python benchmarks/slot_memories.py
    OMP_NUM_THREADS=1 python benchmarks/slot_memories.py --sizes 100 16 --rounds 3

Forward and backward pass over whole sequences, from zeros. ``dnc`` 1.1.0 is the published machine without
masks and de-allocation, so our ``published`` is what compares with it; ``pip install -e '.[bench]'`` gets it.
They take turns, round by round, so that what else runs on the machine hits all; the best round counts.
With one thread, time is the processor time of this process, else wall time. Memory is what autograd keeps for
the backward pass, each storage once.

Dimensions: ``T`` time, ``B`` batch.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import tyro
from measuring import best_of, kept_bytes
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from mnm_rl import make_core

PUBLISHED = {"masked": False, "deallocating": False}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "dnc, default": ("dnc", {}),
    "dnc, published": ("dnc", PUBLISHED),
    "dnc, no links": ("dnc", {"links": False}),
    "plain loop, published": ("dnc", {**PUBLISHED, "kernel": "reference"}),
    "sdnc": ("sdnc", {}),
    "sam": ("sam", {}),
}


@dataclass(frozen=True)
class Args:
    """What to measure."""

    sizes: tuple[tuple[int, int], ...] = ((32, 8), (32, 32), (100, 8))
    """Steps and sequences."""
    hidden_size: int = 256
    """Width of the controller."""
    slots: int = 256
    """Slots."""
    slot_size: int = 64
    """Numbers per slot."""
    read_heads: int = 4
    """Read heads."""
    input_size: int = 64
    """Numbers per step."""
    rounds: int = 5
    """Timed rounds; the best one counts."""
    threads: int = 1
    """Threads of torch."""


def peer(args: Args) -> Callable[[Tensor], Tensor] | None:
    """The package's outputs ``[B, T, O]`` of inputs ``[T, B, I]``; none if it is not installed."""
    try:
        module: Any = importlib.import_module("dnc")
    except ImportError:
        return None
    core = module.DNC(
        args.input_size,
        args.hidden_size,
        num_hidden_layers=1,
        nr_cells=args.slots,
        cell_size=args.slot_size,
        read_heads=args.read_heads,
        gpu_id=-1,
    )
    return lambda inputs: core(inputs.transpose(0, 1), (None, None, None), reset_experience=True)[0]


def runs(args: Args) -> dict[str, Callable[[Tensor], Tensor]]:
    """The outputs by each of the ways."""
    settings = {name: getattr(args, name) for name in ("hidden_size", "slots", "slot_size", "read_heads")}
    found: dict[str, Callable[[Tensor], Tensor]] = {}
    for title, (name, changes) in OURS.items():
        core: nn.Module = make_core(name, args.input_size, **settings, **changes)
        found[title] = lambda inputs, core=core: core(inputs).outputs
    other = peer(args)
    return found if other is None else {**found, "the package dnc": other}


def main(args: Args) -> None:
    """Measure and print a table for each size."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    gc.disable()
    ways = runs(args)
    for steps, batch in args.sizes:
        inputs = torch.randn(steps, batch, args.input_size)
        passes = {name: lambda run=run, x=inputs: run(x).sum() for name, run in ways.items()}
        best = list(best_of(passes, args.rounds, args.threads).values())
        kept = [kept_bytes(run) / 2**20 for run in passes.values()]
        table = Table(box=box.MARKDOWN, title=f"T {steps}, B {batch}, {args.slots} x {args.slot_size} slots")
        for column in ("", "tokens/s", "x the last", "kept, MiB", "of the last"):
            table.add_column(column, justify="right")
        for title, took, memory in zip(ways, best, kept, strict=True):
            speed, share = steps * batch / took, memory / kept[-1]
            table.add_row(title, f"{speed:,.0f}", f"{best[-1] / took:.2f}", f"{memory:,.1f}", f"{share:.3f}")
        Console(width=110).print(table)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))

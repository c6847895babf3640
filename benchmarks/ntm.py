"""Time of the neural Turing machine: its forms beside the plain loop, in the same run.

    OMP_NUM_THREADS=1 python benchmarks/ntm.py
    OMP_NUM_THREADS=1 python benchmarks/ntm.py --no-gradient

Forward and backward pass over a whole sequence, by

* the core as it is: the operation in C++ (``mnm_rl/kernels/ntm.py``) where there is a compiler;
* torch: the same operation in torch, with a hand-written backward pass (``mnm_rl/kernels/ntm_torch.py``);
* plain: autograd over the equations (``mnm_rl/cores/ntm.py``).

They take turns, round by round, so that what else runs on the machine hits all of them; the best round
counts. With one thread, time is the processor time of this process, else wall time. Python collects no
garbage meanwhile.

Dimensions: ``T`` time, ``B`` batch, ``H`` heads, ``N`` slots, ``W`` slot size.
"""

from __future__ import annotations

import contextlib
import gc
import time
from dataclasses import dataclass

import torch
import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mnm_rl import make_core
from mnm_rl.cores import MemoryCore

SIZES = (
    (41, 1, 1, 128, 20),
    (41, 32, 1, 128, 20),
    (241, 32, 1, 128, 20),
    (41, 32, 4, 128, 20),
    (128, 16, 1, 64, 16),
)
KERNELS = {"the core": "auto", "torch": "torch", "plain": "reference"}


@dataclass(frozen=True)
class Args:
    """What to measure."""

    sizes: tuple[tuple[int, int, int, int, int], ...] = SIZES
    """Steps, sequences, heads, slots and slot sizes."""
    hidden_size: int = 100
    """Width of the controller, and numbers per step."""
    gradient: bool = True
    """Forward and backward pass, else the forward pass alone."""
    starts: int = 0
    """Mean length of an episode, which starts at random; 0 for no starts at all."""
    rounds: int = 7
    """Timed rounds; the best one counts."""
    threads: int = 1
    """Threads of torch."""


def seconds(core: MemoryCore, inputs: Tensor, resets: Tensor | None, args: Args) -> float:
    """Time of one pass."""
    clock = time.process_time if args.threads == 1 else time.perf_counter
    with contextlib.nullcontext() if args.gradient else torch.no_grad():
        begun = clock()
        outputs = core(inputs, None, resets).outputs
        if args.gradient:
            outputs.sum().backward()
        return clock() - begun


def measure(args: Args, size: tuple[int, int, int, int, int]) -> list[float]:
    """Microseconds per step of all forms, each in its best round."""
    steps, batch, heads, slots, slot_size = size
    settings = {"hidden_size": args.hidden_size, "heads": heads, "slots": slots, "slot_size": slot_size}
    torch.manual_seed(0)
    cores = [make_core("ntm", args.hidden_size, kernel=kernel, **settings) for kernel in KERNELS.values()]
    for core in cores[1:]:
        core.load_state_dict(cores[0].state_dict())
    inputs = torch.randn(steps, batch, args.hidden_size)
    resets = torch.rand(steps, batch) < 1 / args.starts if args.starts else None
    with torch.no_grad():
        for core in cores[1:]:
            found, expected = core(inputs, None, resets).outputs, cores[0](inputs, None, resets).outputs
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    gc.collect()
    rounds = [[seconds(core, inputs, resets, args) for core in cores] for _ in range(args.rounds + 1)][1:]
    return [min(times) / steps * 1e6 for times in zip(*rounds, strict=True)]


def main(args: Args) -> None:
    """Measure and print the table."""
    torch.set_num_threads(args.threads)
    gc.disable()
    passes = "forward and backward" if args.gradient else "forward, without gradient"
    print(f"ntm, {passes}, {args.threads} thread(s); microseconds per step, and how often the core's time")
    table = Table(box=box.MARKDOWN)
    for column in ("T", "B", "H", "N", "W", *KERNELS):
        table.add_column(column, justify="right")
    for size in args.sizes:
        own, *others = measure(args, size)
        cells = [f"{other:,.0f} ({other / own:.1f})" for other in others]
        table.add_row(*map(str, size), f"{own:,.0f}", *cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))

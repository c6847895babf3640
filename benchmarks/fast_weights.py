"""Time and kept numbers of the cores with fast weights, and of their plain loops.

    OMP_NUM_THREADS=1 python benchmarks/fast_weights.py

Forward and backward pass over a whole sequence. The cores take turns, round by round, so that what else runs
on the machine hits all of them; the best round counts. With one thread, time is the processor time of this
process, else wall time. "Kept" is what autograd keeps between the passes, in numbers per token, parameters
left out; a storage that several tensors share counts once. "Ratio" is the time of a core's plain loop over
its own, in the same run.

Dimensions: ``T`` time, ``B`` batch, ``D`` hidden size.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any

import torch
import tyro
from measuring import best_of, kept_bytes
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mnm_rl import make_core
from mnm_rl.cores import MemoryCore

Case = tuple[str, dict[str, Any]]
CASES: dict[str, Case] = {
    "lstm": ("lstm", {}),
    "mnm-p": ("mnm-p", {}),
    "fwm": ("fwm", {}),
    "fwm, chunked": ("fwm", {"kernel": "chunked"}),
    "fwm, plain loop": ("fwm", {"kernel": "reference"}),
    "delta-net": ("delta-net", {}),
    "delta-net, plain loop": ("delta-net", {"kernel": "reference"}),
    "gated delta-net": ("delta-net", {"forgetting": "head", "output_gate": True}),
    "gated delta-net, plain loop": (
        "delta-net",
        {"forgetting": "head", "output_gate": True, "kernel": "reference"},
    ),
    "KDA": ("delta-net", {"forgetting": "channel", "output_gate": True}),
    "KDA, plain loop": ("delta-net", {"forgetting": "channel", "output_gate": True, "kernel": "reference"}),
    "fast-weights": ("fast-weights", {}),
    "fast-weights, plain loop": ("fast-weights", {"kernel": "reference"}),
}


@dataclass(frozen=True)
class Args:
    """What to measure."""

    cases: tuple[str, ...] = tuple(CASES)
    """Which of the cases."""
    sizes: tuple[tuple[int, int, int], ...] = ((64, 8, 100), (128, 16, 256))
    """Steps, sequences and hidden sizes."""
    episode: int = 0
    """Mean length of an episode, which start at random; 0 for no starts at all."""
    input_size: int = 64
    """Numbers per step."""
    rounds: int = 5
    """Timed rounds; the best one counts."""
    threads: int = 1
    """Threads of torch."""


def objective(core: MemoryCore, inputs: Tensor, starts: Tensor | None) -> Tensor:
    """Some loss that depends on all outputs."""
    output = core(inputs, None, starts)
    return output.outputs.square().mean() + output.meta_loss.mean()


def measure(args: Args, size: tuple[int, int, int]) -> Table:
    """The table of one size."""
    steps, batch, hidden = size
    inputs = torch.randn(steps, batch, args.input_size)
    starts = torch.rand(steps, batch) < 1 / args.episode if args.episode else None
    losses, kept = {}, {}
    for case in args.cases:
        name, changes = CASES[case]
        torch.manual_seed(0)
        core = make_core(name, args.input_size, hidden_size=hidden, **changes)
        losses[case] = lambda core=core: objective(core, inputs, starts)
        kept[case] = kept_bytes(losses[case], core) // 4
    best = best_of(losses, args.rounds, args.threads)
    table = Table(box=box.MARKDOWN)
    for column in ("core", "microseconds per token", "ratio", "times the LSTM", "kept per token"):
        table.add_column(column, justify="left" if column == "core" else "right")
    tokens = steps * batch
    for case in args.cases:
        plain, lstm = best.get(f"{case}, plain loop"), best.get("lstm")
        table.add_row(
            case,
            f"{1e6 * best[case] / tokens:,.1f}",
            f"{plain / best[case]:.1f}" if plain else "",
            f"{best[case] / lstm:.1f}" if lstm else "",
            f"{kept[case] / tokens:,.0f}",
        )
    return table


def main(args: Args) -> None:
    """Measure and print a table for each size."""
    if unknown := [case for case in args.cases if case not in CASES]:
        raise SystemExit(f"There is no case {', '.join(unknown)}; there are {', '.join(CASES)}.")
    torch.set_num_threads(args.threads)
    gc.disable()
    for size in args.sizes:
        steps, batch, hidden = size
        print(f"T={steps} B={batch} D={hidden}, forward and backward, {args.threads} thread(s)")
        Console(width=110).print(measure(args, size))


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))

"""Time of the lstm and gru cores on sequences in which episodes start: our operation, and the ways of others.

    OMP_NUM_THREADS=1 python benchmarks/recurrent.py
    OMP_NUM_THREADS=1 python benchmarks/recurrent.py --episodes 0 --no-gradient

Forward and backward pass over a whole sequence, by

* the core as it is: the operation in C++ with resets inside it (``mnm_rl/kernels/recurrent.py``), or torch's
  layer where that is the faster one;
* pieces: torch's layer between any two steps at which some episode starts, what the core does where there is
  no compiler;
* steps: torch's layer one step at a time with the state set to zero in between, as sb3-contrib's
  RecurrentPPO does when there is any start in a batch;
* torch's layer once over all steps, which is another computation: it takes no notice of the starts.

They take turns, round by round, so that what else runs on the machine hits all of them; the best round
counts. With one thread, time is the processor time of this process, else wall time. The core's time includes
its checks, some 0.05 ms a call, which the others do without; Python collects no garbage meanwhile.

Dimensions: ``T`` time, ``B`` batch, ``D`` hidden size.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mnm_rl import make_core
from mnm_rl.cores.recurrent import GRUCore, LSTMCore

SIZES = (
    (16, 1, 64),
    (128, 1, 64),
    (16, 16, 64),
    (128, 16, 64),
    (200, 16, 100),
    (128, 64, 32),
    (128, 64, 128),
)
WAYS = ("the core", "pieces", "steps", "torch, no starts")


@dataclass(frozen=True)
class Args:
    """What to measure."""

    cores: tuple[Literal["lstm", "gru"], ...] = ("lstm", "gru")
    """Cores."""
    sizes: tuple[tuple[int, int, int], ...] = SIZES
    """Steps, sequences and hidden sizes."""
    episodes: tuple[int, ...] = (8, 50, 0)
    """Mean lengths of an episode, which start at random; 0 for no starts at all."""
    input_size: int = 32
    """Numbers per step."""
    gradient: bool = True
    """Forward and backward pass, else the forward pass alone."""
    double: bool = False
    """Float64 in place of float32."""
    rounds: int = 9
    """Timed rounds; the best one counts."""
    threads: int = 1
    """Threads of torch."""


def in_steps(core: Any, inputs: Tensor, starts: Tensor | None) -> Tensor:
    """The layer step by step, once over all steps if nothing starts."""
    if starts is None:
        return core.layer(inputs)[0]
    state, outputs = [field.unsqueeze(0) for field in core.initial_state(inputs.shape[1])], []
    for x, keep in zip(inputs, (~starts).to(inputs.dtype).unsqueeze(-1), strict=True):
        state = [keep * field for field in state]
        output, after = core.layer(x.unsqueeze(0), tuple(state) if len(state) > 1 else state[0])
        state = list(after) if len(state) > 1 else [after]
        outputs.append(output)
    return torch.cat(outputs)


def ways(core: LSTMCore | GRUCore, inputs: Tensor, starts: Tensor | None) -> list[Callable[[], Tensor]]:
    """The outputs by each of :data:`WAYS`."""
    initial: Any = core.initial_state(inputs.shape[1])
    return [
        lambda: core(inputs, None, starts).outputs,
        lambda: core._run_in_pieces(inputs, initial, initial, starts)[0],
        lambda: in_steps(core, inputs, starts),
        lambda: core.layer(inputs)[0],
    ]


def seconds(run: Callable[[], Tensor], args: Args) -> float:
    """Time of one pass."""
    clock = time.process_time if args.threads == 1 else time.perf_counter
    with contextlib.nullcontext() if args.gradient else torch.no_grad():
        begun = clock()
        outputs = run()
        if args.gradient:
            outputs.sum().backward()
        return clock() - begun


def measure(args: Args, name: str, size: tuple[int, int, int], episode: int) -> list[float]:
    """Microseconds per step of all ways, each in its best round."""
    steps, batch, hidden = size
    torch.manual_seed(0)
    dtype = torch.float64 if args.double else torch.float32
    core = make_core(name, args.input_size, hidden_size=hidden).to(dtype)
    assert isinstance(core, LSTMCore | GRUCore)
    inputs = torch.randn(steps, batch, args.input_size, dtype=dtype, requires_grad=args.gradient)
    runs = ways(core, inputs, torch.rand(steps, batch) < 1 / episode if episode else None)
    with torch.no_grad():
        for run in runs[1:3]:
            torch.testing.assert_close(run(), runs[0](), rtol=1e-4, atol=1e-4)
    gc.collect()
    rounds = [[seconds(run, args) for run in runs] for _ in range(args.rounds + 1)][1:]
    return [min(times) / steps * 1e6 for times in zip(*rounds, strict=True)]


def main(args: Args) -> None:
    """Measure and print a table for each core."""
    torch.set_num_threads(args.threads)
    gc.disable()
    passes = "forward and backward" if args.gradient else "forward, without gradient"
    for name in args.cores:
        title = f"{name}, {passes}, {'float64' if args.double else 'float32'}, {args.threads} thread(s)"
        print(f"{title}; microseconds per step, and how often the core's time")
        table = Table(box=box.MARKDOWN)
        for column in ("T", "B", "D", "episode", *WAYS):
            table.add_column(column, justify="right")
        for size in args.sizes:
            for episode in args.episodes:
                own, *others = measure(args, name, size, episode)
                cells = [f"{other:,.1f} ({other / own:.1f})" for other in others]
                table.add_row(*map(str, size), str(episode or "none"), f"{own:,.1f}", *cells)
        Console(width=110).print(table)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))

"""Size, time and memory of every core, and of the peers that can be installed, in one run.

    OMP_NUM_THREADS=1 python benchmarks/cores.py
    OMP_NUM_THREADS=1 python benchmarks/cores.py --peers --steps 64 --batch 16 --hidden-size 100

Training: forward and backward pass over a whole sequence, nothing known of episodes. Acting: one step of all
sequences without gradients, inside ``core.acting()``. Everything but the width is as by default. They take
turns, round by round; the best round counts, in processor time of this process with one thread, else in wall
time. "Kept" is what autograd keeps for the backward pass, without the parameters. "State" is what one
sequence carries from step to step.

Peers (`pip install "mnm-rl[bench]"`): `dnc` at the slots of our `dnc`, `titans-pytorch` with a write at every
step, both at the same width; they are slow, so their sequences are a quarter as long.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Callable
from contextlib import ExitStack
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
from mnm_rl.cores import MemoryCore, core_names, has_setting

REFERENCE = "lstm"
"""Whose time the others are compared with."""


@dataclass(frozen=True)
class Args:
    """What to measure."""

    cores: tuple[str, ...] = tuple(core_names())
    """Which cores."""
    steps: int = 64
    """Steps of a sequence in training."""
    batch: int = 16
    """Sequences."""
    input_size: int = 32
    """Numbers per step."""
    hidden_size: int = 100
    """Width of each core that has one."""
    rounds: int = 5
    """Timed rounds; the best one counts."""
    threads: int = 1
    """Threads of torch."""
    peers: bool = False
    """Time the peers as well."""


@dataclass
class Measured:
    """One line of the table; times in microseconds."""

    parameters: int
    state: int | None
    training: float
    """Per token."""
    kept: float | None
    """KiB per token; None where autograd does not tell."""
    acting: float | None
    """Per step of all sequences."""


def made(name: str, args: Args) -> MemoryCore:
    """A core at the width, where it has one."""
    torch.manual_seed(0)
    sizes = {"hidden_size": args.hidden_size} if has_setting(name, "hidden_size") else {}
    return make_core(name, args.input_size, **sizes)


def training_pass(core: MemoryCore, inputs: Tensor) -> Callable[[], Tensor]:
    """Some loss that depends on all outputs."""

    def run() -> Tensor:
        output = core(inputs)
        return output.outputs.square().mean() + output.meta_loss.mean()

    return run


class Acting:
    """One step after the other, each from the state that the one before left."""

    def __init__(self, core: MemoryCore, inputs: Tensor):
        self.core, self.inputs = core, inputs
        self.state = core.initial_state(len(inputs))

    def __call__(self) -> Tensor:
        """A step."""
        with torch.no_grad():
            output, self.state = self.core.step(self.inputs, self.state)
        return output


def peers(args: Args, inputs: Tensor) -> dict[str, Callable[[], Tensor]]:
    """A training pass of each that is installed."""
    found: dict[str, Callable[[], Tensor]] = {}
    width = args.hidden_size
    try:
        module: Any = importlib.import_module("dnc")
        core = module.DNC(
            args.input_size,
            width,
            num_hidden_layers=1,
            nr_cells=64,
            cell_size=32,
            read_heads=4,
            gpu_id=-1,
        )
        first = inputs.transpose(0, 1)
        found["package dnc"] = lambda: (
            core(first, (None, None, None), reset_experience=True)[0].square().mean()
        )
    except ImportError:
        print("dnc is not installed.")
    try:
        module = importlib.import_module("titans_pytorch")
        memory = module.NeuralMemory(dim=width, chunk_size=1)
        wide = torch.randn(args.batch, len(inputs), width)
        found["package titans-pytorch"] = lambda: memory(wide)[0].square().mean()
    except ImportError:
        print("titans-pytorch is not installed.")
    return found


def measure(args: Args) -> dict[str, Measured]:
    """All cores, and the peers."""
    inputs = torch.randn(args.steps, args.batch, args.input_size)
    cores = {name: made(name, args) for name in args.cores}
    passes = {name: training_pass(core, inputs) for name, core in cores.items()}
    kept = {name: kept_bytes(run, cores[name]) for name, run in passes.items()}
    trained = best_of(passes, args.rounds, args.threads)
    with ExitStack() as stack:
        for core in cores.values():
            stack.enter_context(core.acting())
        steps = {name: Acting(core, inputs[0]) for name, core in cores.items()}
        acted = best_of(steps, 10 * args.rounds, args.threads)
    tokens = args.steps * args.batch
    found = {
        name: Measured(
            sum(each.numel() for each in core.parameters()),
            sum(each.numel() for each in core.initial_state(1) if each is not None),
            1e6 * trained[name] / tokens,
            kept[name] / 1024 / tokens,
            1e6 * acted[name],
        )
        for name, core in cores.items()
    }
    others = peers(args, inputs[: max(1, args.steps // 4)]) if args.peers else {}
    tokens = max(1, args.steps // 4) * args.batch
    for name, took in best_of(others, 1, args.threads).items():
        found[name] = Measured(0, None, 1e6 * took / tokens, _kept_by_peer(others[name], tokens), None)
    return found


def _kept_by_peer(run: Callable[[], Tensor], tokens: int) -> float | None:
    try:
        return kept_bytes(run) / 1024 / tokens
    except RuntimeError as error:  # titans-pytorch writes by torch.func, which does not let anybody look on
        if "saved tensor hooks" not in str(error):
            raise
        return None


def as_table(found: dict[str, Measured]) -> Table:
    """In Markdown."""
    table = Table(box=box.MARKDOWN)
    columns = ("parameters", "state", "training, us per token", "x LSTM", "kept, KiB per token")
    for column in ("core", *columns, "acting, us per step", "x LSTM"):
        table.add_column(column, justify="left" if column == "core" else "right")
    lstm = found.get(REFERENCE)
    for name, row in found.items():
        table.add_row(
            name,
            f"{row.parameters:,}" if row.parameters else "",
            f"{row.state:,}" if row.state is not None else "",
            f"{row.training:,.1f}",
            f"{row.training / lstm.training:.1f}" if lstm else "",
            f"{row.kept:,.1f}" if row.kept is not None else "",
            f"{row.acting:,.0f}" if row.acting is not None else "",
            f"{row.acting / lstm.acting:.1f}" if lstm and lstm.acting and row.acting else "",
        )
    return table


def main(args: Args) -> None:
    """Measure and print."""
    for name in ("steps", "batch", "input_size", "hidden_size", "rounds", "threads"):
        if getattr(args, name) < 1:
            raise SystemExit(f"{name} must be at least 1, got {getattr(args, name)}.")
    if unknown := [name for name in args.cores if name not in core_names()]:
        raise SystemExit(f"There is no core {', '.join(unknown)}; there are {', '.join(core_names())}.")
    torch.set_num_threads(args.threads)
    gc.disable()
    print(f"T={args.steps} B={args.batch} D={args.hidden_size} I={args.input_size}, {args.threads} thread(s)")
    Console(width=130).print(as_table(measure(args)))


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))

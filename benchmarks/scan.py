"""Time and memory of the MNM time loop: every backend, in the paper's settings, and peers.

    OMP_NUM_THREADS=1 python benchmarks/scan.py
    OMP_NUM_THREADS=1 python benchmarks/scan.py --core mnm-g --settings maze --peers

Backends take turns, round by round, so that what else runs on the machine hits all of them; the best round
counts. With one thread, time is the processor time of this process, else wall time. There are two peaks: of a
square matrix product of torch's, timed in the same rounds, and of the processor's own multiply-adds
(`peak.py`; where there is a C++ compiler). Peak memory is measured in a process of its own for each backend:
the largest resident size in a forward and backward pass, less the size just before it; on a GPU, what torch
allocated at most.

Peers (`pip install "mnm-rl[bench]"`): `titans-pytorch` and `dnc`, at the same width, batch and length.

Dimensions: ``T`` time, ``B`` batch, ``H`` heads, ``d_h`` controller width.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
import tyro
from peak import processor_peak
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mnm_rl import make_core
from mnm_rl.cores.mnm import MNMConfig, MNMCore

INPUT_SIZE = 16
SettingName = Literal["algorithmic", "algorithmic-long", "babi", "babi-long", "maze"]
BackendName = Literal["reference", "torch", "cpu", "cpu-snapshots", "triton", "graphs"]
Clock = Callable[[], float]
PeerName = Literal["titans-pytorch", "dnc"]


@dataclass(frozen=True)
class Setting:
    """Sizes of one problem; the memory has three layers of width 100."""

    batch: int
    steps: int
    hidden: int
    heads: int


SETTINGS: dict[SettingName, Setting] = {
    "algorithmic": Setting(32, 90, 100, 1),
    "algorithmic-long": Setting(32, 450, 100, 1),
    "babi": Setting(128, 100, 256, 3),
    "babi-long": Setting(128, 400, 256, 3),
    "maze": Setting(32, 200, 200, 3),
}


@dataclass(frozen=True)
class Args:
    """What to measure."""

    core: Literal["mnm-p", "mnm-g"] = "mnm-p"
    """Write rule."""
    settings: tuple[SettingName, ...] = tuple(SETTINGS)
    """Problems."""
    backends: tuple[BackendName, ...] = ("reference", "torch", "cpu", "cpu-snapshots")
    """Backends; the first is the one that the others are compared with."""
    rounds: int = 5
    """Timed rounds; the best one counts."""
    threads: int = 1
    """Threads of torch."""
    device: Literal["cpu", "cuda"] = "cpu"
    """On cuda, give backends that run there: --backends torch graphs triton."""
    reference_gigabytes: float = 4.0
    """The plain loop runs on fewer steps where it would need more memory; its time per step is the same."""
    snapshot_every: int | Literal["auto"] = "auto"
    """Steps between the snapshots of cpu-snapshots."""
    peers: bool = False
    """Time the peers as well, in the algorithmic setting, on the CPU."""


@dataclass
class Timing:
    """Seconds per round."""

    forward: list[float]
    total: list[float]


def operations(core: MNMCore, tokens: int) -> tuple[float, float]:
    """Floating-point operations of a forward pass and of a forward and backward pass.

    A matrix product counts two operations per multiply-add, and its backward pass twice that. Each of the H
    heads passes over the S weights of the memory: forward once for z, once for the write and once for each of
    the reads (1 + N of them), and once more for the errors of the gradient rule; backward twice for each read
    and five times for z, the write and its undoing, or seven times with the errors of the gradient rule.
    """
    config = core.config
    dense = sum(weight.numel() for weight in core.parameters() if weight.dim() == 2)
    if config.write_rule == "local":
        dense += (config.heads - 1) * core.feedback.weight.numel()
    weights = config.heads * sum(rows * columns for columns, rows in pairwise(config.widths))
    reads, more = 1 + len(config.recall_weights), config.write_rule == "gradient"
    forward = dense + (2 + reads + more) * weights
    backward = 2 * dense + (2 * reads + 5 + 2 * more) * weights
    return 2.0 * tokens * forward, 2.0 * tokens * (forward + backward)


def make_clock(args: Args) -> Clock:
    """Seconds of work that is done."""
    if args.device == "cpu":
        return time.process_time if args.threads == 1 else time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def make(args: Args, setting: Setting, backend: str) -> MNMCore:
    """The MNM core of this setting."""
    torch.manual_seed(0)
    kernel, _, snapshots = backend.partition("-")
    made = make_core(
        *(args.core, INPUT_SIZE),
        hidden_size=setting.hidden,
        heads=setting.heads,
        kernel=kernel,
        snapshot_every=args.snapshot_every if snapshots else None,
    )
    assert isinstance(made, MNMCore)
    return made.to(args.device)


def steps_for(backend: str, setting: Setting, limit: float) -> int:
    """Steps that fit ``limit`` gigabytes; the plain loop keeps about 1.6 memories per token."""
    if backend != "reference":
        return setting.steps
    memory = sum(rows * columns for columns, rows in pairwise(MNMConfig().widths)) * 4 * 1.6
    return min(setting.steps, max(10, int(limit * 1e9 / (memory * setting.batch))))


def objective(core: MNMCore, inputs: Tensor) -> Tensor:
    """Some loss that depends on all outputs."""
    output = core(inputs)
    return output.outputs.square().mean() + output.meta_loss.mean()


def run_once(loss: Callable[[], Tensor], clock: Clock) -> tuple[float, float]:
    """Seconds of the forward pass, and of both passes."""
    start = clock()
    value = loss()
    middle = clock()
    value.backward()
    return middle - start, clock() - start


def product_rate(clock: Clock, device: str) -> float:
    """Operations per second of a product of two square matrices."""
    size = 1024 if device == "cpu" else 8192
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    start = clock()
    torch.mm(a, b)
    return 2 * size**3 / (clock() - start)


def time_backends(args: Args, setting: Setting) -> tuple[dict[str, Timing], float]:
    """Timings per token of all backends, and the best rate of a matrix product."""
    clock = make_clock(args)
    losses, timings, tokens = {}, {}, {}
    for backend in args.backends:
        core = make(args, setting, backend)
        steps = steps_for(backend, setting, args.reference_gigabytes)
        inputs = torch.randn(steps, setting.batch, INPUT_SIZE, device=args.device)
        losses[backend] = lambda core=core, inputs=inputs: objective(core, inputs)
        tokens[backend], timings[backend] = steps * setting.batch, Timing([], [])
        run_once(losses[backend], clock)
    peak = 0.0
    for _ in range(args.rounds):
        peak = max(peak, *(product_rate(clock, args.device) for _ in range(5)))
        for backend, loss in losses.items():
            forward, total = run_once(loss, clock)
            timings[backend].forward.append(forward / tokens[backend])
            timings[backend].total.append(total / tokens[backend])
    return timings, peak


def peak_mebibytes(args: Args, setting: Setting, backend: str, steps: int) -> float:
    """Growth of the largest size in one forward and backward pass, in a process of its own.

    Its allocator gives large blocks back at once, so that what was free before cannot hide the growth.
    """
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**18)  # of glibc; read when a process starts
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (args, setting, backend, steps))


def _peak(args: Args, setting: Setting, backend: str, steps: int) -> float:
    torch.set_num_threads(args.threads)
    if backend in ("titans-pytorch", "dnc"):
        loss = make_peer(backend, setting)
    else:
        made = make(args, setting, backend)
        inputs = torch.randn(steps, setting.batch, INPUT_SIZE, device=args.device)
        # What the first call loads is not the memory of a pass.
        warm = make(args, setting, backend)
        objective(warm, inputs[:, :1]).backward()
        loss = lambda: objective(made, inputs)  # noqa: E731
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        loss().backward()
        return (torch.cuda.max_memory_allocated() - allocated) / 2**20
    before = _resident("VmRSS")
    loss().backward()
    return _resident("VmHWM") - before


def _resident(field: str) -> float:
    """Present (``VmRSS``) or largest (``VmHWM``) resident size in MiB; not a number off Linux."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field)), math.nan)


def make_peer(name: str, setting: Setting) -> Callable[[], Tensor]:
    """A forward pass of another library's memory, at the setting's width, batch and length."""
    inputs = torch.randn(setting.batch, setting.steps, setting.hidden)
    if name == "dnc":
        from dnc import DNC  # pyright: ignore[reportMissingImports]

        model = DNC(
            setting.hidden, setting.hidden, num_layers=1, num_hidden_layers=1, nr_cells=64, cell_size=32,
            read_heads=4,
        )  # fmt: skip
        return lambda: model(inputs, (None, None, None), reset_experience=True)[0].square().mean()
    from titans_pytorch import NeuralMemory  # pyright: ignore[reportMissingImports]

    memory = NeuralMemory(dim=setting.hidden, chunk_size=1)
    return lambda: memory(inputs)[0].square().mean()


def time_peers(args: Args, console: Console) -> None:
    """Print tokens per second and peak memory of the peers beside the fastest backend."""
    setting = SETTINGS["algorithmic"]
    table = Table("memory", "tokens/s", "peak MiB", title=f"algorithmic, forward and backward, {setting}")
    clock = make_clock(args)
    peers: tuple[PeerName, ...] = ("titans-pytorch", "dnc")
    for name in (*peers, *args.backends):
        try:
            if name in peers:
                loss = make_peer(name, setting)
            else:
                core, inputs = (
                    make(args, setting, name),
                    torch.randn(setting.steps, setting.batch, INPUT_SIZE),
                )
                loss = lambda core=core, inputs=inputs: objective(core, inputs)  # noqa: E731
        except ImportError as error:
            console.print(f"{name} is left out: {error}")
            continue
        seconds = min(run_once(loss, clock)[1] for _ in range(2 if name in peers else args.rounds))
        peak = peak_mebibytes(args, setting, name, setting.steps)
        label = name if name in peers else f"{args.core}, {name}"
        table.add_row(label, f"{setting.batch * setting.steps / seconds:,.0f}", f"{peak:,.0f}")
    console.print(table)


def report(args: Args, name: SettingName, console: Console) -> None:
    """Measure one setting and print its table."""
    setting = SETTINGS[name]
    timings, peak = time_backends(args, setting)
    _, work = operations(make(args, setting, args.backends[0]), 1)
    title = f"{args.core}, {name}: B={setting.batch} T={setting.steps} d_h={setting.hidden} H={setting.heads}"
    peaks, told = {"product": peak}, f"torch's product {peak / 1e9:.0f} GFLOP/s"
    if args.device == "cpu" and (own := processor_peak(args.threads)):
        peaks["processor"] = own[0]
        told += f", the processor {own[0] / 1e9:.0f} with vectors of {own[1]} bytes"
    columns = ("backend", "forward", "forward + backward", "ratio", "median ratio")
    columns += (*(f"of {name}" for name in peaks), "peak MiB")
    table = Table(*columns, title=f"{title}; ms per step\n{told}")
    first = timings[args.backends[0]]
    for backend, timing in timings.items():
        steps = steps_for(backend, setting, args.reference_gigabytes)
        memory = peak_mebibytes(args, setting, backend, steps)
        ratios = [a / b for a, b in zip(first.total, timing.total, strict=True)]
        per_step = 1e3 * setting.batch
        table.add_row(
            backend,
            f"{min(timing.forward) * per_step:.2f}",
            f"{min(timing.total) * per_step:.2f}",
            f"{min(first.total) / min(timing.total):.2f}",
            f"{statistics.median(ratios):.2f}",
            *(f"{work / min(timing.total) / rate:.0%}" for rate in peaks.values()),
            f"{memory:,.0f}" + (f" at T={steps}" if steps != setting.steps else ""),
        )
    console.print(table)


def main(args: Args) -> None:
    """Measure and print."""
    torch.set_num_threads(args.threads)
    console = Console(width=120)
    for name in args.settings:
        report(args, name, console)
        sys.stdout.flush()
    if args.peers and args.device == "cpu":
        time_peers(args, console)


if __name__ == "__main__":
    main(tyro.cli(Args))

"""The time loop in its forms, and peers of the same sizes, for ``gpu.py``.

Dimensions: ``T`` time, ``B`` batch, ``H`` heads; sizes as in :mod:`mnm_rl.kernels.problem`.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import scan
import torch
from gpu_job import Job, Note
from gpu_records import Records
from torch import Tensor, nn

from mnm_rl import make_core
from mnm_rl.cores.mnm import MNMCore
from mnm_rl.kernels import captured, graphs
from mnm_rl.kernels.snapshots import snapshot_ratio

SETTINGS: tuple[scan.SettingName, ...] = ("maze", "algorithmic", "babi")
FORMS = ("torch", "graphs", "triton")
TINY = scan.Setting(batch=1, steps=2, hidden=4, heads=1)
TINY_MEMORY = dict(key_size=3, value_size=2, memory_widths=(3,))
ROUNDS = 10


def synchronize(job: Job) -> None:
    """Wait for what was started."""
    if job.device == "cuda":
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], object], job: Job, rounds: int) -> float:
    """The best of some rounds, after one that does not count."""
    times = []
    for _ in range(1 + (1 if job.dry_run else rounds)):
        synchronize(job)
        start = time.perf_counter()
        work()
        synchronize(job)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _setting(job: Job, name: scan.SettingName) -> scan.Setting:
    return TINY if job.dry_run else scan.SETTINGS[name]


def _core(job: Job, setting: scan.Setting, kernel: str) -> MNMCore:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": setting.hidden, "heads": setting.heads, "kernel": kernel}
    made = make_core("mnm-p", scan.INPUT_SIZE, **sizes, **(TINY_MEMORY if job.dry_run else {}))
    assert isinstance(made, MNMCore)
    return made.to(job.device)


def least_bytes(core: MNMCore, batch: int) -> float:
    """Of one step, forward and backward, at least, in float32.

    Each sequence's memory is read and written once forward; backward it and its gradient are. The vectors
    that a step keeps are written once and read once, and the weights that all sequences share are read once
    in each direction.
    """
    settings = core._scan_settings
    memory = sum(rows * columns for columns, rows in pairwise(settings.widths))
    vectors = memory / snapshot_ratio(settings, core.config.hidden_size)
    shared = sum(weight.numel() for weight in core.parameters())
    return 4.0 * (batch * (6 * memory + 2 * vectors) + 2 * shared)


def _rehearse_graphs() -> None:
    """On the processor, what was recorded runs again in Python."""
    captured.record = captured.record_in_python
    graphs.DEVICES = ("cuda", "cpu")


def _passes(job: Job, loss: Callable[[], Tensor]) -> dict[str, float]:
    """Seconds of the forward pass and of both, the best of some rounds each, and MiB at most."""
    if job.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found: list[tuple[float, float]] = []
    ends = time.monotonic() + 0.6 * job.seconds
    rounds = 1 if job.dry_run else ROUNDS
    while len(found) <= rounds and (len(found) < 2 or time.monotonic() < ends):
        synchronize(job)
        start = time.perf_counter()
        value = loss()
        synchronize(job)
        middle = time.perf_counter()
        value.backward()
        synchronize(job)
        found.append((middle - start, time.perf_counter() - start))
    forward, total = (min(column) for column in zip(*found[1:], strict=True))
    mebibytes = torch.cuda.max_memory_allocated() / 2**20 if job.device == "cuda" else 0.0
    return {"forward": forward, "total": total, "mebibytes": mebibytes, "first": found[0][1]}


def _best_of(job: Job, part: str, kind: str, name: str, value: str) -> float | None:
    """A measured peak, if there is one."""
    rows = [row for row in Records(job.out, job.dry_run).of(part) if row.get(kind) == name]
    return rows[-1][value] if rows else None


def scan_unit(name: scan.SettingName, form: str) -> Callable[[Job, Note], None]:
    """Time one form in one setting."""

    def work(job: Job, note: Note) -> None:
        if form == "graphs" and job.device == "cpu":
            _rehearse_graphs()
        setting = _setting(job, name)
        core = _core(job, setting, form)
        inputs = torch.randn(setting.steps, setting.batch, scan.INPUT_SIZE).to(job.device)
        found = _passes(job, lambda: scan.objective(core, inputs))
        step = found["total"] / setting.steps
        rate = scan.operations(core, setting.batch)[1] / step / 1e9
        bandwidth = least_bytes(core, setting.batch) / step / 1e9
        product = _best_of(job, "peaks", "product", "float32", "gflops")
        copy = _best_of(job, "peaks", "copy", "copy of 1 GiB", "gbytes")
        note(
            setting=name,
            form=form,
            forward_ms=1e3 * found["forward"] / setting.steps,
            total_ms=1e3 * step,
            first_call_seconds=found["first"],
            mebibytes=found["mebibytes"],
            gflops=rate,
            of_peak=rate / product if product else "no peak",
            gbytes=bandwidth,
            of_copy=bandwidth / copy if copy else "no peak",
        )

    return work


def peer_unit(name: scan.SettingName, peer: str) -> Callable[[Job, Note], None]:
    """Time another library's operation at the sizes of a setting."""
    make = {"cudnn-lstm": _lstm, "delta-rule": _delta_rule}[peer]

    def work(job: Job, note: Note) -> None:
        setting = _setting(job, name)
        if peer == "delta-rule" and (importlib.util.find_spec("fla") is None or job.device == "cpu"):
            note(setting=name, form=peer, said="left out: flash-linear-attention is not installed or no GPU")
            return
        found = _passes(job, make(job, setting))
        per_step = 1e3 / setting.steps
        note(
            setting=name,
            form=peer,
            forward_ms=per_step * found["forward"],
            total_ms=per_step * found["total"],
            said="",
        )

    return work


def _lstm(job: Job, setting: scan.Setting) -> Callable[[], Tensor]:
    """The controller alone: what a step cannot be cheaper than."""
    layer = nn.LSTM(scan.INPUT_SIZE, setting.hidden).to(job.device)
    inputs = torch.randn(setting.steps, setting.batch, scan.INPUT_SIZE).to(job.device)
    return lambda: layer(inputs)[0].square().mean()


def _delta_rule(job: Job, setting: scan.Setting) -> Callable[[], Tensor]:
    """One linear memory of 128 x 128 a head, written by the delta rule, in bfloat16: all steps in chunks."""
    operation: Any = importlib.import_module("fla.ops.delta_rule").chunk_delta_rule
    sizes = (setting.batch, setting.steps, setting.heads)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, device=job.device, dtype=torch.bfloat16)

    queries, keys, values = (draw(*sizes, 128).requires_grad_() for _ in range(3))
    rates = draw(*sizes).sigmoid().detach().requires_grad_()

    def loss() -> Tensor:
        unit = nn.functional.normalize(keys, dim=-1)
        return operation(queries, unit, values, rates)[0].float().square().mean()

    return loss

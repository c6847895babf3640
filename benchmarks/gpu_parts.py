"""The parts of ``gpu.py`` in their order, and the first of them: the card, the tests, races and peaks."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from gpu_job import Job, Note, Unit
from gpu_timing import FORMS, SETTINGS, peer_unit, scan_unit, seconds_of, synchronize
from gpu_training import a2c_unit, babi
from torch import Tensor

from mnm_rl import make_core
from mnm_rl.cores.mnm import MNMCore

ROOT = Path(__file__).parent.parent
TESTS = ("tests/test_kernels_triton.py", "tests/test_kernel_graphs.py")
DRY_TESTS = ("tests/test_kernels_triton.py::test_leaves_its_arguments_alone_and_can_go_back_twice",)
ENDINGS = ("PASSED", "FAILED", "ERROR", "SKIPPED")
TOOLS = ("memcheck", "racecheck", "synccheck")


def all_units(dry_run: bool) -> list[Unit]:
    """All parts; their shares leave bAbI, which has none of its own, a fifth of the time and more."""
    settings = list(SETTINGS)
    return [
        Unit("versions", 0.03, versions),
        Unit("tests 1", 0.13, run_tests),
        Unit("tests 2", 0.08, run_tests),  # because a race moves
        Unit("races", 0.06, races),
        Unit("sanitizer", 0.05, sanitizer),
        Unit("peaks", 0.02, peaks),
        *[
            # Triton compiles for each setting.
            Unit(f"scan {name} {form}", 0.05 if form == "triton" else 0.02, scan_unit(name, form))
            for name in settings
            for form in FORMS
        ],
        *[Unit(f"peer {name} cudnn-lstm", 0.01, peer_unit(name, "cudnn-lstm")) for name in settings],
        *[Unit(f"peer {name} delta-rule", 0.01, peer_unit(name, "delta-rule")) for name in settings],
        Unit("babi", 0.0, babi, goes_on=True),
        *[Unit(f"a2c {name}", 0.03, a2c_unit(name)) for name in (("cpu",) if dry_run else ("cpu", "cuda"))],
    ]


def versions(job: Job, note: Note) -> None:
    """What runs here, and on what."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
    for name in ("triton", "fla"):
        there = importlib.util.find_spec(name) is not None
        found[name] = importlib.import_module(name).__version__ if there else "not installed"
    note(**found, processor=platform.processor() or platform.machine(), cores=os.cpu_count())
    if job.device == "cpu":
        note(card="none: the processor takes its place")
        return
    card = torch.cuda.get_device_properties(0)
    note(
        card=card.name,
        mebibytes=card.total_memory // 2**20,
        capability=f"{card.major}.{card.minor}",
        multiprocessors=card.multi_processor_count,
        second_level_cache_mebibytes=getattr(card, "L2_cache_size", 0) / 2**20,
        cudnn=torch.backends.cudnn.version(),
    )
    if (program := shutil.which("nvidia-smi")) is not None:
        names = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem,power.limit"
        call = [program, f"--query-gpu={names}", "--format=csv,noheader"]
        said = subprocess.run(call, capture_output=True, text=True, check=False, timeout=30).stdout.strip()
        note(**dict(zip(names.split(","), said.splitlines()[0].split(", "), strict=False)) if said else {})


def run_tests(job: Job, note: Note) -> None:
    """The tests of the kernels that a GPU has, in pytest."""
    if any(importlib.util.find_spec(name) is None for name in ("pytest", "hypothesis", "triton")):
        note(said="left out: pytest, hypothesis or triton is not installed")
        return
    report = job.out / "logs" / "pytest.txt"
    chosen = DRY_TESTS if job.dry_run else TESTS
    call = [sys.executable, "-m", "pytest", "-v", "-o", "addopts=", "-p", "no:cacheprovider", *chosen]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with report.open("w") as file:
        process = subprocess.Popen(call, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            status: int | None = process.wait(0.9 * job.seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            status = None
    lines = report.read_text(errors="replace").splitlines()
    print(*lines, sep="\n", flush=True)
    ends = {word: [line for line in lines if f" {word} " in f"{line} "] for word in ENDINGS}
    note(**{word.lower(): len(found) for word, found in ends.items()})
    failing = [line.split()[0] for word in ENDINGS[1:3] for line in ends[word]]
    if failing or status not in (0, None):
        raise RuntimeError(f"tests failed: {', '.join(failing) or f'pytest gave {status}'}")
    if status is None:
        note(state="unfinished", reason="the time was over; what had run had passed")


def _memory_core(job: Job, kernel: str, write_rule: str, dtype: torch.dtype = torch.float32) -> MNMCore:
    torch.manual_seed(0)
    tiny = dict(heads=2, hidden_size=4, key_size=3, value_size=2, memory_widths=(3,))
    sizes = tiny if job.dry_run else dict(hidden_size=200, heads=3)
    core = make_core("mnm-p" if write_rule == "local" else "mnm-g", 16, kernel=kernel, **sizes)
    assert isinstance(core, MNMCore)
    return core.to(job.device, dtype)


def _everything(core: MNMCore, inputs: Tensor, resets: Tensor) -> list[Tensor]:
    """Results and gradients."""
    output = core(inputs, None, resets)
    loss = output.outputs.square().mean() + output.meta_loss.mean()
    gradients = torch.autograd.grad(loss, list(core.parameters()), allow_unused=True)
    return [output.outputs, output.meta_loss, *output.state, *[g for g in gradients if g is not None]]


def races(job: Job, note: Note) -> None:
    """The same problem again and again: other bits than the first time mean that threads did not wait."""
    steps, batch, most = (2, 1, 2) if job.dry_run else (60, 128, 200)
    inputs = torch.randn(steps, batch, 16).to(job.device)
    resets = (torch.rand(steps, batch) < 0.05).to(job.device)
    ends = time.monotonic() + 0.8 * job.seconds
    rules = ("local", "gradient")
    for number, rule in enumerate(rules):
        core = _memory_core(job, "triton", rule)
        first, others, runs = _everything(core, inputs, resets), 0, 1
        limit = ends - (len(rules) - 1 - number) * (ends - time.monotonic()) / (len(rules) - number)
        while runs < most and (time.monotonic() < limit or runs < 2):
            again = _everything(core, inputs, resets)
            others += not all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
            runs += 1
        exact_core = _memory_core(job, "torch", rule, torch.float64)
        exact = _everything(exact_core, inputs.double(), resets)
        error = max(
            float((a - b).norm() / b.norm().clamp(min=1e-12)) for a, b in zip(first, exact, strict=True)
        )
        note(rule=rule, runs=runs, other_bits=others, largest_error_against_float64=error)
        if others or not error < 1e-2:
            raise RuntimeError(f"{rule}: {others} of {runs} runs gave other bits, the error is {error:.2g}")


LAUNCH = """
import torch
from mnm_rl import make_core
sizes = dict(hidden_size=5, key_size=4, value_size=3, memory_widths=(6,), heads=2)
core = make_core("mnm-p", 3, kernel="triton", **sizes).to("cuda")
core(torch.randn(3, 2, 3, device="cuda")).outputs.sum().backward()
torch.cuda.synchronize()
"""


def sanitizer(job: Job, note: Note) -> None:
    """One small launch under each of compute-sanitizer's tools."""
    program = shutil.which("compute-sanitizer")
    if program is None or job.device == "cpu":
        note(said="left out: there is no compute-sanitizer on the path" if program is None else "left out")
        return
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    faults = []
    for tool in TOOLS:
        call = [program, "--tool", tool, "--error-exitcode", "7", sys.executable, "-c", LAUNCH]
        ended = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
        print(ended.stdout, ended.stderr, flush=True)
        note(tool=tool, status=ended.returncode)
        faults += [tool] if ended.returncode else []
    if faults:
        raise RuntimeError(f"compute-sanitizer found something: {', '.join(faults)}")


def peaks(job: Job, note: Note) -> None:
    """What matrix products and copies reach on this card, at their best."""
    size = 128 if job.dry_run else 8192
    kinds: dict[str, tuple[torch.dtype, str]] = {
        "float32": (torch.float32, "highest"),
        "tf32": (torch.float32, "high"),
        "bfloat16": (torch.bfloat16, "highest"),
    }
    for name, (dtype, precision) in kinds.items():
        torch.set_float32_matmul_precision(precision)
        a, b = (torch.randn(size, size, device=job.device).to(dtype) for _ in range(2))
        best = seconds_of(lambda a=a, b=b: torch.mm(a, b), job, 10)
        note(product=name, gflops=2 * size**3 / best / 1e9)
    torch.set_float32_matmul_precision("highest")
    for name, count in (("copy of 1 GiB", 2**28), ("copy of 8 MiB, from the second-level cache", 2**21)):
        source = torch.randn(count // 2**12 if job.dry_run else count, device=job.device)
        target = torch.empty_like(source)
        best = seconds_of(lambda source=source, target=target: target.copy_(source), job, 20)
        note(copy=name, gbytes=2 * source.numel() * 4 / best / 1e9)
    synchronize(job)


__all__ = ["Job", "Unit", "all_units"]

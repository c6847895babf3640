"""Everything that a first run on a GPU should tell, in one command, without a network.

    python benchmarks/gpu.py --out FOLDER --minutes 30
    python benchmarks/gpu.py --out FOLDER --minutes 9 --babi tasks_1-20_v1-2.tar.gz --babi-supplement
    python benchmarks/gpu.py --out FOLDER --minutes 1 --dry-run

In this order: versions and the card; the tests of the kernels with real launches, twice; the same problem
many times, which must give the same bits; compute-sanitizer where there is one; the card's own peaks; the
time loop as plain torch, in CUDA graphs and in Triton; an LSTM of cuDNN and a delta rule of
flash-linear-attention at the same sizes; training on bAbI; and A2C on the processor and on the GPU.

Each part is a process of its own with a share of the minutes, so that one that crashes or hangs ends alone.
What it finds is written to the folder at once: ``records.jsonl``, a readable ``summary.md``, what each part
printed under ``logs``, and the run ``babi``. The same command again goes on with what is missing.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpu_parts import Job, Unit, all_units
from gpu_records import Records, write_summary

from mnm_rl.commands.parsing import parse_all
from mnm_rl.training.command_line import one_sentence_errors
from mnm_rl.training.files import check_writable_directory

LEAST_SECONDS = 5.0
"""A part with less time than this is left for the next call."""
REST = 0.25
"""Of the time is kept for what takes all that the others leave."""


@dataclass(frozen=True)
class Args:
    """What to measure, and where the results go."""

    out: Path
    """Folder for all results; a second call with it goes on."""
    minutes: float = 30.0
    """Of this call; bAbI gets what the other parts leave."""
    babi: Path | None = None
    """Archive or folder with the official bAbI files; generated questions are taken without it."""
    babi_supplement: bool = False
    """Fill up task 3's missing training file with synthetic stories, which lie beside the archive."""
    babi_kernel: Literal["auto", "torch", "graphs", "triton"] = "auto"
    """What runs the time loop in bAbI's training."""
    iterations: int = 62_000
    """Of the whole bAbI run."""
    parts: tuple[str, ...] = ()
    """Only those whose names begin so, such as scan or "scan maze"; all if not given."""
    dry_run: bool = False
    """All parts on the CPU, with Triton's interpreter and tiny sizes: the numbers mean nothing."""


def check(args: Args) -> None:
    """Make sure that the options can be had, before any work.

    Raises:
        ValueError: they cannot.
    """
    if not (args.minutes > 0 and math.isfinite(args.minutes)):
        raise ValueError(f"minutes must be a positive number, got {args.minutes}.")
    if args.iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {args.iterations}.")
    if args.babi is not None and not args.babi.exists():
        raise ValueError(f"There is no {args.babi}; babi must be an archive or a folder with the bAbI files.")
    if args.babi_supplement and args.babi is None:
        raise ValueError("babi_supplement needs babi, beside which its files lie.")
    known = [unit.name for unit in all_units(args.dry_run)]
    for part in args.parts:
        if not any(name.startswith(part) for name in known):
            raise ValueError(f"parts must begin like {', '.join(known)}; got {part!r}.")
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"{args.out} is a file, not a folder.")
    check_writable_directory(args.out)
    if not args.dry_run and in_child(_no_gpu, 120.0) != 0:
        raise ValueError("There is no cuda device here; --dry-run does all of it on the CPU.")


def _no_gpu() -> int:
    import torch

    return 0 if torch.cuda.is_available() else 1


def in_child(work: Any, seconds: float, log: Path | None = None) -> int | None:
    """Run ``work`` in a process group of its own; its status, or ``None`` if it had to be ended.

    The child is forked: everything is imported already, and this process never touches the GPU.
    """
    process = multiprocessing.get_context("fork").Process(target=_child, args=(work, log), daemon=False)
    process.start()
    try:
        process.join(seconds)
        return process.exitcode
    finally:
        if process.pid is not None and process.exitcode is None:
            _end_group(process.pid)
            process.join()


def _end_group(number: int) -> None:
    try:
        os.killpg(number, signal.SIGKILL)
    except ProcessLookupError:  # it has no group of its own yet
        os.kill(number, signal.SIGKILL)


def _child(work: Any, log: Path | None) -> None:
    os.setsid()
    if log is not None:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
    status = 1
    try:
        status = work() or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run_unit(unit: Unit, job: Job, records: Records) -> None:
    """One part, and how it ended, as records."""
    log = job.out / "logs" / f"{unit.name.replace(' ', '-')}.log"

    def work() -> int:
        unit.work(job, lambda **fields: records.add(unit.name, **fields))
        return 0

    started = time.monotonic()
    status = in_child(work, job.seconds, log)
    took = round(time.monotonic() - started, 1)
    records.reload()
    if status == 0:
        if unit.name not in records.states():
            records.add(unit.name, state="done", seconds=took)
        return
    reason = f"ended after its {job.seconds:.0f} s" if status is None else _reason(log, status)
    records.add(unit.name, state="failed", seconds=took, reason=reason)


def _reason(log: Path, status: int) -> str:
    """The last line that a part printed, such as the message of its error."""
    if status < 0:
        return f"ended by signal {signal.Signals(-status).name}"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"ended with status {status}"


def time_for(unit: Unit, later: list[Unit], left: float) -> float:
    """Seconds for a part out of those that are left; what is done already makes the others' shares larger."""
    reserved = sum(other.share for other in later)
    rest = REST if 0 in (unit.share, *(other.share for other in later)) else 0.0
    return left * (unit.share or rest) / (unit.share + reserved + rest)


def main(args: Args) -> int:
    """Run what is missing; the exit status is 1 if a part failed."""
    # Whether there is a GPU is asked of its driver alone: a process that has used one cannot be forked.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    check(args)
    (args.out / "logs").mkdir(parents=True, exist_ok=True)
    records = Records(args.out, args.dry_run)
    if args.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported
    units = [unit for unit in all_units(args.dry_run) if unit.name.startswith(args.parts or ("",))]
    units = [unit for unit in units if records.states().get(unit.name) != "done"]
    for unit in units:
        records.forget(unit.name, keep=unit.goes_on)
    deadline = time.monotonic() + 60 * args.minutes
    for place, unit in enumerate(units):
        left = deadline - time.monotonic()
        seconds = left if args.dry_run else time_for(unit, units[place + 1 :], left)
        if seconds < LEAST_SECONDS:
            records.add(unit.name, state="left out", reason="no time was left")
            continue
        print(f"{unit.name}: at most {seconds:.0f} s", flush=True)
        job = Job(
            args.out,
            args.dry_run,
            seconds,
            args.babi,
            args.babi_supplement,
            args.babi_kernel,
            args.iterations,
        )
        run_unit(unit, job, records)
        write_summary(args.out, records)
    write_summary(args.out, records)
    print(f"{args.out / 'summary.md'} says what was found.")
    failed = [name for name, state in records.states().items() if state == "failed"]
    if failed:
        print(f"Failed: {', '.join(failed)}; the same command tries them again.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    with one_sentence_errors("gpu.py"):
        sys.exit(main(parse_all(Args, __doc__)))

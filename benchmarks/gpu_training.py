"""Training in ``gpu.py``: bAbI for as long as there is time, and steps per second of A2C."""

from __future__ import annotations

import csv
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import a2c
from gpu_job import Job, Note
from turns import time_in_turns

ROOT = Path(__file__).parent.parent
TINY_RUN = {
    "iterations": 2,
    "batch-size": 2,
    "log-every": 1,
    "embedding-size": 4,
    "core.hidden-size": 4,
    "core.key-size": 3,
    "core.value-size": 3,
    "core.memory-widths": 3,
    "core.heads": 1,
}
TO_SAVE = 30.0
"""Seconds for the last checkpoint."""


def babi(job: Job, note: Note) -> None:
    """Train on bAbI's 20 tasks until the time is over; the run in the folder goes on in the next call."""
    run = job.out / "babi"
    data = "official files" if job.babi else "generated questions, because --babi was not given"
    call = [sys.executable, str(ROOT / "scripts" / "train_supervised.py"), "--device", job.device, "--quiet"]
    if (run / "checkpoint.pt").exists():
        call += ["--resume", str(run)]
    else:
        call += ["--log-dir", str(run), "--task", "babi", *_data(job), *_settings(job)]
    process = subprocess.Popen(call, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        said = process.communicate(timeout=max(0.8 * job.seconds, job.seconds - 2 * TO_SAVE))[1]
        stopped = False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        said, stopped = process.communicate()[1], True
    print(said, flush=True)
    train, valid = _rows(run / "train.csv"), _rows(run / "valid.csv")
    if train:
        note(
            data=data, **_speed(train), **{name: float(train[-1][name]) for name in ("loss", "answer_error")}
        )
    if valid:
        note(
            validated_at=int(valid[-1]["iteration"]), validation_answer_error=float(valid[-1]["answer_error"])
        )
    if stopped:
        note(state="unfinished", reason="the time was over; the same command goes on")
    elif process.returncode != 0:
        raise RuntimeError(said.strip().splitlines()[-1] if said.strip() else "train_supervised.py ended")


def _data(job: Job) -> list[str]:
    if job.dry_run:
        from mnm_rl.tasks.babi.generate import Sizes, write_files

        files = job.out / "babi-files"
        if not files.exists():
            write_files(files, Sizes(100, 10, 10))
        return ["--data", str(files.absolute()), "--babi-size", "1k"]
    if job.babi is None:
        return ["--babi-origin", "generated"]
    return ["--data", str(job.babi.absolute()), *(["--babi-supplement"] if job.babi_supplement else [])]


def _settings(job: Job) -> list[str]:
    if job.dry_run:
        words = [word for name, value in TINY_RUN.items() for word in (f"--{name}", str(value))]
        return [*words, "--no-tensorboard"]
    words = ["--babi-repeat", "auto", "--schedule", "linear", "--iterations", str(job.iterations)]
    return [*words, "--core.kernel", job.babi_kernel, "--analyze-every", "0", "--checkpoint-minutes", "1"]


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


def _speed(rows: list[dict[str, str]]) -> dict[str, Any]:
    """Iterations so far, and the median of their time from row to row."""
    places = [(int(row["iteration"]), float(row["seconds"])) for row in rows]
    steps = [(later[1] - one[1]) / (later[0] - one[0]) for one, later in pairwise(places)]
    found: dict[str, Any] = {"iterations": places[-1][0], "seconds_of_training": places[-1][1]}
    return {**found, "seconds_per_iteration": statistics.median(steps)} if steps else found


def a2c_unit(device: str) -> Callable[[Job, Note], None]:
    """Steps per second of A2C in the maze, with an LSTM and with MNM-p, on a device."""

    def work(job: Job, note: Note) -> None:
        sizes: dict[str, Any] = (
            dict(n_envs=2, n_steps=4, hidden_size=4, updates=1, rounds=1) if job.dry_run else {}
        )
        args = a2c.Args(**sizes)
        small = dict(hidden_size=4, key_size=3, value_size=3, memory_widths=(3,)) if job.dry_run else {}
        contenders = {
            "lstm": a2c.recurrent_a2c(args, "lstm", device, hidden_size=args.hidden_size),
            "mnm-p": a2c.recurrent_a2c(args, "mnm-p", device, **small),
        }
        for core, train in contenders.items():
            rounds = 1 if job.dry_run else 3
            rates = time_in_turns({core: train}, args.updates, rounds, args.n_envs * args.n_steps)[core]
            note(device=device, core=core, steps_per_second=statistics.median(rates))

    return work

"""Run a trial to its end in a process of its own, going on from wherever its folder is."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mnm_rl.reproduction.testing import read_test_errors
from mnm_rl.reproduction.trials import Job, can_go_on, has_run, is_trained, resume_command, start_command
from mnm_rl.training.folder import TEST_FILE

ATTEMPTS = 3
"""So often a process that was killed from outside is started in one call."""
LAST_LINES = 6
SECONDS_TO_SAVE = 120
"""A process that is told to end gets this long to write its checkpoint."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    name: str
    error: str | None = None
    """Why it failed, with the last lines that it printed."""


class Stopped(Exception):
    """The sweep is being stopped; the trial has saved its checkpoint."""


class _Failed(Exception):
    """A process ended with an error."""


def run_job(job: Job, stop: threading.Event | None = None) -> Outcome:
    """Train and test a trial; does nothing if both are done.

    A trial whose run has gone on since it was tested is tested again.

    Where another process is at the same trial, this waits until it has ended.

    Args:
        job: the trial.
        stop: once set, the trial saves a checkpoint and ends.

    Raises:
        Stopped: ``stop`` was set.
    """
    stop = stop or threading.Event()
    job.log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _alone(job, stop) as lock:
            if not is_trained(job):
                (job.folder / TEST_FILE).unlink(missing_ok=True)
                _train(job, lock, stop)
            if job.program.tested and read_test_errors(job.folder) is None:
                command = [sys.executable, "-m", "mnm_rl.reproduction.testing", str(job.folder)]
                _run(job, command, lock, stop)
    except (_Failed, ValueError, OSError) as error:
        return Outcome(job.trial.name, str(error))
    return Outcome(job.trial.name)


@contextmanager
def _alone(job: Job, stop: threading.Event) -> Iterator[IO]:
    """Hold the trial's lock.

    The processes that train inherit it: if this one is killed, one that lives on still keeps others away.
    """
    with job.log.with_suffix(".lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if stop.wait(1):
                    raise Stopped from None
        yield lock


def _train(job: Job, lock: IO, stop: threading.Event) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        if has_run(job) and can_go_on(job):
            command = resume_command(job)
        else:
            shutil.rmtree(job.folder, ignore_errors=True)
            command = start_command(job)
        try:
            return _run(job, command, lock, stop)
        except _Killed:
            if attempt == ATTEMPTS:
                raise


class _Killed(_Failed):
    """A process was killed from outside."""


def _run(job: Job, command: list[str], lock: IO, stop: threading.Event) -> None:
    """Run a command, its output appended to the trial's log."""
    with job.log.open("a") as log:
        log.write(f"$ {' '.join(command)}\n")
        log.flush()
        status = _wait(_start(command, log, lock), stop)
    if stop.is_set() and status:
        raise Stopped
    if status:
        killed = status < 0
        how = f"killed by {signal.Signals(-status).name}" if killed else f"exit status {status}"
        raise (_Killed if killed else _Failed)(f"{how}, {job.log} ends with:\n{last_lines(job.log)}")


def _start(command: list[str], log: IO, lock: IO) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        # With more threads, several processes slow each other down many times over.
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        pass_fds=(lock.fileno(),),
        # Ctrl-C in a terminal goes to all processes of a session: this one alone passes it on.
        start_new_session=True,
    )


def _wait(process: subprocess.Popen, stop: threading.Event) -> int:
    """The exit status; tells the process to save and end if this one has to."""
    try:
        while process.poll() is None and not stop.wait(0.05):
            pass
    finally:
        if process.poll() is None:
            _end(process)
    return process.returncode


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    deadline = time.monotonic() + SECONDS_TO_SAVE
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if process.poll() is None:
        process.kill()
        process.wait()


def last_lines(path: Path) -> str:
    """The end of a log, indented."""
    lines = [line.rstrip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return "\n".join(f"    {line}" for line in lines[-LAST_LINES:])

"""Run many trials: side by side on this machine, or on a Ray cluster."""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any

from mnm_rl.reproduction.processes import ATTEMPTS, Outcome, run_job
from mnm_rl.reproduction.trials import Job

Report = Callable[[Outcome], None]


def default_workers() -> int:
    """One trial for each processor core that this process may use; each trial has one thread."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_locally(jobs: Sequence[Job], workers: int, report: Report) -> list[Outcome]:
    """Run trials side by side on this machine.

    A KeyboardInterrupt lets the trials that run write their checkpoints, and is raised again.

    Args:
        jobs: the trials.
        workers: so many at once.
        report: called in this thread whenever a trial has ended.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(run_job, job, stop) for job in jobs]
        try:
            return [_reported(done, report) for done in as_completed(running)]
        except BaseException:
            stop.set()
            for future in running:
                future.cancel()
            raise


def check_ray() -> None:
    """Make sure that Ray is installed.

    Raises:
        ValueError: it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise ValueError("--ray-address needs Ray: pip install 'mnm-rl[ray]'.")


def run_on_ray(jobs: Sequence[Job], address: str, report: Report) -> list[Outcome]:
    """Run trials on a Ray cluster, one processor each.

    All machines have to see the same folders, and this package at the same place. A trial whose machine or
    worker is lost goes on from its checkpoint on another one.

    Args:
        jobs: the trials.
        address: of the cluster: ``auto``, ``ray://HOST:PORT``, or ``local`` for one on this machine.
        report: called whenever a trial has ended.

    Raises:
        ValueError: Ray is not installed, or there is no cluster at the address.
    """
    check_ray()
    ray: Any = importlib.import_module("ray")  # its types are incomplete

    try:
        # A cluster of our own needs no web page; one that exists does not take the option.
        own = {"include_dashboard": False} if address == "local" else {}
        ray.init(address=address, log_to_driver=False, logging_level="warning", **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"There is no Ray cluster at {address}: {reason}") from error
    try:
        remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS)(run_job)
        waiting = {remote.remote(job): job for job in jobs}
        outcomes = []
        while waiting:
            for done in ray.wait(list(waiting))[0]:
                job = waiting.pop(done)
                try:
                    outcome = ray.get(done)
                except ray.exceptions.RayError as error:
                    outcome = Outcome(job.trial.name, f"Ray lost it: {str(error).splitlines()[0]}")
                outcomes.append(outcome)
                report(outcome)
        return outcomes
    finally:
        ray.shutdown()


def _reported(done: Future[Outcome], report: Report) -> Outcome:
    outcome = done.result()
    report(outcome)
    return outcome

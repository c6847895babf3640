"""Where a run computes, and in how many processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import torch
from torch import distributed

from mnm_rl.updates import process_share

MOST_THREADS = 1024


def set_up_torch(device: str, threads: int) -> None:
    """Set torch's processor threads, and make sure that the device is there.

    Raises:
        ValueError: fewer than one thread or far too many, or no such device.
    """
    if not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"threads must be at least 1 and at most {MOST_THREADS}, got {threads}.")
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {device!r}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("There is no cuda device here; use --device cpu.")
    torch.set_num_threads(threads)


def join_processes(device: str) -> bool:
    """Where torchrun started this program several times, let the processes find each other.

    Args:
        device: cpu, where they talk by gloo, or cuda, by NCCL.

    Returns:
        whether this process is the one that writes files and shows progress.
    """
    if "WORLD_SIZE" in os.environ and not distributed.is_initialized():
        distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    return process_share()[0] == 0


def leave_processes() -> None:
    """The inverse of :func:`join_processes`, at the end of a program however it comes."""
    if distributed.is_available() and distributed.is_initialized():
        # As soon as one process has ended, torchrun sends this to the others, which are ending, too.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        distributed.destroy_process_group()


def first_process_only(act: Callable[[], object]) -> None:
    """Do something in the first process; where it fails, it says so alone and the others end with it."""
    rank, processes = process_share()
    if processes == 1:
        act()
        return
    done = [False]
    try:
        if rank == 0:
            act()
            done = [True]
    finally:
        distributed.broadcast_object_list(done)
    if not done[0]:
        sys.exit(2)


def own_device(device: torch.device | str) -> torch.device:
    """The device, or this process's own GPU if several share the work and ``"cuda"`` has no number.

    Raises:
        ValueError: there are fewer GPUs here than processes.
    """
    device = torch.device(device)
    if device.type != "cuda" or device.index is not None or process_share()[1] == 1:
        return device
    # torchrun's number of the process on this machine; other starters may number them over all machines.
    number, there = os.environ.get("LOCAL_RANK"), torch.cuda.device_count()
    local = int(number) if number is not None else process_share()[0] % max(1, there)
    if local >= there:
        raise ValueError(
            f"Process {local} on this machine has no GPU of its own: there are {there} for all processes."
        )
    device = torch.device("cuda", local)
    torch.cuda.set_device(device)  # also for what does not say where, such as the processes' exchange
    return device

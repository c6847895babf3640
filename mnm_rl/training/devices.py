"""Where a run computes."""

from __future__ import annotations

import torch

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

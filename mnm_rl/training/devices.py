"""Where a run computes."""

from __future__ import annotations

import torch


def set_up_torch(device: str, threads: int) -> None:
    """Set torch's processor threads, and make sure that the device is there.

    Raises:
        ValueError: fewer than one thread, or no such device.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}.")
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {device!r}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("There is no cuda device here; use --device cpu.")
    torch.set_num_threads(threads)

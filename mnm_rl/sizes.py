"""What cannot fit into the memory of this machine, refused before anything is built.

The estimates are lower bounds: what is refused could not have worked, what is let through may still be too
much.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from functools import cache
from pathlib import Path

LARGEST_NUMBER = 2**53
"""Whole numbers up to this one stay exact wherever they are computed with."""
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def check_fits(needed: float, what: str) -> None:
    """Make sure that something can be held in memory.

    Args:
        needed: bytes, at least; infinity for what cannot even be counted.
        what: a phrase for the message, such as ``"a rollout with n_steps 8 and n_envs 2"``.

    Raises:
        ValueError: there is not so much memory.
    """
    if needed > (there := memory_bytes()):
        would = f"at least {_in_words(needed)}" if math.isfinite(needed) else "more than any machine has"
        raise ValueError(
            f"There is not enough memory for {what}: {would} would be needed, {_in_words(there)} are there."
        )


def memory_bytes() -> int:
    """The memory that this process may use at most: the machine's, or less where a limit is set."""
    limits = [_machine_bytes(), *_process_limits()]
    return min(limits)


@cache
def _machine_bytes() -> int:
    limits = [sys.maxsize]
    with contextlib.suppress(ValueError, OSError, AttributeError):  # Windows has no such names
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(ValueError, OSError):
            limits.append(int(Path(path).read_text()))
    return min(limits)


def _process_limits() -> list[int]:
    try:
        import resource
    except ImportError:
        return []
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return [] if limit == resource.RLIM_INFINITY else [limit]


def _in_words(count: float) -> str:
    unit = 0
    while count >= 1024 and unit < len(UNITS) - 1:
        count, unit = count / 1024, unit + 1
    if count >= 2**20:
        return f"{count:.0e} {UNITS[unit]}"
    return f"{count:,.0f} {UNITS[unit]}" if count >= 100 or unit == 0 else f"{count:.1f} {UNITS[unit]}"

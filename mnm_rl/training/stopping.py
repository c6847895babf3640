"""Ctrl-C and SIGTERM end a run where its state is whole."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

AT_ONCE_AFTER = 1.0
"""Tools such as timeout send their signal twice, to the process and to its group; a person takes longer."""


def stop_on_signals(request: Callable[[], None]) -> None:
    """Call ``request`` at the first SIGINT or SIGTERM; a later one raises KeyboardInterrupt at once."""
    first: list[float] = []

    def stop(number: int, frame: object) -> None:
        first.append(time.monotonic())
        request()
        if first[-1] - first[0] > AT_ONCE_AFTER:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)

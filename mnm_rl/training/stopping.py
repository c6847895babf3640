"""Ctrl-C, SIGTERM and a closed terminal (SIGHUP) end a run where its state is whole."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

AT_ONCE_AFTER = 1.0
"""Tools such as timeout send their signal twice, to the process and to its group; a person takes longer."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def stop_on_signals(request: Callable[[], None]) -> None:
    """Call ``request`` at the first signal; a later one raises KeyboardInterrupt at once.

    A signal that the process was started to ignore, as nohup does with SIGHUP, is still ignored.
    """
    first: list[float] = []

    def stop(number: int, frame: object) -> None:
        first.append(time.monotonic())
        request()
        if first[-1] - first[0] > AT_ONCE_AFTER:
            raise KeyboardInterrupt

    for number in SIGNALS:
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)

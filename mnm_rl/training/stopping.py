"""Ctrl-C, SIGTERM and a closed terminal (SIGHUP) end a run where its state is whole."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


@contextmanager
def noticed_interrupts() -> Iterator[Callable[[], bool]]:
    """Ctrl-C raises KeyboardInterrupt as ever, and is remembered.

    An interrupt may come out as another error: Python 3.11 turns it into a SystemError where it is parsing,
    libraries turn whatever happens in their callbacks into errors of their own.

    Yields:
        Tells whether there was one.
    """
    seen: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield lambda: bool(seen)
    finally:
        if in_main_thread and signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)

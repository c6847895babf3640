"""Contenders that train in turns, so that what else runs on the machine hits all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

Contender = Callable[[int], None]
"""Makes so many updates."""


def time_in_turns(
    contenders: Mapping[str, Contender], updates: int, rounds: int, steps_per_update: int
) -> dict[str, list[float]]:
    """Steps per second of every contender in every round, after one update that does not count.

    Args:
        contenders: name -> what is timed.
        updates: of a turn.
        rounds: in each, the contenders take turns.
        steps_per_update: of all environments together.
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for train in contenders.values():
        train(1)
    for _ in range(rounds):
        for name, train in contenders.items():
            started = time.perf_counter()
            train(updates)
            rates[name].append(updates * steps_per_update / (time.perf_counter() - started))
    return rates


def print_rates(title: str, rates: Mapping[str, list[float]], own: str) -> None:
    """A table; the ratio is how many times as many steps ``own`` makes as the contender, by the medians."""
    print(f"{title}, steps/s")
    print(f"{'':32}{'median':>9}{'lowest':>9}{'highest':>9}{'ratio':>8}")
    best = statistics.median(rates[own])
    for name, numbers in rates.items():
        median = statistics.median(numbers)
        print(
            f"{name:32}{median:9,.0f}{min(numbers):9,.0f}{max(numbers):9,.0f}{best / median:8.2f}", flush=True
        )

"""Timing on a busy computer: several ways of doing the same, by turns, and the best time of each.

Where one thread does the work its processor time is taken: what others do meanwhile does not count, apart from what they
throw out of the caches.
"""

import time
from collections.abc import Callable, Sequence

Round = Callable[[], float]  # does the work once and gives the seconds that it took
LEAST_ROUNDS = 4
ROUND_SECONDS = 0.1  # for all rounds of one way of one case


def processor_seconds(work: Callable[[], object]) -> float:
    """Seconds that one call takes of this thread."""
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


def seconds(work: Callable[[], object]) -> float:
    """Seconds from the beginning of one call to its end, for work of several threads."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def best_times(ways: Sequence[Round], least_seconds: float, check: Callable[[], None]) -> list[float]:
    """The best seconds of each way, after one round of each that does not count: it warms caches, and may compile.

    Rounds are made until each way has had `least_seconds`, and LEAST_ROUNDS at least. `check` is called between rounds.
    """
    best = [float("inf")] * len(ways)
    for way in ways:
        check()
        way()
    spent, rounds = 0.0, 0
    while rounds < LEAST_ROUNDS or spent < least_seconds * len(ways):
        for number, way in enumerate(ways):
            check()
            took = way()
            best[number] = min(best[number], took)
            spent += took
        rounds += 1
    return best

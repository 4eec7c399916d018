"""Interrupt acceptance of a local APIC with two sets of vectors, and its timer with exact fractions."""

from fractions import Fraction


class Priorities:
    """IRR, ISR and TPR."""

    def __init__(self) -> None:
        self.requested: set[int] = set()
        self.in_service: set[int] = set()
        self.task_priority = 0

    def processor_priority(self) -> int:
        highest = max(self.in_service, default=0)
        return self.task_priority if self.task_priority // 16 >= highest // 16 else highest // 16 * 16

    def pending(self) -> int | None:
        best = max(self.requested, default=0)
        return best if best // 16 > self.processor_priority() // 16 else None

    def acknowledge(self) -> int | None:
        vector = self.pending()
        if vector is not None:
            self.requested.remove(vector)
            self.in_service.add(vector)
        return vector

    def end_of_interrupt(self) -> None:
        if self.in_service:
            self.in_service.remove(max(self.in_service))


def expiries(
    start_ticks: int, count: int, divisor: int, hz: int, ticks_per_second: int, periodic: bool, until: int
) -> int:
    """How often a timer expires in (start, until]: its clock is counted from power-on, in whole periods."""
    rate = Fraction(hz, ticks_per_second)
    passed = int(until * rate) - int(start_ticks * rate)
    period = count * divisor
    if period == 0:
        return 0
    return passed // period if periodic else min(1, passed // period)

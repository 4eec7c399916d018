"""Rates of guest code: a blob prints "BEGIN phase" and "END phase ops=N", and the lines are timed from outside.

The machine hands over output only when it returns to us, so it is run in steps short enough for the wanted precision. It runs on
one thread, whose processor time is taken: what others do meanwhile does not count.
"""

import re
import time
from collections.abc import Callable
from typing import Any

from vmxemu.configuration import Configuration, InputError

STEP_SECONDS = 0.004
FIRST_STEP_CYCLES = 1 << 20
MARKER = re.compile(rb"^(?:BEGIN (?P<begin>\w+)|END (?P<end>\w+) ops=(?P<ops>\d+))\s*$", re.MULTILINE)


class Stopwatch:
    """Collects the guest's markers and when they came."""

    def __init__(self) -> None:
        self._text = b""
        self._begun: dict[str, float] = {}
        self.phases: dict[str, tuple[int, float]] = {}

    def receive(self, channel: str, data: bytes) -> None:
        """Output of the guest; of the two ports that say the same, the one that costs the guest no time."""
        if channel == "debug":
            self._text += data

    def look(self, now: float) -> None:
        """Note the markers whose lines are complete."""
        whole, newline, self._text = self._text.rpartition(b"\n")
        for marker in MARKER.finditer(whole + newline):
            if begin := marker["begin"]:
                self._begun.setdefault(begin.decode(), now)
            elif (name := marker["end"].decode()) in self._begun and name not in self.phases:
                self.phases[name] = int(marker["ops"]), now - self._begun[name]


def measure(
    machine_class: Any, blob: str, phases: frozenset[str], check: Callable[[], None] = lambda: None
) -> dict[str, tuple[int, float]]:
    """Operations and seconds of each phase; the run ends when all were seen. Raises InputError if one never ends;
    `check` is called between steps and may raise.
    """
    machine = machine_class(Configuration.find(blob))
    watch = Stopwatch()
    machine.on_output(watch.receive)
    step, target = FIRST_STEP_CYCLES, 0
    while not phases <= watch.phases.keys():
        check()
        target = int(machine.cycles) + step
        before = time.thread_time()
        result = machine.run(until=target)
        now = time.thread_time()
        watch.look(now)
        if result.reason.upper() != "UNTIL":
            break
        spent = now - before
        step = max(min(int(step * STEP_SECONDS / max(spent, 1e-6)), step * 2), 1 << 12)
    if missing := sorted(phases - watch.phases.keys()):
        raise InputError(blob, f"ended ({result.reason}) before its phase {missing[0]} did; {result.message}")
    return watch.phases

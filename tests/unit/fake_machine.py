"""A stand-in for vmxemu.machine, so that the command line can be tested without a guest.

The image's bytes choose what it does, see SCRIPTS.
"""

import os
import signal
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vmxemu.trace import events
from vmxemu.trace.digest import Digest
from vmxemu.trace.schema import DTYPE

SCRIPTS = ("ok", "triple_fault", "endless", "crash", "wobbly", "quiet", "phases")


@dataclass
class RunResult:
    """As the machine's."""

    reason: str
    exit_status: int
    message: str = ""
    details: list[str] = field(default_factory=list)


class Machine:
    """Emits a fixed stream of events in three slices; `wobbly` differs from run to run in one event."""

    runs = 0

    def __init__(self, configuration: Any) -> None:
        Machine.runs += 1
        self.configuration = configuration
        self.script = SCRIPTS[configuration.image.data[0]]
        self.cycles = self.instructions = self.exits = 0
        self.phase = ""
        self._output: list[Callable[[str, bytes], None]] = []
        self._observers: list[Callable[[Any], None]] = []
        self._digest = Digest(tuple(rule.name for rule in configuration.policy))

    def on_output(self, callback: Callable[[str, bytes], None]) -> None:
        self._output.append(callback)

    def on_events(self, callback: Callable[[Any], None]) -> None:
        self._observers.append(callback)

    def run(self, until: int | None = None, on_slice: Callable[[Any], None] | None = None) -> RunResult:
        if self.script == "phases":
            return self._phases(int(until or 0))
        stream = sample_events()
        if self.script == "wobbly":
            stream["a"][20] = Machine.runs
        slices = np.array_split(stream, 3)
        for number, part in enumerate(slices if self.script != "endless" else endless(slices)):
            self.phase = events.PHASES[min(number + 1, 5)]
            self.cycles = int(part["cycle"][-1])
            self.instructions += 1000
            self.exits += len(part)
            self._digest.add(part)
            for observer in self._observers:
                observer(part)
            for callback in self._output if number < 3 else ():
                callback("serial", b"checksum 1234\n" if number else b"hello\nchecksum 1234\n")
                callback("debug", b"debug\n")
            if self.script == "crash":
                raise RuntimeError("the fake\nmachine is broken")
            if on_slice is not None:
                on_slice(self)
            if until is not None and self.cycles >= until:
                return RunResult("UNTIL", 0)
        if self.script == "triple_fault":
            return RunResult("TRIPLE_FAULT", 3, "triple fault at 0x7c00", ["RIP 0x7c00: ud2", "RAX 0"])
        return RunResult("EXIT_PORT", 0, "")

    def _phases(self, until: int) -> RunResult:
        """Phase b begins at cycle 10 million, ends at 20 million, and the guest ends at 30 million."""
        for cycle, text in ((10**7, b"BEGIN b\n"), (2 * 10**7, b"END b op"), (2 * 10**7 + 1, b"s=77\n")):
            if self.cycles < cycle <= until:
                for callback in self._output:
                    callback("debug", text)
        self.cycles = until
        time.sleep(0.001)
        return RunResult("UNTIL" if until < 3 * 10**7 else "EXIT_PORT", 0)

    def statistics(self) -> dict[str, Any]:
        facts = self._digest.summary()
        translation = {"tlb_hits": np.uint64(12), "references_per_walk": 7.5}
        return {**facts, "virtual_cycles": self.cycles, "wall_seconds": 0.5, "mips": 123.0, "translation": translation}

    def disassemble(self, rip: int, count: int) -> list[str]:
        return [f"nop  ; at {rip:#x}"] * count


def endless(slices: list[Any]) -> Any:
    """Slices without end; with FAKE_SIGNAL set the machine sends itself that signal in the third."""
    number = 0
    while True:
        yield slices[number % 3]
        number += 1
        if number == 3 and (wanted := os.environ.get("FAKE_SIGNAL")):
            os.kill(os.getpid(), int(wanted))
        if number > 3 and "FAKE_SIGNAL" not in os.environ:
            time.sleep(0.02)


def sample_events() -> Any:
    """Thirty events of every sort."""
    stream = np.zeros(30, DTYPE)
    stream["cycle"] = np.arange(30) * 1000
    stream["rip"] = 0xFFFF0 + np.arange(30)
    stream["kind"] = events.VM_EXIT
    stream["level"] = np.arange(30) % 2 + 1
    stream["reason"] = np.where(np.arange(30) % 3, 10, 48)
    stream[0] = (0, 0xFFF0, events.PHASE, 0, 0, 1, 0, 0, 0, 0)
    stream[5] = (5000, 0x100, events.PHASE, 0, 0, 2, 0, 0, 0, 0)
    stream[10] = (10000, 0x200, events.ARRIVAL, 2, 0, 3, 1, 0x123000, 0, 2)
    stream[11] = (11000, 0x200, events.DECISION, 0, 0, 1, 1, 3, 1, 3)
    stream[12] = (12000, 0x200, events.MIGRATION, 0, 0, 0, 0x123000, 0x4123000, 0xF000000, 9000)
    return stream


def warm_up(progress: Callable[[str, int, int], None]) -> None:
    progress("kernel", 1, 2)
    progress("kernel", 2, 2)


def install(modules: dict[str, Any] = sys.modules) -> None:
    """Put the stand-in where `from vmxemu.machine import Machine` finds it."""
    fake = types.ModuleType("vmxemu.machine")
    fake.Machine, fake.warm_up = Machine, warm_up  # type: ignore[attr-defined]
    modules["vmxemu.machine"] = fake


def image(script: str, size: int = 8192) -> bytes:
    """A firmware image that makes the stand-in play the script."""
    return bytes([SCRIPTS.index(script)]) + b"\x90" * (size - 1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    install()
    from vmxemu.cli import main

    sys.exit(main())

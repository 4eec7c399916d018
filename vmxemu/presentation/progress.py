"""What the user sees while a run goes on: a live line on a terminal, a line for each change elsewhere.

Guest output goes to standard output as it comes; the live line, on standard error, steps aside for it.
"""

import sys
import time
from typing import Any, Protocol

from rich.live import Live
from rich.text import Text

from vmxemu.presentation.tables import console, seconds, si
from vmxemu.trace.events import PHASE, PHASES
from vmxemu.trace.schema import Events

REDRAW_SECONDS = 0.1
SLOW_SECONDS = 5.0  # loading compiled kernels takes one; something of them must be missing
COMPILING = "compiling the emulator's kernels (first run only, a minute or two) ..."


class Counters(Protocol):
    """What the line is made of."""

    cycles: int
    instructions: int
    exits: int
    phase: str


class Progress:
    """Feedback of one run. Every method is safe to call in any order; `close` ends the live line."""

    def __init__(self, hertz: int, enabled: bool) -> None:
        self._hertz, self._enabled = hertz, enabled
        self._live = enabled and sys.stderr.isatty()
        self._shares_screen = self._live and sys.stdout.isatty()
        self._line: Live | None = None
        self._guest_at_line_start = True
        self._held: list[str] = []  # lines that wait for the end of the guest's
        self._begun = time.monotonic()
        self._drawn = self._last_instructions = self._last_exits = 0.0
        self._told_compiling = False

    def compiling(self, cold: bool, name: str = "", done: int = 0, total: int = 0) -> None:
        """Kernels are being compiled or loaded; `cold` means that no earlier run has left them."""
        if not self._enabled or not (cold or time.monotonic() - self._begun > SLOW_SECONDS):
            return
        count = f" {done}/{total} {name}" if total else ""
        if self._live:
            self._draw(f"{COMPILING}{count}")
        elif not self._told_compiling:
            print(f"vmxemu: {COMPILING}", file=sys.stderr, flush=True)
        self._told_compiling = True

    def slice(self, machine: Counters) -> None:
        """The run has gone on for a while."""
        if not self._live:
            return
        now = time.monotonic()
        passed = now - self._drawn
        if passed < REDRAW_SECONDS:
            return
        instructions, exits = float(machine.instructions), float(machine.exits)
        if self._drawn:
            speed = f"{si((exits - self._last_exits) / passed)} exits/s  "
            speed += f"{(instructions - self._last_instructions) / passed / 1e6:,.0f} MIPS"
        else:
            speed = ""
        self._drawn, self._last_instructions, self._last_exits = now, instructions, exits
        self._draw(f"{machine.phase}  {seconds(int(machine.cycles) / self._hertz)} virtual  {speed}")

    def events(self, events: Events) -> None:
        """New trace events: where there is no live line, each phase that begins gets a line."""
        if not self._enabled or self._live:
            return
        for event in events[events["kind"] == PHASE]:
            when = seconds(int(event["cycle"]) / self._hertz)
            self._held.append(f"vmxemu: [{when}] {PHASES.get(int(event['reason']), 'phase')}")
        if self._guest_at_line_start:
            self._tell()

    def _tell(self) -> None:
        for line in self._held:
            print(line, file=sys.stderr, flush=True)
        self._held.clear()

    def _draw(self, text: str) -> None:
        if self._shares_screen and not self._guest_at_line_start:
            return
        if self._line is None:
            self._line = Live(console=console(sys.stderr), auto_refresh=False, transient=True, redirect_stdout=False)
            self._line.start()
        self._line.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    def guest(self, data: bytes, stream: Any) -> None:
        """Guest output: write it at once."""
        end = data.find(b"\n") + 1 if self._held else 0
        for part in (data[:end], data[end:]):
            if part:
                if self._shares_screen:
                    self._clear()
                self._guest_at_line_start = part.endswith(b"\n")
                stream.write(part)
                stream.flush()
            if self._guest_at_line_start:
                self._tell()

    def _clear(self) -> None:
        if self._line is not None:
            self._line.stop()
            self._line = None

    def close(self) -> None:
        """No more progress."""
        self._clear()
        self._tell()
        if self._shares_screen and not self._guest_at_line_start:
            print(flush=True)
            self._guest_at_line_start = True
        self._enabled = self._live = False

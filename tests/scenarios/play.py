"""Running a scenario from Python and keeping everything that can be asked of it afterwards."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vmxemu.configuration import Configuration
from vmxemu.machine import Machine, RunResult
from vmxemu.memory.layout import RETIRED
from vmxemu.trace import events as known
from vmxemu.trace.schema import Events, empty

FRAME_BYTES = 4096
PRESENT, LARGE = 7, 1 << 7  # of an EPT entry: any permission; maps a page above the lowest level
ADDRESS = 0x000F_FFFF_FFFF_F000


@dataclass
class Played:
    """A run: the machine as it stands, its serial output, its events."""

    machine: Machine
    result: RunResult | None = None
    output: str = ""
    batches: list[Events] = field(default_factory=list)

    @classmethod
    def start(cls, configuration: Configuration) -> "Played":
        """A machine that has not run yet."""
        played = cls(Machine(configuration))
        played.machine.on_output(played._print)
        played.machine.on_events(played.batches.append)
        return played

    def _print(self, channel: str, data: bytes) -> None:
        if channel == "serial":
            self.output += data.decode("latin-1")

    def run(self, until: int | None = None) -> "Played":
        """Go on, to the end or to a cycle."""
        self.result = self.machine.run(until=until)
        return self

    @property
    def events(self) -> Events:
        """All events so far."""
        return np.concatenate(self.batches) if self.batches else empty()

    def of(self, kind: Any) -> Events:
        """The events of one kind."""
        every = self.events
        return every[every["kind"] == int(kind)]

    @property
    def statistics(self) -> dict[str, Any]:
        return self.machine.statistics()

    def phases(self) -> dict[str, int]:
        """When each phase began."""
        return {row["name"]: row["cycle"] for row in self.statistics["phases"]}

    # ---- tables ----

    def leaves(self, eptp: int, level_of_tables: int = 0) -> dict[int, tuple[int, int]]:
        """Every mapping of an EPT: guest-physical address -> (address behind it, bytes).

        Its tables are read by HPA (level 0) or by VM1's GPA (level 1).
        """
        found: dict[int, tuple[int, int]] = {}
        waiting = [(eptp & ADDRESS, 0, 39)]
        while waiting:
            table, base, shift = waiting.pop()
            entries = np.frombuffer(self.read(table, FRAME_BYTES, level_of_tables), np.uint64).tolist()
            for index, entry in enumerate(entries):
                if not entry & PRESENT:
                    continue
                address = base + (index << shift)
                if shift == 12 or (entry & LARGE and shift < 39):
                    found[address] = (entry & ADDRESS & -(1 << shift), 1 << shift)
                else:
                    waiting.append((entry & ADDRESS, address, shift - 9))
        return found

    def table_pages(self, eptp: int) -> dict[int, bytes]:
        """The bytes of every table page of an EPT that VMM2 has built, by its address in VM1."""
        pages: dict[int, bytes] = {}
        waiting = [(eptp & ADDRESS, 39)]
        while waiting:
            table, shift = waiting.pop()
            pages[table] = self.read(table, FRAME_BYTES, 1)
            if shift == 12:
                continue
            for entry in np.frombuffer(pages[table], np.uint64).tolist():
                if entry & PRESENT and not (entry & LARGE and shift < 39):
                    waiting.append((entry & ADDRESS, shift - 9))
        return pages

    def read(self, address: int, size: int, level: int) -> bytes:
        """Bytes by HPA (level 0) or by a virtual machine's GPA."""
        return self.machine.read_gpa(address, size, level) if level else self.machine.read_hpa(address, size)

    def frames_mapped_by(self, eptp: int) -> set[int]:
        """The frames that an EPT of VMM1 reaches, as numbers of 4-KiB frames below the sequestered region's end."""
        end = self.sequestered.stop // FRAME_BYTES
        frames: set[int] = set()
        for hpa, size in self.leaves(eptp).values():
            frames.update(range(hpa // FRAME_BYTES, min((hpa + size) // FRAME_BYTES, end)))
        return frames

    @property
    def sequestered(self) -> range:
        """The sequestered region's host-physical addresses."""
        memory = self.machine.state.memory
        base = int(memory.sequestered_base)
        return range(base, base + int(memory.sequestered_bytes))

    def retired(self) -> set[int]:
        """The frames that were taken out of use, by HPA."""
        frames = self.of(known.FRAME)
        return set(frames["a"][frames["reason"] == int(RETIRED)].tolist())


def scenario(name: str = "nested-ras", **options: Any) -> Configuration:
    """A shipped scenario; options override it, `inject_only` keeps the injections of these kinds."""
    kinds = options.pop("inject_only", None)
    made = Configuration.find(name, **options)
    if kinds is None:
        return made
    return made.model_copy(update={"inject": tuple(one for one in made.inject if one.kind in kinds)})

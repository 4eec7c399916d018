"""The room used alone, without a machine: memory, builders of tables, translation of one or many addresses.

walker = Walker(ram_bytes=64 << 20)
ept = walker.new_ept()
ept.map(0, 0, size=PAGE_2M, count=32)
guest = walker.new_guest_tables(ept)
guest.map(0x40_0000, 0x10_0000, count=16)
walker.use(guest, ept)
walker.translate(0x40_0123)           # Translation(outcome=0, gpa=0x100123, hpa=0x100123, references=19, ...)
walker.translate_many(addresses)      # (hpas, outcomes), as fast as it gets
walker.translate_in_full(addresses)   # Translations(hpas, outcomes, permissions, references, cycles)
walker.mark_frame(0x10_0000, "poisoned")  # walks that end there say so from now on

`Walker(geometry="skylake-sp")` has the TLBs, walk caches and data caches of a CPU profile; `NO_TLB` has none.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vmxemu.cpu.layout import HF_CS64, Registers
from vmxemu.isa import cpus, memory_types, msrs
from vmxemu.layout import Record
from vmxemu.memory.layout import FAILING, HEALTHY, POISONED, RETIRED
from vmxemu.memory.reservation import reserve
from vmxemu.outcome import DONE, POISON, RETIRED_FRAME
from vmxemu.state import State
from vmxemu.translation import bits
from vmxemu.translation.batch import translate_in_full, translate_many
from vmxemu.translation.geometry import SKYLAKE_SP, Geometry, geometry_of, install
from vmxemu.translation.invalidate import invalidate_all
from vmxemu.translation.layout import READ
from vmxemu.translation.memory_type import memory_type
from vmxemu.translation.rights import KEY_SHIFT
from vmxemu.translation.translate import translate

Addresses = np.ndarray[Any, np.dtype[np.uint64]]
PAGE_4K, PAGE_2M, PAGE_1G = 1 << 12, 1 << 21, 1 << 30
WRITE_BACK = memory_types.NUMBERS["WB"]
GUEST_DEFAULT = int(bits.P | bits.RW | bits.US)
EPT_DEFAULT = int(bits.EPT_READ | bits.EPT_WRITE | bits.EPT_EXECUTE)
FRAME_STATES = {"healthy": int(HEALTHY), "failing": int(FAILING), "poisoned": int(POISONED), "retired": int(RETIRED)}
FRAME_NAMES = {number: name for name, number in FRAME_STATES.items()}


@dataclass(frozen=True, slots=True)
class Translation:
    """One translation as `m.walk` gives it. The outcome is one of vmxemu.outcome: 0 is success. What a failed one does not
    have is None; POISON and RETIRED_FRAME have addresses and `frame_state`, one of FRAME_STATES.
    """

    outcome: int
    gpa: int | None
    hpa: int | None
    page_bytes: int
    permissions: int
    qualification: int
    references: int
    cycles: int
    memory_type: str | None
    key: int | None
    frame_state: str | None


class Translations(NamedTuple):
    """Many translations: arrays of 64-bit addresses (0 where one failed) and outcomes, PERMIT_*, references, cycles."""

    hpas: Addresses
    outcomes: Addresses
    permissions: "np.ndarray[Any, np.dtype[np.uint8]]"
    references: "np.ndarray[Any, np.dtype[np.uint16]]"
    cycles: "np.ndarray[Any, np.dtype[np.uint32]]"


class Walker:
    """A processor's translation with RAM of its own, in 64-bit mode with CPL 0, paging off and EPT off until `use`."""

    def __init__(
        self, ram_bytes: int = 16 << 20, geometry: Geometry | str = SKYLAKE_SP, physical_bits: int | None = None
    ) -> None:
        """`geometry`: sizes, or the name of a CPU profile, whose physical-address width counts then (else 46 bits). RAM
        costs nothing until it is touched. Raises ValueError for an unknown profile or a geometry that does not fit.
        """
        profile = cpus.load(geometry) if isinstance(geometry, str) else None
        sizes = geometry_of(profile) if profile else geometry
        assert isinstance(sizes, Geometry)
        self.ram = reserve(ram_bytes)
        self._frames = reserve(max(ram_bytes >> 12, 1))
        self._registers = Record(Registers)
        self.m: Any = Record(State)
        self.m.r = self._registers.address
        self.m.memory.ram, self.m.memory.low_bytes = self.ram.ctypes.data, ram_bytes
        self.m.memory.frames, self.m.memory.frame_count = self._frames.ctypes.data, ram_bytes >> 12
        self.m.cpu.physical_bits = physical_bits or (profile.identity.physical_bits if profile else 46)
        self.m.cpu.vmx_msr[bits.EPT_VPID_CAP] = bits.CAP_EXECUTE_ONLY | bits.CAP_2M | bits.CAP_1G
        self.m.r.mode = HF_CS64
        self.m.r.efer = bits.EFER_LMA | bits.EFER_NXE
        self.m.r.cr[4] = bits.CR4_PAE
        self.m.r.pat = msrs.BY_NAME["IA32_PAT"].reset
        self.m.cpu.mtrr_def_type = bits.MTRR_ENABLE | WRITE_BACK
        self._cache_lines = install(self.m, sizes)
        self._next_frame = ram_bytes

    def new_frame(self) -> int:
        """Address of a zeroed frame, taken from the top of RAM. Raises MemoryError when RAM is used up."""
        self._next_frame -= PAGE_4K
        if self._next_frame < 0:
            raise MemoryError("no RAM is left for tables")
        return self._next_frame

    def new_ept(self, levels: int = 4) -> "Tables":
        """An empty EPT."""
        return Tables(self, levels, EPT_DEFAULT, EPT_DEFAULT | WRITE_BACK << 3)

    def new_guest_tables(self, ept: "Tables | None" = None, levels: int = 4) -> "Tables":
        """Empty guest tables. Under an EPT their frames are where that EPT maps their addresses 1:1, or it is made to
        map them so.
        """
        return Tables(self, levels, GUEST_DEFAULT, GUEST_DEFAULT, ept)

    def use(self, guest: "Tables | None", ept: "Tables | None" = None, accessed_dirty: bool = False) -> None:
        """Take tables into use, 64-bit mode; None switches paging or EPT off. Cached translations are dropped."""
        m = self.m
        m.r.cr[0] = bits.CR0_PG | bits.CR0_WP if guest else 0
        m.r.cr[3] = guest.root if guest else 0
        m.r.cr[4] = (int(m.r.cr[4]) & ~int(bits.CR4_LA57)) | (int(bits.CR4_LA57) if guest and guest.levels == 5 else 0)
        m.paging.ept_pointer = (
            0
            if ept is None
            else ept.root | (ept.levels - 1) << 3 | WRITE_BACK | (int(bits.EPTP_AD) if accessed_dirty else 0)
        )
        invalidate_all(m)

    def translate(self, gla: int, access: int = int(READ)) -> Translation:
        """Translate one address."""
        outcome = int(translate(self.m, gla, access))
        walk = self.m.walk
        word = int(walk.word)
        reached = outcome in (DONE, POISON, RETIRED_FRAME)
        return Translation(
            outcome,
            int(walk.gpa) if reached else None,
            int(walk.hpa) if reached else None,
            int(walk.page_bytes),
            int(walk.permissions),
            int(walk.qualification),
            int(walk.references),
            int(walk.cycles),
            memory_types.NAMES[int(memory_type(self.m))] if outcome == 0 else None,
            word >> int(KEY_SHIFT) & 15 if outcome == 0 else None,
            self.frame_state(int(walk.hpa)) if reached else None,
        )

    def translate_many(self, glas: Addresses, access: int = int(READ)) -> tuple[Addresses, Addresses]:
        """Translate an array of addresses in one call: (host-physical addresses, outcomes)."""
        glas = np.ascontiguousarray(glas, np.uint64)
        hpas, outcomes = np.zeros_like(glas), np.zeros_like(glas)
        translate_many(self.m, glas, access, hpas, outcomes)
        return hpas, outcomes

    def translate_in_full(self, glas: Addresses, access: int = int(READ)) -> Translations:
        """The same with permissions, references and cycles of each."""
        glas = np.ascontiguousarray(glas, np.uint64)
        count = len(glas)
        found = Translations(
            np.zeros_like(glas),
            np.zeros_like(glas),
            np.zeros(count, np.uint8),
            np.zeros(count, np.uint16),
            np.zeros(count, np.uint32),
        )
        translate_in_full(self.m, glas, access, *found)
        return found

    def mark_frame(self, hpa: int, state: str) -> None:
        """Set the state of the 4-KiB frame at `hpa`, one of FRAME_STATES. From now on a walk that ends at a poisoned or a
        retired frame ends in POISON or RETIRED_FRAME, and nothing of it is kept in the TLB. What is cached already stays:
        invalidate it, as on hardware. Raises ValueError for another state or an address outside RAM.
        """
        if state not in FRAME_STATES:
            raise ValueError(f"no frame state {state!r}; known: {', '.join(FRAME_STATES)}")
        if not 0 <= hpa < len(self.ram):
            raise ValueError(f"{hpa:#x} is not in RAM")
        self._frames[hpa >> 12] = FRAME_STATES[state]
        self.m.tlb.watch_frames = 1

    def frame_state(self, hpa: int) -> str:
        """The state of the frame at `hpa`; that of what is no RAM is healthy."""
        return FRAME_NAMES[int(self._frames[hpa >> 12]) if hpa < len(self.ram) else int(HEALTHY)]

    def read64(self, hpa: int) -> int:
        """Eight bytes of RAM."""
        return int(self.ram[hpa : hpa + 8].view(np.uint64)[0])

    def write64(self, hpa: int, value: int) -> None:
        """Store eight bytes to RAM."""
        self.ram[hpa : hpa + 8].view(np.uint64)[0] = np.uint64(value)

    def reference_matrix(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """References since `reset_counters` by guest level (row; 0 = the page itself) and EPT level (column; 0 = the
        guest's entry).
        """
        walks_of_ept = self.m.tlb.ept_walks.numpy.reshape(8, 64)[:6].astype(np.int64)
        levels = int(self.m.paging.ept_pointer >> 3 & 7) + 1
        matrix = np.zeros((6, 6), np.int64)
        for last in range(1, levels + 1):
            for first in range(levels + 1):  # 0: the top
                matrix[:, last : (first or levels) + 1] += walks_of_ept[:, 9 * last + first, np.newaxis]
        walks = self.m.tlb.guest_walks.numpy.reshape(8, 8)
        for level in range(1, 6):
            matrix[level, 0] = walks[level:, : level + 1].sum()
        return matrix

    def reset_counters(self) -> None:
        """Set the counters of the TLB and of the data caches to zero; what they hold stays."""
        tlb = self.m.tlb
        tlb.stlb_hits = tlb.walks = tlb.references = tlb.faults = tlb.invalidations = 0
        tlb.walk_clock = tlb.nested_hits = 0
        tlb.table_hits.numpy[:] = tlb.ept_table_hits.numpy[:] = 0
        tlb.ept_walks.numpy[:] = 0
        tlb.guest_walks.numpy[:] = 0
        caches = self.m.caches
        caches.misses = caches.uncached = 0
        for cache in caches.level:
            cache.hits = 0


class Tables:
    """Guest tables or an EPT under construction: `root` and `levels`."""

    def __init__(
        self, walker: Walker, levels: int, table_bits: int, page_bits: int, ept: "Tables | None" = None
    ) -> None:
        self.walker, self.levels, self.table_bits, self.page_bits, self.ept = walker, levels, table_bits, page_bits, ept
        self.root = self._new_table()

    def _new_table(self) -> int:
        frame = self.walker.new_frame()
        if self.ept is not None and self.ept.find(frame) is None:
            self.ept.map(frame, frame)
        return frame

    def entry_address(self, address: int, level: int, create: bool = False) -> int | None:
        """Where the entry of `level` (1 = last) for `address` stands; None if tables are missing and not to be
        created.
        """
        table = self.root
        for above in range(self.levels, level, -1):
            at = table + (address >> 9 * above & 0xFF8)
            entry = self.walker.read64(at)
            if entry & 7 == 0:
                if not create:
                    return None
                entry = self._new_table() | self.table_bits
                self.walker.write64(at, entry)
            elif entry & int(bits.PS) and above < 4:
                return at if not create else self._clash(address, above)
            table = entry & int(bits.FRAME_MASK)
        return table + (address >> 9 * level & 0xFF8)

    @staticmethod
    def _clash(address: int, level: int) -> int:
        raise ValueError(f"a large page of level {level} maps {address:#x} already")

    def find(self, address: int) -> int | None:
        """The entry that maps `address`, or None."""
        at = self.entry_address(address, 1)
        entry = 0 if at is None else self.walker.read64(at)
        return entry if entry & 7 else None

    def map(self, address: int, target: int, size: int = PAGE_4K, count: int = 1, flags: int | None = None) -> None:
        """Map `count` pages of `size` bytes (4K, 2M, 1G) from `address` on to `target` on. `flags`: all bits but the
        frame and PS.
        """
        level = {PAGE_4K: 1, PAGE_2M: 2, PAGE_1G: 3}[size]
        low = np.uint64((self.page_bits if flags is None else flags) | (int(bits.PS) if level > 1 else 0))
        done = 0
        while done < count:  # a table's entries at once
            at = self.entry_address(address + done * size, level, create=True)
            assert at is not None
            here = min(count - done, (PAGE_4K - at % PAGE_4K) // 8)
            frames = np.uint64(target + done * size) + np.arange(here, dtype=np.uint64) * np.uint64(size)
            self.walker.ram[at : at + 8 * here].view(np.uint64)[:] = frames | low
            done += here


# The name by which other rooms ask for it
TableBuilder = Tables

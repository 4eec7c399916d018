"""Unicorn's softmmu TLBs, in place: entering a page without the detour through Unicorn's physical memory map.

A miss in these TLBs calls a function through a pointer in the CPU's class. Unicorn's own function first finds out RIP (a search
among all translated blocks), calls the fill hooks, and looks the physical page up again: two thirds of the time that a miss takes
there. Ours (machine.fill) stands in its place, enters pages of RAM here, and leaves everything else to Unicorn's.
"""

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from vmxemu.cpu.layout import Registers
from vmxemu.engine.layout import PageBacking, PageEntry, PageTable, Softmmu
from vmxemu.engine.library import UC, EngineError
from vmxemu.jit import cast_to, kernel
from vmxemu.layout import Record
from vmxemu.layout import u64 as U

if TYPE_CHECKING:
    from vmxemu.state import State

CPU_POINTER = 440  # uc_struct: address of the CPU
STATE_IN_CPU = 0x8A50  # the CPU: CPUX86State begins at this byte
CLASS_BYTES = 0x4000  # behind the state stands the class; its pointers are within so many bytes
FIRST_MASK = 255 * 64  # a table begins with 256 entries
OWNER_IN_CPU = U(STATE_IN_CPU + Registers.FIELDS["owner"].offset)
PAGE_BITS = U(0xFFFF_FFFF_FFFF_F000)
ABSENT = U(0xFFFF_FFFF_FFFF_FFFF)
WATCHED = U(1 << 10)  # TLB_NOTDIRTY: the first store looks for translated code
PLAIN = U(1)  # MEMTXATTRS_UNSPECIFIED
READ, WRITE, EXECUTE = U(1), U(2), U(4)
VICTIMS = U(8)
TRIAL_PAGE, TRIAL_TABLE = 0x7000, 2
entry_at = cast_to(PageEntry)
backing_at = cast_to(PageBacking)


@kernel
def enter_page(m: "State", number: int, page: int, hpa: int, host: int, backing: int, granted: int) -> None:
    """Enter a page of RAM in TLB `number` exactly as Unicorn would: what was there becomes a victim.

    `backing`: Unicorn's own address of the frame. Which pages the guest will miss must not depend on who entered them.
    """
    softmmu = m.engine.softmmu
    table, mask = softmmu.tables[number], softmmu.fast[number].mask
    entry = entry_at(softmmu.fast[number].entries + (page >> 6 & mask))
    behind = backing_at(table.backing + (page >> 8 & mask >> 2))
    softmmu.dirty = softmmu.dirty | 1 << number
    for i in range(VICTIMS):
        victim = table.victims[i]
        if (victim.read & victim.write & victim.code) & PAGE_BITS == page:
            forget(table, victim)
    before = entry.read & entry.write & entry.code
    if before & PAGE_BITS != page and before != ABSENT:
        place = table.next_victim & VICTIMS - 1
        table.next_victim = table.next_victim + 1
        victim = table.victims[place]
        victim.read = entry.read
        victim.write = entry.write
        victim.code = entry.code
        victim.hpa = entry.hpa
        victim.addend = entry.addend
        kept = table.victim_backing[place]
        kept.base = behind.base
        kept.attributes = behind.attributes
        table.used = table.used - 1
    behind.base = backing - page
    behind.attributes = PLAIN
    entry.read = page if granted & READ != 0 else ABSENT
    entry.write = page | WATCHED if granted & WRITE != 0 else ABSENT
    entry.code = page if granted & EXECUTE != 0 else ABSENT
    entry.hpa = hpa
    entry.addend = host - page
    table.used = table.used + 1


@kernel
def forget(table: PageTable, victim: PageEntry) -> None:
    """Empty a victim, unless it is empty and only looks like the last page of all."""
    if victim.read & victim.write & victim.code != ABSENT:
        victim.read = ABSENT
        victim.write = ABSENT
        victim.code = ABSENT
        victim.hpa = ABSENT
        victim.addend = ABSENT
        table.used = table.used - 1


class SoftmmuAccess:
    """Finds the TLBs and the pointer to the fill function, and makes sure that they are what this module takes them for."""

    def __init__(self, handle: int, registers_address: int, first_window: int) -> None:
        """`first_window`: address of `window_begin_ns` of the first table."""
        self._cpu = ctypes.c_uint64.from_address(handle + CPU_POINTER).value
        tables, windows = Softmmu.FIELDS["tables"].offset, PageTable.FIELDS["window_begin_ns"].offset
        self.softmmu = Record(Softmmu, first_window - windows - tables)
        masks = [int(self.softmmu.fast[i].mask) for i in range(3)]
        if registers_address - self._cpu != STATE_IN_CPU or masks != [FIRST_MASK] * 3:
            raise EngineError("this build of Unicorn keeps its TLBs elsewhere than the engine expects")
        words = np.frombuffer(ctypes.string_at(registers_address, CLASS_BYTES), np.uint64)
        ours = ctypes.cast(UC.unicorn_fill_tlb_x86_64, ctypes.c_void_p).value
        (found,) = np.nonzero(words == ours)
        # The class is part of the CPU: what follows further on is left from CPUs that are gone.
        if len(found) == 0:
            raise EngineError("this build of Unicorn calls its TLB fill in another way than the engine expects")
        self._fill_pointer = registers_address + 8 * int(found[0])

    def take_over(self, fill: int) -> None:
        """From now on a miss calls the native function at `fill`."""
        ctypes.c_uint64.from_address(self._fill_pointer).value = fill

    def enter_as_unicorn(self, number: int, page: int, hpa: int, granted: int) -> None:
        """Let Unicorn enter a page in TLB `number`."""
        protection = ctypes.c_int(granted)
        UC.tlb_set_page_x86_64(
            *(ctypes.c_uint64(value) for value in (self._cpu, page, hpa)), protection, ctypes.c_int(number), ctypes.c_uint64(4096)
        )

    def backing_of(self, hpa: int, host: int) -> int:
        """Unicorn's own address of the RAM at `hpa`: it enters a page, and we look. Raises EngineError if we would enter it
        otherwise."""
        self.enter_as_unicorn(TRIAL_TABLE, TRIAL_PAGE, hpa, int(READ | WRITE))
        table, fast = self.softmmu.tables[TRIAL_TABLE], self.softmmu.fast[TRIAL_TABLE]
        index = TRIAL_PAGE >> 12 & int(fast.mask) >> 6
        entry: Any = Record(PageEntry, int(fast.entries) + index * PageEntry.SIZE)
        behind: Any = Record(PageBacking, int(table.backing) + index * PageBacking.SIZE)
        found = [int(value) for value in (entry.read, entry.write, entry.code, entry.hpa, entry.addend)]
        found.append(int(behind.attributes) & 0xFFFFFFFF)
        expected = [TRIAL_PAGE, TRIAL_PAGE | int(WATCHED), int(ABSENT), hpa, host - TRIAL_PAGE, int(PLAIN)]
        if found != expected or int(self.softmmu.dirty) >> TRIAL_TABLE & 1 == 0:
            raise EngineError("this build of Unicorn enters pages in its TLBs in another way than the engine expects")
        return (int(behind.base) + TRIAL_PAGE) & (1 << 64) - 1

"""What a fault takes with it. SDM Vol. 3A, 'Operations that Invalidate TLBs and Paging-Structure Caches' (page faults);
Vol. 3C, 'Operations that Invalidate Cached Mappings' (EPT violations).
"""

from typing import TYPE_CHECKING

from vmxemu.layout import u64 as U
from vmxemu.outcome import FAULT, kind_of
from vmxemu.translation.bits import CR4_PAE
from vmxemu.translation.inline import apart
from vmxemu.translation.tlb import MISS, drop, find, find_in, find_second, guest_physical_space
from vmxemu.translation.tlb_layout import EPT_TABLES, L1D, L1I, NESTED_PAGES, NESTED_TABLES, TABLES

if TYPE_CHECKING:
    from vmxemu.state import State

PAGE = U(12)
LAST_LEVEL = U(5)


@apart
def forget_address(m: "State", gla: int, pcid: int, space: int, outcome: int) -> None:
    """A translation of `gla` has failed: drop what is cached for it in the current address space, and for the
    guest-physical address (`m.walk.gpa`) at which an EPT walk has ended.
    """
    for group in range(2):
        slot = find(m, L1I if group != 0 else L1D, gla, pcid, space)
        if slot != MISS:
            drop(m, slot)
    slot = find_second(m, gla, pcid, space)
    if slot != MISS:
        drop(m, slot)
    if m.tlb.tables_on != 0:
        step = 9 if m.r.cr[4] & CR4_PAE != 0 else 10
        for level in range(2, LAST_LEVEL + 1):
            _forget_table(m, gla, level, step)
    if kind_of(outcome) == FAULT:
        return
    if m.tlb.nested_on | m.tlb.nested_pages_on != 0:
        _forget_guest_physical(m, NESTED_TABLES, PAGE)
        _forget_guest_physical(m, NESTED_PAGES, PAGE)
    if m.tlb.ept_tables_on != 0:
        for level in range(2, LAST_LEVEL + 1):
            _forget_guest_physical(m, EPT_TABLES + level, level * 9 + 3)


@apart
def _forget_table(m: "State", gla: int, level: int, step: int) -> None:
    if m.tlb.arrays[TABLES + level].ways == 0:
        return
    page = gla >> (level - 1) * step + PAGE
    slot = find_in(m, TABLES + level, page, page << PAGE | m.tlb.walk_pcid, m.tlb.walk_space)
    if slot != MISS:
        drop(m, slot)


@apart
def _forget_guest_physical(m: "State", number: int, shift: int) -> None:
    if m.tlb.arrays[number].ways == 0:
        return
    page = m.walk.gpa >> shift
    slot = find_in(m, number, page, page << PAGE, guest_physical_space(m))
    if slot != MISS:
        drop(m, slot)

"""What a fault takes with it. SDM Vol. 3A, 'Operations that Invalidate TLBs and Paging-Structure Caches' (page faults);
Vol. 3C, 'Operations that Invalidate Cached Mappings' (EPT violations).
"""

from typing import TYPE_CHECKING

from vmxemu.layout import u64 as U
from vmxemu.translation.inline import apart
from vmxemu.translation.tlb import MISS, drop, find, find_in, find_second, guest_physical_space
from vmxemu.translation.tlb_layout import L1D, L1I, NESTED_PAGES, NESTED_TABLES, TABLES

if TYPE_CHECKING:
    from vmxemu.state import State

PAGE = U(12)
LAST_LEVEL = U(5)


@apart
def forget_address(m: "State", gla: int, pcid: int, space: int) -> None:
    """A translation of `gla` has failed: drop what is cached for it in the current address space, and for the
    guest-physical address (`m.walk.gpa`) at which an EPT walk may have ended.
    """
    for group in range(2):
        slot = find(m, L1I if group != 0 else L1D, gla, pcid, space)
        if slot != MISS:
            drop(m, slot)
    slot = find_second(m, gla, pcid, space)
    if slot != MISS:
        drop(m, slot)
    if m.tlb.tables_on != 0:
        for level in range(2, LAST_LEVEL + 1):
            _forget_table(m, gla, level, U(9))
        _forget_table(m, gla, U(2), U(10))
    if m.tlb.nested_on | m.tlb.nested_pages_on != 0:
        _forget_nested(m, NESTED_TABLES)
        _forget_nested(m, NESTED_PAGES)


@apart
def _forget_table(m: "State", gla: int, level: int, step: int) -> None:
    if m.tlb.arrays[TABLES + level].ways == 0:
        return
    page = gla >> (level - 1) * step + PAGE
    slot = find_in(m, TABLES + level, page, page << PAGE | m.tlb.walk_pcid, m.tlb.walk_space)
    if slot != MISS:
        drop(m, slot)


@apart
def _forget_nested(m: "State", number: int) -> None:
    if m.tlb.arrays[number].ways == 0:
        return
    page = m.walk.gpa >> PAGE
    slot = find_in(m, number, page, page << PAGE, guest_physical_space(m))
    if slot != MISS:
        drop(m, slot)

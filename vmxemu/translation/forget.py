"""What a failed translation takes with it. SDM Vol. 3A, 'Operations that Invalidate TLBs and Paging-Structure Caches' (page
faults); Vol. 3C, 'Operations that Invalidate Cached Mappings' (EPT violations). Other failures take nothing.
"""

from typing import TYPE_CHECKING

from vmxemu.layout import u64 as U
from vmxemu.outcome import EPT_VIOLATION, FAULT, kind_of
from vmxemu.translation.associative import find_latest
from vmxemu.translation.bits import CR0_PG, CR4_PAE, IS_TRANSLATION
from vmxemu.translation.ept_failure import FAILED
from vmxemu.translation.inline import apart
from vmxemu.translation.invalidate import drop_address, drop_all, drop_tables_of
from vmxemu.translation.replacement import drop
from vmxemu.translation.tlb import MISS, find, find_second, guest_physical_space, vpid_bits
from vmxemu.translation.tlb_layout import EPT_TABLES, L1D, L1I, NESTED_PAGES, NESTED_TABLES, TABLES

if TYPE_CHECKING:
    from vmxemu.state import State

PAGE = U(12)
LAST_LEVEL = U(5)
NINE, TEN = U(9), U(10)


@apart
def forget_failed(m: "State", gla: int, word: int) -> None:
    """The walk in progress has failed (`word`: FAILED and the outcome, the rest is in `m.walk`).

    The engine forgets its own where a page was cached: it holds no more than the TLB does, evictions aside.
    """
    kind = kind_of(word & ~FAILED)
    dropped = m.tlb.refused
    m.tlb.refused = 0
    if m.tlb.eager != 0:
        drop_all(m)
        dropped = U(1)
    elif kind == FAULT:
        vpid = vpid_bits(m, m.paging.vpid)
        dropped = dropped + drop_address(m, gla, vpid, m.tlb.walk_pcid, True)
        drop_tables_of(m, gla, vpid, m.tlb.walk_pcid)
    elif kind == EPT_VIOLATION:
        dropped = dropped + _forget_guest_physical(m)
        if m.walk.qualification & IS_TRANSLATION != 0 and m.r.cr[0] & CR0_PG != 0:
            dropped = dropped + _forget_linear(m, gla)
    if dropped != 0:
        m.engine.flush = 1


@apart
def _forget_guest_physical(m: "State") -> int:
    """What would be used for the guest-physical address of an EPT violation under the current EP4TA. Gives the number of
    pages.
    """
    gpa, space = m.walk.gpa, guest_physical_space(m)
    _forget_in(m, NESTED_TABLES, gpa >> PAGE, U(0), space)
    _forget_in(m, NESTED_PAGES, gpa >> PAGE, U(0), space)
    for level in range(2, LAST_LEVEL + 1):
        _forget_in(m, EPT_TABLES + level, gpa >> (level - 1) * NINE + PAGE, U(0), space)
    return _forget_pages(m, gpa, U(0), space)


@apart
def _forget_linear(m: "State", gla: int) -> int:
    """What would be used for a linear address under the current PCID, VPID and EP4TA. Gives the number of pages."""
    pcid, space = m.tlb.walk_pcid, m.tlb.walk_space
    step = TEN if m.r.cr[4] & CR4_PAE == 0 else NINE
    for level in range(2, LAST_LEVEL + 1):
        _forget_in(m, TABLES + level, gla >> (level - 1) * step + PAGE, pcid, space)
    return _forget_pages(m, gla, pcid, space)


@apart
def _forget_pages(m: "State", address: int, pcid: int, space: int) -> int:
    """An address in the TLBs, in pages of whatever size it is there."""
    dropped = U(0)
    for group in range(3):
        while True:
            slot = find_second(m, address, pcid, space) if group == 2 else find(m, L1I if group == 1 else L1D, address, pcid, space)
            if slot == MISS:
                break
            drop(m, slot)
            dropped = dropped + 1
    return dropped


@apart
def _forget_in(m: "State", number: int, page: int, pcid: int, space: int) -> None:
    """A page in one array."""
    if m.tlb.arrays[number].ways != 0:
        slot = find_latest(m, number, page, page << PAGE | pcid, space)
        if slot != MISS:
            drop(m, slot)

"""Where a stale translation came from, if a walk has found it: the walk cache that spared it a reference.

What a walk keeps has its own time in `m.tlb.clock`; only what is older can have led it astray.
"""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.translation.associative import find_latest
from vmxemu.translation.bits import CR4_PAE, EFER_LMA, FRAME_MASK
from vmxemu.translation.ept_failure import FAILED
from vmxemu.translation.inline import apart
from vmxemu.translation.tlb import MISS, guest_physical_space
from vmxemu.translation.tlb_layout import EPT_TABLES, NESTED_PAGES, NESTED_TABLES, TABLES

if TYPE_CHECKING:
    from vmxemu.state import State

# StaleUse.source
FROM_DTLB, FROM_ITLB, FROM_STLB, FROM_TABLES, FROM_NESTED, FROM_EPT_TABLES, FROM_UNKNOWN = (U(i) for i in range(7))
PAGE = U(12)
LEVELS = U(6)
NINE, TEN = U(9), U(10)


@kernel
def find_source(m: "State", gla: int, word: int) -> int:
    """The walk cache that the latest walk was misled by (FROM_*); when that was filled goes into `m.tlb.birth`.
    `m.walk` is as that walk, `m.tlb.probe` as one without caches has left it.
    """
    birth = m.tlb.birth
    birth.clock = 0
    birth.ticks = 0
    birth.root = 0
    if m.tlb.tables_on != 0:
        slot = _table(m, gla)
        if slot != MISS:
            return _born(m, slot, FROM_TABLES)
    slot = _nested(m, word)
    if slot != MISS:
        return _born(m, slot, FROM_NESTED)
    slot = _ept_table(m)
    return _born(m, slot, FROM_EPT_TABLES) if slot != MISS else FROM_UNKNOWN


@kernel
def _born(m: "State", slot: int, source: int) -> int:
    m.tlb.birth.clock = m.tlb.births[slot].clock
    m.tlb.birth.ticks = m.tlb.births[slot].ticks
    m.tlb.birth.root = m.tlb.births[slot].root
    return source


@kernel
def _older(m: "State", number: int, page: int, tag: int, space: int) -> int:
    """Slot of an entry that was there before this walk, or MISS."""
    if m.tlb.arrays[number].ways == 0:
        return MISS
    slot = find_latest(m, number, page, tag, space)
    return slot if slot != MISS and m.tlb.births[slot].clock != m.tlb.clock else MISS


@apart
def _table(m: "State", gla: int) -> int:
    """The paging-structure cache at which the walk began, if it leads to another table than memory does."""
    step = NINE if m.r.efer & EFER_LMA != 0 or m.r.cr[4] & CR4_PAE != 0 else TEN
    for level in range(2, LEVELS):
        page = gla >> (level - 1) * step + PAGE
        slot = _older(m, TABLES + level, page, page << PAGE | m.tlb.walk_pcid, m.tlb.walk_space)
        if slot != MISS:
            led, leads = m.tlb.entries[slot].word, m.tlb.probe.entry_hpa[level - 1]
            return slot if (led ^ leads) & FRAME_MASK != 0 else MISS
    return MISS


@apart
def _nested(m: "State", word: int) -> int:
    """A nested TLB's entry that gives another frame than memory does, for one of the guest's tables or for the page."""
    space = guest_physical_space(m)
    level = LEVELS
    while level > 1:
        level = level - 1
        page = m.walk.entry_gpa[level] >> PAGE
        if page != 0:
            slot = _older(m, NESTED_TABLES, page, page << PAGE, space)
            leads = m.tlb.probe.entry_hpa[level]
            if slot != MISS and (leads == 0 or (m.tlb.entries[slot].word ^ leads) & FRAME_MASK != 0):
                return slot
    page = m.walk.gpa >> PAGE
    return _older(m, NESTED_PAGES, page, page << PAGE, space) if word & FAILED == 0 else MISS


@apart
def _ept_table(m: "State") -> int:
    """An entry of EPT's paging-structure caches that the walk of a table or of the page may have used."""
    if m.tlb.ept_tables_on == 0:
        return MISS
    for level in range(LEVELS):
        gpa = m.walk.entry_gpa[level] if level != 0 else m.walk.gpa
        for ept_level in range(2, LEVELS):
            page = gpa >> (ept_level - 1) * NINE + PAGE
            slot = _older(m, EPT_TABLES + ept_level, page, page << PAGE, guest_physical_space(m))
            if slot != MISS and gpa != 0:
                return slot
    return MISS

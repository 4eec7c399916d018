"""What spares a walk some of its references: paging-structure caches, and nested TLBs for guest-physical addresses.

SDM Vol. 3A, 'Paging-Structure Caches'; Vol. 3C, 'Information That May Be Cached'. A paging-structure cache of level n
knows where the table is that an entry of level n refers to: with EPT on that is a combined mapping, and it spares the
EPT walk of the table too. A nested TLB knows guest-physical mappings: of pages of the guest's tables, or of the pages
that they map. All are arrays of the TLB's pool: known by the same keys and invalidated in the same way as pages
(translation.tlb), looked up and replaced by translation.associative.
"""

from typing import TYPE_CHECKING

from vmxemu.layout import u64 as U
from vmxemu.translation.associative import find_latest, keep, note_use
from vmxemu.translation.bits import EPT_USER_EXECUTE, EPT_WRITE, FRAME_MASK, RW, US, XD
from vmxemu.translation.ept_failure import ASKED, WANT_SHADOW_STACK
from vmxemu.translation.ept_page import ANSWER_USER_EXECUTE_SHIFT, STORE_READY
from vmxemu.translation.inline import inlined
from vmxemu.translation.journal import note
from vmxemu.translation.layout import STEP_NESTED_TLB, STEP_WALK_CACHE
from vmxemu.translation.replacement import drop
from vmxemu.translation.tlb import MISS, guest_physical_space
from vmxemu.translation.tlb_layout import TABLES

if TYPE_CHECKING:
    from vmxemu.state import State

NOWHERE = U(1)  # no frame has this address
CACHEABILITY = U(0x18)  # PWT and PCD
TABLE_TYPE = U(0xF << 7)  # of an EPT walk's answer, and of a cached table: the EPT memory type and ignore PAT
USER_EXECUTE = U(1) << ANSWER_USER_EXECUTE_SHIFT
PAGE = U(12)


@inlined
def guest_rights(cached: int) -> int:
    """What the cached entry, and those above it, and-ed, say: R/W and U/S; all other bits are 1."""
    return cached | ~(RW | US)


@inlined
def table_executable(cached: int) -> int:
    """The same or-ed: XD."""
    return cached & XD


@inlined
def find_table(m: "State", gla: int, levels: int, step: int) -> tuple[int, int, int, int]:
    """The deepest table for a linear address that is known: its level, host-physical and guest-physical address, and
    the cached entry that refers to it. NOWHERE in the second place, and `levels` in the first, if none is.
    """
    level = U(2)
    while level <= levels:
        number = TABLES + level
        if m.tlb.arrays[number].ways != 0:
            page = gla >> (level - 1) * step + PAGE
            tag = page << PAGE | m.tlb.walk_pcid
            slot = find_latest(m, number, page, tag, m.tlb.walk_space)
            if slot != MISS:
                note_use(m, number, slot)
                m.tlb.table_used = 1
                m.tlb.table_hits[level] = m.tlb.table_hits[level] + 1
                value = m.tlb.entries[slot]
                if m.walk.recording != 0:
                    note(m, STEP_WALK_CACHE, level, level, value.gpa, value.word & FRAME_MASK, value.word, U(0))
                return level - 1, value.word & FRAME_MASK, value.gpa, value.word
        level = level + 1
    return levels, NOWHERE, U(0), U(0)


@inlined
def keep_table(
    m: "State", gla: int, level: int, step: int, hpa: int, gpa: int, both: int, either: int, entry: int, answer: int
) -> None:
    """Remember the table that an entry of `level` refers to. `both`, `either`: this entry and those above it; `answer`:
    of the EPT walk to the table.
    """
    number = TABLES + level
    if m.tlb.arrays[number].ways == 0:
        return
    page = gla >> (level - 1) * step + PAGE
    word = hpa | both & (RW | US) | either & XD | entry & CACHEABILITY | answer & TABLE_TYPE
    keep(m, number, page, page << PAGE | m.tlb.walk_pcid, m.tlb.walk_space, word, gpa)


@inlined
def find_nested(m: "State", number: int, gpa: int, guest_level: int, want: int) -> int:
    """The answer of an EPT walk (translation.ept) for this guest-physical address, if it is known and permits the access;
    else NOWHERE.
    """
    page = gpa >> PAGE
    slot = find_latest(m, number, page, page << PAGE, guest_physical_space(m))
    if slot == MISS:
        return NOWHERE
    answer = m.tlb.entries[slot].word
    permitted = answer & ASKED | (answer & USER_EXECUTE) << 4
    asked = want & (ASKED | EPT_USER_EXECUTE)
    short_of_rights = permitted & asked != asked or (want & EPT_WRITE != 0 and answer & STORE_READY == 0)
    if short_of_rights or want & WANT_SHADOW_STACK != 0:
        drop(m, slot)  # a walk decides, and what it finds takes the place
        return NOWHERE
    note_use(m, number, slot)
    m.tlb.nested_hits = m.tlb.nested_hits + 1
    if m.walk.recording != 0:
        note(m, STEP_NESTED_TLB, U(0), guest_level, gpa, answer & FRAME_MASK, answer, U(0))
    return answer


@inlined
def keep_nested(m: "State", number: int, gpa: int, answer: int) -> None:
    """Remember an EPT walk's answer."""
    page = gpa >> PAGE
    keep(m, number, page, page << PAGE, guest_physical_space(m), answer, gpa >> PAGE << PAGE)

"""The walk of the guest's tables, each of their entries reached through EPT where it is on. SDM Vol. 3A, 'Paging'.

One loop serves all modes, described by three numbers: the address of the first table, its level, and how many address
bits an entry resolves (9 with 8-byte entries, 10 with the 4-byte entries of 32-bit paging). It begins at the first
table, or further down where a walk cache knows the next one.
"""

from typing import TYPE_CHECKING

from vmxemu.layout import u64 as U
from vmxemu.memory.physical import read32
from vmxemu.translation.bits import (
    ADDRESS_MASK,
    CR4_LA57,
    CR4_PAE,
    CR4_PCIDE,
    CR4_PSE,
    EFER_LMA,
    EFER_NXE,
    EPTP_AD,
    FRAME_MASK,
    GLA_VALID,
    PF_PRESENT,
    PF_RESERVED,
    PS,
    XD,
    A,
    P,
)
from vmxemu.translation.data_caches import reference_cycles
from vmxemu.translation.ept import plain_ram, walk_from
from vmxemu.translation.ept_page import read_entry, reserved_bits
from vmxemu.translation.finish import NINE, TEN, finish, page_fault
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.journal import note
from vmxemu.translation.layout import STEP_GUEST
from vmxemu.translation.memory_type import structure_type
from vmxemu.translation.tlb_layout import NESTED_TABLES
from vmxemu.translation.walk_caches import (
    NOWHERE,
    TABLE_TYPE,
    find_nested,
    find_table,
    guest_rights,
    keep_nested,
    keep_table,
    table_executable,
)

if TYPE_CHECKING:
    from vmxemu.state import State

EVERYTHING = U(0xFFFFFFFFFFFFFFFF)
READ_OR_WRITE = U(3)
ABOVE_PAT = U(0xFFFFFFFFFFFFE000)  # of a large page's low address bits, bit 12 is PAT and the others are reserved
PAGE_OFFSET = U(0xFFF)


@inlined
def walk_guest(m: "State", gla: int, access: int, required: int) -> int:
    """Translate a linear address with paging on: the word for the TLB (translation.rights), or FAILED with the
    outcome.
    """
    cr4 = m.r.cr[4]
    root, levels, step = m.r.cr[3], U(4), NINE
    if m.r.efer & EFER_LMA != 0:
        levels = 5 if cr4 & CR4_LA57 != 0 else 4
    elif cr4 & CR4_PAE != 0:
        root, levels = _pdpte(m, gla), U(2)
        if root & P == 0:
            return page_fault(m, access, 0)
    else:
        root, levels, step = root & 0xFFFFFFFF, U(2), TEN
    return _walk(m, gla, access, required, root, levels, step)


@apart
def _pdpte(m: "State", gla: int) -> int:
    index = gla >> 30 & 3
    low = m.paging.pdpte1 if index == 1 else m.paging.pdpte0
    high = m.paging.pdpte3 if index == 3 else m.paging.pdpte2
    return high if index > 1 else low


@inlined
def _walk(m: "State", gla: int, access: int, required: int, root: int, levels: int, step: int) -> int:
    """`root`: what refers to the first table, CR3 or a PDPTE."""
    eptp = m.paging.ept_pointer
    table_access = READ_OR_WRITE if eptp & EPTP_AD != 0 else 1
    reserved = _reserved_bits(m, step)
    ram, plain, ept_reserved = m.memory.ram, plain_ram(m), reserved_bits(m)
    table, level = root & FRAME_MASK, levels
    both, either = EVERYTHING, U(0)
    entry, known = root, NOWHERE
    if m.tlb.tables_on != 0:
        level, known, table, entry = find_table(m, gla, levels, step)
        if known == NOWHERE:
            table, entry = root & FRAME_MASK, root
        else:
            both, either = guest_rights(entry), table_executable(entry)
    first = level
    while True:
        at = _entry_address(table, gla, level, step)
        m.walk.entry_gpa[level] = at
        answer = U(0)
        if known != NOWHERE:
            at = known | at & PAGE_OFFSET
            answer = entry & TABLE_TYPE
            known = NOWHERE
        elif eptp != 0:
            kept = find_nested(m, NESTED_TABLES, at, level, table_access) if m.tlb.nested_on != 0 else NOWHERE
            if kept != NOWHERE:
                answer = kept
                at = kept & FRAME_MASK | at & PAGE_OFFSET
            else:
                failed, found, answer = walk_from(m, eptp, at, table_access, level, ram, plain, ept_reserved)
                if failed != 0:
                    _count(m, first, level + 1)
                    m.walk.qualification = m.walk.qualification | GLA_VALID
                    return failed
                if m.tlb.nested_on != 0:
                    keep_nested(m, NESTED_TABLES, at, found & FRAME_MASK | answer)
                at = found
        if m.tlb.tables_on != 0 and level != first and both & A != 0:
            keep_table(m, gla, level + 1, step, at & FRAME_MASK, table, both, either, entry, answer)
        m.walk.entry_hpa[level] = at
        higher = entry
        entry = read_entry(m, at, ram, plain) if step == NINE else read32(m, at)
        if m.walk.recording | m.caches.on != 0:
            _refer(m, level, at, entry, higher, answer)
        if entry & P == 0 or entry & reserved != 0:
            _count(m, first, level)
            return page_fault(m, access, PF_PRESENT | PF_RESERVED if entry & P != 0 else 0)
        if level == 1:
            break
        if entry & PS != 0 and (step == NINE or m.r.cr[4] & CR4_PSE != 0):
            if _bad_large_page(m, entry, level, step):
                _count(m, first, level)
                return page_fault(m, access, PF_PRESENT | PF_RESERVED)
            break
        both, either = both & entry, either | entry
        table = entry & FRAME_MASK
        level = level - 1
    _count(m, first, level)
    return finish(m, gla, access, required, first, step, level, both, either, entry)


@inlined
def _refer(m: "State", level: int, at: int, entry: int, higher: int, answer: int) -> None:
    """Charge a reference, whose memory type the entry above and EPT decide, and put it into the journal."""
    cycles = U(0)
    if m.caches.on != 0 and m.tlb.probing == 0:
        top = 5 if m.r.cr[4] & CR4_LA57 != 0 else 4
        if m.r.cr[4] & CR4_PCIDE != 0 and level == top:
            higher = U(0)  # CR3 holds a PCID, not PWT and PCD
        cycles = reference_cycles(m, at, structure_type(m, higher, answer, at))
        m.walk.memory_cycles = m.walk.memory_cycles + cycles
    if m.walk.recording != 0:
        note(m, STEP_GUEST, level, level, m.walk.entry_gpa[level], at, entry, cycles)


@inlined
def _count(m: "State", first: int, last: int) -> None:
    """Count the guest's entries read, from level `first` down to `last`; none if that is above."""
    m.walk.references = m.walk.references + (first + 1 - last)
    if m.tlb.probing == 0:
        m.tlb.guest_walks[first * 8 + last] = m.tlb.guest_walks[first * 8 + last] + 1


@inlined
def _entry_address(table: int, gla: int, level: int, step: int) -> int:
    """Guest-physical address of the entry for `gla` in a table of this level."""
    return table | (gla >> level * 9 & 0xFF8 if step == NINE else gla >> level * 10 & 0xFFC)


@inlined
def _reserved_bits(m: "State", step: int) -> int:
    """Bits that must be 0 in every entry of this mode."""
    if step == TEN:
        return 0
    reserved = EVERYTHING << m.cpu.physical_bits
    reserved = reserved & (
        ADDRESS_MASK if m.r.efer & EFER_LMA != 0 else ~XD
    )  # bits 62:52 are reserved in PAE mode only
    return reserved if m.r.efer & EFER_NXE != 0 else reserved | XD


@apart
def _bad_large_page(m: "State", entry: int, level: int, step: int) -> bool:
    """Whether an entry with PS = 1 above the last level has reserved bits set."""
    if step == TEN:
        width = m.cpu.physical_bits if m.cpu.physical_bits < 40 else 40
        return entry & (0x3FFFFF & EVERYTHING << (width - 19)) != 0
    if level > 3 or (level == 3 and m.paging.no_1g_pages != 0):
        return True
    return entry & ((1 << (level * 9 + 3)) - 1) & ABOVE_PAT != 0

"""The walk of the guest's tables, each of their entries reached through EPT where it is on. SDM Vol. 3A, 'Paging'.

One loop serves all modes, described by three numbers: the address of the first table, its level, and how many address
bits an entry resolves (9 with 8-byte entries, 10 with the 4-byte entries of 32-bit paging). Flags are set when the
walk has found that the access is permitted, before the page itself is translated through EPT.
"""

from typing import TYPE_CHECKING

from vmxemu.isa import exceptions
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import read32, read64, write32, write64
from vmxemu.outcome import fault_with
from vmxemu.translation.bits import (
    ADDRESS_MASK,
    CR4_LA57,
    CR4_PAE,
    CR4_PGE,
    CR4_PSE,
    CR4_SMEP,
    EFER_LMA,
    EFER_NXE,
    EPTP_AD,
    FRAME_MASK,
    GLA_VALID,
    IS_TRANSLATION,
    PF_FETCH,
    PF_PRESENT,
    PF_RESERVED,
    PF_USER,
    PF_WRITE,
    PS,
    XD,
    A,
    D,
    G,
    P,
)
from vmxemu.translation.ept import (
    FAILED,
    STORE_READY,
    ept_walk,
    page_class,
    plain_ram,
    read_entry,
    reserved_bits,
    walk_from,
)
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.layout import FETCH, WRITE
from vmxemu.translation.rights import CLASS_SHIFT, GLOBAL, GUEST_CLASS_SHIFT, is_user_access, permitted, rights_of
from vmxemu.translation.tlb_layout import CLASS_4M

if TYPE_CHECKING:
    from vmxemu.state import State

PF = exceptions.PF
NINE, TEN = U(9), U(10)
EVERYTHING = U(0xFFFFFFFFFFFFFFFF)
NO_EPT = U(7) | STORE_READY  # the answer of a walk where there is nothing to walk
READ_OR_WRITE = U(3)
ABOVE_PAT = U(0xFFFFFFFFFFFFE000)  # of a large page's low address bits, bit 12 is PAT and the others are reserved
FLAG_UPDATE = U(7)  # row of tlb.ept_walks for the walks that stores to flags take
PAGE_OFFSET = U(0xFFF)


@inlined
def walk_guest(m: "State", gla: int, access: int, required: int) -> int:
    """Translate a linear address with paging on: the word for the TLB (translation.rights), or FAILED with the
    outcome.
    """
    cr4 = m.r.cr[4]
    if m.r.efer & EFER_LMA != 0:
        levels = 5 if cr4 & CR4_LA57 != 0 else 4
        return _walk(m, gla, access, required, m.r.cr[3] & FRAME_MASK, levels, NINE)
    if cr4 & CR4_PAE != 0:
        pdpte = _pdpte(m, gla)
        if pdpte & P == 0:
            return _page_fault(m, access, 0)
        return _walk(m, gla, access, required, pdpte & FRAME_MASK, 2, NINE)
    return _walk(m, gla, access, required, m.r.cr[3] & 0xFFFFF000, 2, TEN)


@apart
def _pdpte(m: "State", gla: int) -> int:
    index = gla >> 30 & 3
    low = m.paging.pdpte1 if index == 1 else m.paging.pdpte0
    high = m.paging.pdpte3 if index == 3 else m.paging.pdpte2
    return high if index > 1 else low


@inlined
def _walk(m: "State", gla: int, access: int, required: int, root: int, levels: int, step: int) -> int:
    eptp = m.paging.ept_pointer
    table_access = READ_OR_WRITE if eptp & EPTP_AD != 0 else 1
    reserved = _reserved_bits(m, step)
    ram, plain, ept_reserved = m.memory.ram, plain_ram(m), reserved_bits(m)
    table, level = root, levels
    both, either = EVERYTHING, U(0)
    entry = U(0)
    while True:
        at = _entry_address(table, gla, level, step)
        m.walk.entry_gpa[level] = at
        if eptp != 0:
            kept = m.tlb.nested[level]
            if kept.eptp == eptp and kept.gpa == at & FRAME_MASK:
                at = kept.hpa | at & PAGE_OFFSET
            else:
                failed, found, _ = walk_from(m, eptp, at, table_access, level, ram, plain, ept_reserved)
                if failed != 0:
                    _count(m, levels, level + 1)
                    m.walk.qualification = m.walk.qualification | GLA_VALID
                    return failed
                if m.tlb.nested_on != 0:
                    kept.eptp = eptp
                    kept.gpa = at & FRAME_MASK
                    kept.hpa = found & FRAME_MASK
                at = found
        m.walk.entry_hpa[level] = at
        entry = read_entry(m, at, ram, plain) if step == NINE else read32(m, at)
        if entry & P == 0 or entry & reserved != 0:
            _count(m, levels, level)
            return _page_fault(m, access, PF_PRESENT | PF_RESERVED if entry & P != 0 else 0)
        both, either = both & entry, either | entry
        if level == 1:
            break
        if entry & PS != 0 and (step == NINE or m.r.cr[4] & CR4_PSE != 0):
            if _bad_large_page(m, entry, level, step):
                _count(m, levels, level)
                return _page_fault(m, access, PF_PRESENT | PF_RESERVED)
            break
        table = entry & FRAME_MASK
        level = level - 1
    _count(m, levels, level)
    return _finish(m, gla, access, required, levels, step, level, both, either, entry)


@inlined
def _finish(
    m: "State",
    gla: int,
    access: int,
    required: int,
    levels: int,
    step: int,
    level: int,
    both: int,
    either: int,
    entry: int,
) -> int:
    """The walk has reached the entry that maps the page: rights, flags, then the page itself through EPT."""
    if not permitted(rights_of(both, either, 1, NO_EPT), required):
        return _page_fault(m, access, PF_PRESENT)
    eptp = m.paging.ept_pointer
    is_write = access & 3 == WRITE
    if both & A == 0 or (is_write and entry & D == 0):
        failed = _set_flags(m, eptp, is_write, levels, step, level)
        if failed != 0:
            return failed
    gpa = _page_address(gla, entry, level, step)
    m.walk.gpa = gpa
    answer = NO_EPT | (gpa & FRAME_MASK)
    size = level - 1 if level < 4 else 0
    if eptp != 0:
        answer = ept_walk(m, eptp, gpa, 1 << (access & 3), 0)
        if answer & FAILED != 0:
            m.walk.qualification = m.walk.qualification | GLA_VALID | IS_TRANSLATION
            return answer
        size = page_class(answer) if page_class(answer) < size else size
    dirty = 1 if is_write or entry & D != 0 else 0
    guest_class = CLASS_4M if step == TEN and level == 2 else level - 1
    low = ((1 << (size * 9 + 12)) - 1) & FRAME_MASK
    word = (answer & FRAME_MASK & ~low) | size << CLASS_SHIFT | guest_class << GUEST_CLASS_SHIFT
    if entry & G != 0 and m.r.cr[4] & CR4_PGE != 0:
        word = word | GLOBAL
    return word | rights_of(both, either, dirty, answer)


@inlined
def _count(m: "State", first: int, last: int) -> None:
    """Count the guest's entries read, from level `first` down to `last`; none if that is above."""
    m.walk.references = m.walk.references + (first + 1 - last)
    m.tlb.guest_walks[first * 8 + last] = m.tlb.guest_walks[first * 8 + last] + 1


@inlined
def _entry_address(table: int, gla: int, level: int, step: int) -> int:
    """Guest-physical address of the entry for `gla` in a table of this level."""
    return table | (gla >> level * 9 & 0xFF8 if step == NINE else gla >> level * 10 & 0xFFC)


@inlined
def _page_address(gla: int, entry: int, level: int, step: int) -> int:
    """Guest-physical address from the entry that maps a page. Bits 20:13 of a 4M entry are address bits 39:32
    (PSE-36).
    """
    if step == TEN and level == 2:
        return (entry & 0xFFC00000) | (entry >> 13 & 0xFF) << 32 | (gla & 0x3FFFFF)
    offset = (1 << (level * 9 + 3)) - 1
    return (entry & FRAME_MASK & ~offset) | (gla & offset)


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


@apart
def _set_flags(m: "State", eptp: int, is_write: bool, levels: int, step: int, leaf: int) -> int:
    """Set the accessed flags on the way and, for a write, the last entry's dirty flag. 0, or FAILED where EPT forbids
    the store.
    """
    references = m.walk.references
    failed = U(0)
    level = levels
    while level >= leaf and failed == 0:
        at = m.walk.entry_hpa[level]
        entry = read64(m, at) if step == NINE else read32(m, at)
        new = entry | A | D if is_write and level == leaf else entry | A
        if new != entry:
            if eptp != 0:
                answer = ept_walk(m, eptp, m.walk.entry_gpa[level], READ_OR_WRITE, FLAG_UPDATE)
                if answer & FAILED != 0:
                    m.walk.qualification = m.walk.qualification | GLA_VALID
                    failed = answer
            if failed == 0 and step == NINE:
                write64(m, at, new)
            elif failed == 0:
                write32(m, at, new)
        level = level - 1
    m.walk.references = references  # the entries are counted once
    return failed


@apart
def _page_fault(m: "State", access: int, cause: int) -> int:
    """FAILED with #PF and its error code. SDM Vol. 3A, 'Page-Fault Exceptions'."""
    code = cause
    if access & 3 == WRITE:
        code = code | PF_WRITE
    if is_user_access(m, access):
        code = code | PF_USER
    if access & 3 == FETCH and (m.r.cr[4] & CR4_SMEP != 0 or (m.r.cr[4] & CR4_PAE != 0 and m.r.efer & EFER_NXE != 0)):
        code = code | PF_FETCH
    return FAILED | fault_with(PF, code)

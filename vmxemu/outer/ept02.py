"""EPT02: what really translates VM2's addresses, built on demand from EPT12 (VMM2's, GPA2 to GPA1) and EPT01 (GPA1 to HPA)."""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import read64, write64
from vmxemu.outer.ept_tables import (
    FRAME_MASK,
    FROM_ARENA,
    LARGE,
    MEMORY_TYPE_BITS,
    NOT_MAPPED,
    RIGHTS,
    leaf_of,
    map_page,
    page_bytes,
    unmap_frame,
)
from vmxemu.outer.guest_view import hpa_of
from vmxemu.outer.layout import ROOTS as _ROOTS
from vmxemu.outer.pool import NO_FRAME, take_table
from vmxemu.timing import costs
from vmxemu.timing.clock import charge_event
from vmxemu.trace import events
from vmxemu.trace.emit import emit
from vmxemu.translation.invalidate import invept

if TYPE_CHECKING:
    from vmxemu.state import State

ROOTS = U(_ROOTS)
ALL_CONTEXTS = U(2)
EPTP_WB_4 = U(6 | 3 << 3)  # write-back, page-walk length 4
ACCESSED_DIRTY = U(1 << 6)
ACCESSED, DIRTY = U(1 << 8), U(1 << 9)
WRITE, READ, EXECUTE = U(2), U(1), U(4)
LOW_RESERVED = U(0x78)  # bits 6:3 of an entry that points to a table
MISCONFIGURED, VIOLATION, MAPPED = U(1), U(2), U(0)


@kernel
def root_for(m: "State", eptp12: int) -> int:
    """HPA of the EPT02 for this EPTP12, made if there is none yet; NO_FRAME only if the arena cannot hold a single table."""
    outer = m.outer
    for index in range(outer.root_count):
        if outer.roots[index].eptp12 == eptp12:
            return outer.roots[index].hpa
    if outer.root_count >= ROOTS:
        drop_all(m)
    root = take_table(m)
    if root == NO_FRAME:
        drop_all(m)
        root = take_table(m)
    entry = outer.roots[outer.root_count]
    entry.eptp12 = eptp12
    entry.hpa = root
    outer.root_count = outer.root_count + 1
    return root


@kernel
def drop_all(m: "State") -> None:
    """Forget every EPT02 and what is cached of them."""
    outer = m.outer
    outer.root_count = 0
    outer.arena_next = outer.arena_base
    invept(m, ALL_CONTEXTS, 0)
    emit(m, events.EPT02, 2, 0, 0, 0, 0)


@kernel
def forget_frame(m: "State", hpa: int) -> int:
    """Drop every EPT02 entry that leads to this frame, and all cached translations. Returns how many entries."""
    cleared = unmap_frame(m, m.outer.arena_base, m.outer.arena_next, hpa)
    invept(m, ALL_CONTEXTS, 0)
    return cleared


@kernel
def entry12_bad(m: "State", entry: int, level: int, large: bool) -> bool:
    """Whether an EPT12 entry is a misconfiguration (SDM Vol. 3C, 'EPT Misconfigurations')."""
    rights = entry & RIGHTS
    if rights & WRITE != 0 and rights & READ == 0:
        return True
    if rights == EXECUTE and m.cpu.vmx_msr[12] & 1 == 0:
        return True
    limit = U(1) << m.cpu.physical_bits
    if entry & FRAME_MASK >= limit:
        return True
    if not large:
        return level > 1 and entry & (LOW_RESERVED | LARGE if level == 4 else LOW_RESERVED) != 0
    if level > 1 and m.cpu.vmx_msr[12] >> (14 + level) & 1 == 0:
        return True  # the processor has no pages of that size
    kind = entry >> 3 & 7
    if kind == 2 or kind == 3 or kind == 7:
        return True
    return level > 1 and entry & FRAME_MASK & (page_bytes(level) - 1) != 0


@kernel
def fill(m: "State", eptp12: int, gpa2: int, access: int) -> int:
    """VM2 has no translation for `gpa2`: walk EPT12 and install one, or say that the fault is VMM2's.

    `access`: qualification bits 2:0. Returns MAPPED, VIOLATION (m.outer.error_detail = rights of the walk) or MISCONFIGURED.
    """
    charge_event(m, costs.VMM1_EPT_FILL)
    table = eptp12 & FRAME_MASK
    rights = RIGHTS
    level = U(4)
    entry = U(0)
    at = U(0)
    flags = eptp12 & ACCESSED_DIRTY
    while True:
        at = hpa_of(m, table + ((gpa2 >> (3 + 9 * level) & 0x1FF) << 3))
        entry = read64(m, at) if at != NOT_MAPPED else 0
        if entry & RIGHTS == 0:
            m.outer.error_detail = 0
            return VIOLATION
        large = level == 1 or (level < 4 and entry & LARGE != 0)
        if entry12_bad(m, entry, level, large):
            return MISCONFIGURED
        rights = rights & entry
        if large:
            break
        if flags != 0 and entry & ACCESSED == 0:
            write64(m, at, entry | ACCESSED)
        table = entry & FRAME_MASK
        level = level - 1
    if access & 7 & ~rights != 0:
        m.outer.error_detail = rights
        return VIOLATION
    if flags != 0:
        marked = entry | ACCESSED | (DIRTY if access & WRITE != 0 else U(0))
        if marked != entry:
            write64(m, at, marked)
        if marked & DIRTY == 0:
            rights = rights & ~WRITE
    install(m, eptp12, gpa2, entry, level, rights)
    return MAPPED


@kernel
def install(m: "State", eptp12: int, gpa2: int, entry12: int, level12: int, rights: int) -> None:
    """Put the combined translation into EPT02: the smaller of the two pages, the rights that both give, VMM2's memory type."""
    size = page_bytes(level12)
    gpa1 = entry12 & FRAME_MASK & ~(size - 1) | gpa2 & (size - 1)
    at = leaf_of(m, m.outer.ept01 & FRAME_MASK, gpa1)
    level01 = m.outer.error_detail
    if at == NOT_MAPPED:
        return
    entry01 = read64(m, at)
    level = level12 if level12 < level01 else level01
    if level > 2:
        level = U(2)
    size = page_bytes(level)
    size01 = page_bytes(level01)
    hpa = (entry01 & FRAME_MASK & ~(size01 - 1) | gpa1 & (size01 - 1)) & ~(size - 1)
    leaf = hpa | rights & entry01 & RIGHTS | entry12 & MEMORY_TYPE_BITS | (LARGE if level > 1 else U(0))
    base = gpa2 & ~(size - 1)
    root = root_for(m, eptp12)
    if not map_page(m, root, base, leaf, level, FROM_ARENA):
        drop_all(m)
        map_page(m, root_for(m, eptp12), base, leaf, level, FROM_ARENA)
    emit(m, events.EPT02, 1, base, gpa1 & ~(size - 1), hpa, size)


@kernel
def maps_vm1(m: "State", gpa2: int, eptp12: int) -> int:
    """GPA1 behind a GPA2 by EPT12 alone, no side effects; NOT_MAPPED if VMM2 has not mapped it."""
    table = eptp12 & FRAME_MASK
    level = U(4)
    while True:
        at = hpa_of(m, table + ((gpa2 >> (3 + 9 * level) & 0x1FF) << 3))
        if at == NOT_MAPPED:
            return NOT_MAPPED
        entry = read64(m, at)
        if entry & RIGHTS == 0:
            return NOT_MAPPED
        if level == 1 or (level < 4 and entry & LARGE != 0):
            size = page_bytes(level)
            return entry & FRAME_MASK & ~(size - 1) | gpa2 & (size - 1)
        if level == 4 and entry & LARGE != 0:
            return NOT_MAPPED
        table = entry & FRAME_MASK
        level = level - 1


@kernel
def eptp02(m: "State", eptp12: int) -> int:
    """The EPTP that really runs VM2. With accessed and dirty flags in EPT12, reads of VM2's paging structures count as writes
    here too."""
    return root_for(m, eptp12) | EPTP_WB_4 | eptp12 & ACCESSED_DIRTY

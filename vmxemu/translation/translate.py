"""Translation of one address: first-level TLB, second-level TLB, walk. Results stand in `m.walk`.

After a success the caller looks whether the frame of `m.walk.hpa` is poisoned or retired (memory.frames); or it has a
walk look, by `m.tlb.watch_frames`.
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.layout import HF_CS64
from vmxemu.jit import kernel
from vmxemu.translation.bits import CR0_PG, EFER_LMA, FRAME_MASK
from vmxemu.translation.closer import permitted_after_all
from vmxemu.translation.ept import ept_walk
from vmxemu.translation.ept_failure import FAILED
from vmxemu.translation.ept_page import page_class
from vmxemu.translation.finish import NO_EPT
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.layout import IMPLICIT_SUPERVISOR
from vmxemu.translation.miss import cost, cost_of_walk, walk_and_insert
from vmxemu.translation.replacement import drop, insert, used
from vmxemu.translation.rights import (
    CLASS_SHIFT,
    GLOBAL,
    page_offset,
    permissions,
    permitted,
    requirement,
    unpaged_requirement,
)
from vmxemu.translation.tlb import GLOBAL_TAG, MISS, current_pcid, find, find_second, guest_physical_space, linear_space
from vmxemu.translation.walk import unpaged_word

if TYPE_CHECKING:
    from vmxemu.state import State


@kernel
def translate(m: "State", gla: int, access: int) -> int:
    """Translate a linear address for an access (READ, WRITE or FETCH, perhaps | IMPLICIT_SUPERVISOR or | SHADOW_STACK).

    DONE, #PF, #GP(0) for a non-canonical address (the caller turns it into #SS where that is due), EPT_VIOLATION,
    EPT_MISCONFIG, PML_FULL or SPP_EVENT; with `m.tlb.watch_frames`, POISON or RETIRED_FRAME.
    """
    address = truncate(m, gla, access)
    if m.r.cr[0] & CR0_PG == 0:
        if m.paging.ept_pointer == 0:
            return _identity(m, address, unpaged_requirement(m, access), access)
        return translate_in(m, address, access, 0, guest_physical_space(m), unpaged_requirement(m, access))
    return translate_in(m, address, access, current_pcid(m), linear_space(m), requirement(m, access))


@inlined
def truncate(m: "State", gla: int, access: int) -> int:
    """The linear address as the mode forms it: 32 bits wide outside 64-bit mode, descriptor tables in IA-32e mode
    excepted.
    """
    if m.r.efer & EFER_LMA != 0 and (m.r.mode & HF_CS64 != 0 or access & IMPLICIT_SUPERVISOR != 0):
        return gla
    return gla & 0xFFFFFFFF


@inlined
def translate_in(m: "State", gla: int, access: int, pcid: int, space: int, required: int) -> int:
    """The same with what depends on the processor's state given: batches compute it once."""
    m.tlb.clock = m.tlb.clock + 1
    group = access >> 1 & 1  # L1D or L1I
    slot = find(m, group, gla, pcid, space)
    if slot != MISS:
        if permitted(m.tlb.entries[slot].word, required) or permitted_after_all(m, slot, gla, access, required):
            used(m, slot)
            m.walk.references = 0
            m.walk.cycles = 0
            return _hit(m, slot, gla, access, required)
        drop(m, slot)
        m.tlb.refused = 1
    return translate_missed(m, gla, access, pcid, space, required)


@apart
def translate_missed(m: "State", gla: int, access: int, pcid: int, space: int, required: int) -> int:
    """Second level, then walk. An entry that does not permit the access is dropped: only a walk may fault or set
    flags.
    """
    group = access >> 1 & 1
    slot = find_second(m, gla, pcid, space)
    if slot != MISS:
        value = m.tlb.entries[slot]
        if permitted(value.word, required) or permitted_after_all(m, slot, gla, access, required):
            used(m, slot)
            m.tlb.stlb_hits = m.tlb.stlb_hits + 1
            key_space = space | GLOBAL_TAG if value.word & GLOBAL != 0 else space
            insert(m, group, gla, pcid, key_space, value.word >> CLASS_SHIFT & 3, value.word, value.gpa)
            m.walk.references = 0
            cost(m, m.tlb.stlb_cycles)
            return _hit(m, slot, gla, access, required)
        drop(m, slot)
        m.tlb.refused = 1
    return walk_and_insert(m, gla, access, pcid, space, required)


@inlined
def _hit(m: "State", slot: int, gla: int, access: int, required: int) -> int:
    value = m.tlb.entries[slot]
    word = value.word
    offset = gla & page_offset(word)
    walk = m.walk
    walk.gla = gla
    walk.gpa = value.gpa | offset
    walk.hpa = word & FRAME_MASK | offset
    walk.page_bytes = page_offset(word) + 1
    walk.permissions = permissions(m, word, required, access)
    walk.word = word
    return 0


@kernel
def _identity(m: "State", address: int, required: int, access: int) -> int:
    walk = m.walk
    walk.gla = address
    walk.gpa = address
    walk.hpa = address
    walk.page_bytes = 4096
    walk.references = 0
    walk.cycles = 0
    walk.word = unpaged_word(NO_EPT)
    walk.permissions = permissions(m, walk.word, required, access)
    return 0


@kernel
def translate_guest_physical(m: "State", gpa: int, access: int) -> int:
    """Guest-physical to host-physical: through EPT if it is on (a walk each time), else the same. No linear address
    is involved.
    """
    required = unpaged_requirement(m, access)
    if m.paging.ept_pointer == 0:
        return _identity(m, gpa, required, access)
    walk = m.walk
    walk.references = 0
    walk.memory_cycles = 0
    walk.gla = 0
    answer = ept_walk(m, m.paging.ept_pointer, gpa, 1 << (access & 3), 0)
    m.tlb.references = m.tlb.references + walk.references
    cost_of_walk(m)
    if answer & FAILED != 0:
        return answer & ~FAILED
    walk.gpa = gpa
    walk.hpa = answer & FRAME_MASK | gpa & 0xFFF
    walk.page_bytes = 1 << (page_class(answer) * 9 + 12)
    walk.word = unpaged_word(answer)
    walk.permissions = permissions(m, walk.word, required, access)
    return 0

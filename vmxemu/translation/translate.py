"""Translation of one address: first-level TLB, second-level TLB, walk. Results stand in `m.walk`.

After a success the caller looks whether the frame of `m.walk.hpa` is poisoned or retired (memory.frames): translation
does not care.
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.layout import HF_CS64
from vmxemu.isa import exceptions
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.outcome import fault_with
from vmxemu.translation.bits import CR0_PG, CR4_LA57, EFER_LMA, FRAME_MASK, GLA_VALID, IS_TRANSLATION
from vmxemu.translation.ept import FAILED, ept_walk, page_class
from vmxemu.translation.guest import NO_EPT, walk_guest
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.layout import IMPLICIT_SUPERVISOR
from vmxemu.translation.rights import (
    CLASS_SHIFT,
    GLOBAL,
    GUEST_CLASS_SHIFT,
    SUPERVISOR,
    page_offset,
    permissions,
    permitted,
    requirement,
    rights_of,
    unpaged_requirement,
)
from vmxemu.translation.tlb import (
    GLOBAL_TAG,
    MISS,
    current_pcid,
    drop,
    find,
    find_second,
    guest_physical_space,
    insert,
    insert_everywhere,
    linear_space,
    stamp,
)

if TYPE_CHECKING:
    from vmxemu.state import State

GP = exceptions.GP
EVERYTHING = U(0xFFFFFFFFFFFFFFFF)


@kernel
def translate(m: "State", gla: int, access: int) -> int:
    """Translate a linear address for an access (READ, WRITE or FETCH, perhaps | IMPLICIT_SUPERVISOR).

    DONE, #PF, #GP(0) for a non-canonical address (the caller turns it into #SS where that is due), EPT_VIOLATION or
    EPT_MISCONFIG.
    """
    address = truncate(m, gla, access)
    if m.r.cr[0] & CR0_PG == 0:
        if m.paging.ept_pointer == 0:
            return _identity(m, address, unpaged_requirement(access), access)
        return translate_in(m, address, access, 0, guest_physical_space(m), unpaged_requirement(access))
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
        if permitted(m.tlb.values[slot].word, required):
            stamp(m, slot)
            m.walk.references = 0
            m.walk.cycles = 0
            return _hit(m, slot, gla, access, required)
        drop(m, slot)
    return translate_missed(m, gla, access, pcid, space, required)


@apart
def translate_missed(m: "State", gla: int, access: int, pcid: int, space: int, required: int) -> int:
    """Second level, then walk. An entry that does not permit the access is dropped: only a walk may fault or set
    flags.
    """
    group = access >> 1 & 1
    slot = find_second(m, gla, pcid, space)
    if slot != MISS:
        value = m.tlb.values[slot]
        if permitted(value.word, required):
            stamp(m, slot)
            m.tlb.stlb_hits = m.tlb.stlb_hits + 1
            key_space = space | GLOBAL_TAG if value.word & GLOBAL != 0 else space
            insert(m, group, gla, pcid, key_space, value.word >> CLASS_SHIFT & 3, value.word, value.gpa)
            m.walk.references = 0
            _cost(m, m.tlb.stlb_cycles)
            return _hit(m, slot, gla, access, required)
        drop(m, slot)
    return walk_and_insert(m, gla, access, pcid, space, required)


@inlined
def _hit(m: "State", slot: int, gla: int, access: int, required: int) -> int:
    value = m.tlb.values[slot]
    word = value.word
    offset = gla & page_offset(word)
    walk = m.walk
    walk.gla = gla
    walk.gpa = value.gpa | offset
    walk.hpa = word & FRAME_MASK | offset
    walk.page_bytes = page_offset(word) + 1
    walk.permissions = permissions(word, required, access)
    return 0


@apart
def walk_and_insert(m: "State", gla: int, access: int, pcid: int, space: int, required: int) -> int:
    """Walk, with results in `m.walk` and in the TLB."""
    walk = m.walk
    walk.gla = gla
    walk.references = 0
    m.tlb.walks = m.tlb.walks + 1
    word = _walk(m, gla, access, required)
    m.tlb.references = m.tlb.references + walk.references
    _cost(m, m.tlb.walk_cycles + walk.references * m.tlb.reference_cycles)
    if word & FAILED != 0:
        m.tlb.faults = m.tlb.faults + 1
        return word & ~FAILED
    size = word >> CLASS_SHIFT & 3
    offset = page_offset(word)
    walk.hpa = word & FRAME_MASK | gla & offset
    walk.page_bytes = offset + 1
    walk.permissions = permissions(word, required, access)
    key_space = space | GLOBAL_TAG if word & GLOBAL != 0 else space
    insert_everywhere(m, access >> 1 & 1, gla, pcid, key_space, size, word, walk.gpa & ~offset)
    return 0


@inlined
def _walk(m: "State", gla: int, access: int, required: int) -> int:
    if m.r.cr[0] & CR0_PG != 0:
        if m.r.efer & EFER_LMA != 0 and not is_canonical(m, gla):
            return FAILED | fault_with(GP, 0)
        return walk_guest(m, gla, access, required)
    answer = ept_walk(m, m.paging.ept_pointer, gla, 1 << (access & 3), 0)
    if answer & FAILED != 0:
        m.walk.qualification = m.walk.qualification | GLA_VALID | IS_TRANSLATION
        return answer
    m.walk.gpa = gla
    return _unpaged_word(answer)


@inlined
def _unpaged_word(answer: int) -> int:
    """The TLB's word for a guest-physical page: everybody's, with the rights that EPT gives."""
    size = page_class(answer)
    low = ((1 << (size * 9 + 12)) - 1) & FRAME_MASK
    everybody = rights_of(EVERYTHING, 0, 1, answer) | SUPERVISOR
    return answer & FRAME_MASK & ~low | everybody | size << CLASS_SHIFT | size << GUEST_CLASS_SHIFT


@inlined
def is_canonical(m: "State", gla: int) -> bool:
    """Whether the bits above the linear-address width repeat its highest bit."""
    top = gla >> 56 if m.r.cr[4] & CR4_LA57 != 0 else gla >> 47
    return top == 0 or top == (0xFF if m.r.cr[4] & CR4_LA57 != 0 else 0x1FFFF)


@kernel
def _identity(m: "State", address: int, required: int, access: int) -> int:
    walk = m.walk
    walk.gla = address
    walk.gpa = address
    walk.hpa = address
    walk.page_bytes = 4096
    walk.references = 0
    walk.cycles = 0
    walk.permissions = permissions(_unpaged_word(NO_EPT), required, access)
    return 0


@inlined
def _cost(m: "State", cycles: int) -> None:
    m.walk.cycles = cycles
    m.walk.cycles_due = m.walk.cycles_due + cycles


@kernel
def translate_guest_physical(m: "State", gpa: int, access: int) -> int:
    """Guest-physical to host-physical: through EPT if it is on (a walk each time), else the same. No linear address
    is involved.
    """
    required = unpaged_requirement(access)
    if m.paging.ept_pointer == 0:
        return _identity(m, gpa, required, access)
    walk = m.walk
    walk.references = 0
    walk.gla = 0
    answer = ept_walk(m, m.paging.ept_pointer, gpa, 1 << (access & 3), 0)
    m.tlb.references = m.tlb.references + walk.references
    _cost(m, m.tlb.walk_cycles + walk.references * m.tlb.reference_cycles)
    if answer & FAILED != 0:
        return answer & ~FAILED
    walk.gpa = gpa
    walk.hpa = answer & FRAME_MASK | gpa & 0xFFF
    walk.page_bytes = 1 << (page_class(answer) * 9 + 12)
    walk.permissions = permissions(_unpaged_word(answer), required, access)
    return 0

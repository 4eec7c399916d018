"""A miss: the walk, what it costs, and what is kept of it."""

from typing import TYPE_CHECKING

from vmxemu.isa import exceptions
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.memory.frames import frame_state
from vmxemu.memory.layout import POISONED, RETIRED
from vmxemu.outcome import DONE, POISON, RETIRED_FRAME, fault_with
from vmxemu.translation.bits import CR0_PG, CR4_LA57, EFER_LMA, FRAME_MASK
from vmxemu.translation.ept import page_class
from vmxemu.translation.ept_failure import FAILED
from vmxemu.translation.finish import page_through_ept
from vmxemu.translation.forget import forget_address
from vmxemu.translation.guest import walk_guest
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.rights import (
    CLASS_SHIFT,
    EPT_TYPE_SHIFT,
    GLOBAL,
    GUEST_CLASS_SHIFT,
    SUPERVISOR,
    page_offset,
    permissions,
    rights_of,
)
from vmxemu.translation.tlb import GLOBAL_TAG, insert_everywhere

if TYPE_CHECKING:
    from vmxemu.state import State

GP = exceptions.GP
EVERYTHING = U(0xFFFFFFFFFFFFFFFF)
ANSWER_TYPE_SHIFT = U(7)


@apart
def walk_and_insert(m: "State", gla: int, access: int, pcid: int, space: int, required: int) -> int:
    """Walk, with results in `m.walk` and in the TLB."""
    walk, tlb = m.walk, m.tlb
    walk.gla = gla
    walk.references = 0
    walk.memory_cycles = 0
    tlb.walks = tlb.walks + 1
    tlb.walk_pcid = pcid
    tlb.walk_space = space
    with_tables = tlb.tables_on
    while True:
        word = _walk(m, gla, access, required)
        if word & FAILED == 0 or tlb.tables_on == 0 or tlb.lazy != 0:
            break
        tlb.tables_on = 0  # a paging-structure cache may say less than memory does by now: it must not cause a fault
    tlb.tables_on = with_tables
    tlb.references = tlb.references + walk.references
    cost_of_walk(m)
    if word & FAILED != 0:
        tlb.faults = tlb.faults + 1
        forget_address(m, gla, pcid, space)
        return word & ~FAILED
    offset = page_offset(word)
    walk.word = word
    walk.hpa = word & FRAME_MASK | gla & offset
    walk.page_bytes = offset + 1
    walk.permissions = permissions(m, word, required, access)
    if tlb.watch_frames != 0:
        outcome = _frame_outcome(m)
        if outcome != DONE:
            return outcome
    key_space = space | GLOBAL_TAG if word & GLOBAL != 0 else space
    insert_everywhere(m, access >> 1 & 1, gla, pcid, key_space, word >> CLASS_SHIFT & 3, word, walk.gpa & ~offset)
    return DONE


@inlined
def _walk(m: "State", gla: int, access: int, required: int) -> int:
    if m.r.cr[0] & CR0_PG != 0:
        if m.r.efer & EFER_LMA != 0 and not is_canonical(m, gla):
            return FAILED | fault_with(GP, 0)
        return walk_guest(m, gla, access, required)
    # Without paging every linear address is a user-mode, read-write, executable one. SDM Vol. 3C, table of exit
    # qualifications for EPT violations.
    answer = page_through_ept(m, m.paging.ept_pointer, gla, access, EVERYTHING, U(0))
    m.walk.gpa = gla if answer & FAILED == 0 else m.walk.gpa
    return answer if answer & FAILED != 0 else unpaged_word(answer)


@kernel
def _frame_outcome(m: "State") -> int:
    """POISON or RETIRED_FRAME where the walk has ended at such a frame: nothing of it is kept."""
    m.walk.frame_state = frame_state(m, m.walk.hpa)
    if m.walk.frame_state == POISONED:
        return POISON
    return RETIRED_FRAME if m.walk.frame_state == RETIRED else DONE


@inlined
def unpaged_word(answer: int) -> int:
    """The TLB's word for a guest-physical page: everybody's, with the rights that EPT gives."""
    size = page_class(answer)
    low = ((1 << (size * 9 + 12)) - 1) & FRAME_MASK
    everybody = rights_of(EVERYTHING, 0, 1, answer) | SUPERVISOR
    kind = answer >> ANSWER_TYPE_SHIFT << EPT_TYPE_SHIFT & (0xF << EPT_TYPE_SHIFT)
    return answer & FRAME_MASK & ~low | everybody | size << CLASS_SHIFT | size << GUEST_CLASS_SHIFT | kind


@inlined
def is_canonical(m: "State", gla: int) -> bool:
    """Whether the bits above the linear-address width repeat its highest bit."""
    top = gla >> 56 if m.r.cr[4] & CR4_LA57 != 0 else gla >> 47
    return top == 0 or top == (0xFF if m.r.cr[4] & CR4_LA57 != 0 else 0x1FFFF)


@inlined
def cost(m: "State", cycles: int) -> None:
    """What the latest translation costs."""
    m.walk.cycles = cycles
    m.walk.cycles_due = m.walk.cycles_due + cycles


@inlined
def cost_of_walk(m: "State") -> None:
    """The same for one that took a walk."""
    references = m.walk.memory_cycles if m.caches.on != 0 else m.walk.references * m.tlb.reference_cycles
    cycles = m.tlb.walk_cycles + references
    m.tlb.walk_clock = m.tlb.walk_clock + cycles
    cost(m, cycles)

"""A miss: the walk, what it costs, and what is kept of it."""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.memory.frames import frame_state
from vmxemu.memory.layout import POISONED, RETIRED
from vmxemu.outcome import DONE, POISON, RETIRED_FRAME
from vmxemu.translation.births import begin_birth
from vmxemu.translation.bits import FRAME_MASK
from vmxemu.translation.ept_failure import FAILED
from vmxemu.translation.forget import forget_failed
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.replacement import insert_everywhere
from vmxemu.translation.rights import (
    CLASS_SHIFT,
    GLOBAL,
    page_offset,
    permissions,
)
from vmxemu.translation.stale import check_walk
from vmxemu.translation.tlb import GLOBAL_TAG
from vmxemu.translation.walk import walk

if TYPE_CHECKING:
    from vmxemu.state import State


@apart
def walk_and_insert(m: "State", gla: int, access: int, pcid: int, space: int, required: int) -> int:
    """Walk, with results in `m.walk` and in the TLB."""
    result, tlb = m.walk, m.tlb
    result.gla = gla
    result.references = 0
    result.memory_cycles = 0
    tlb.walks = tlb.walks + 1
    tlb.walk_pcid = pcid
    tlb.walk_space = space
    tlb.table_used = 0
    with_tables = tlb.tables_on
    while True:
        if tlb.checking != 0:
            begin_birth(m)
        word = walk(m, gla, access, required)
        if word & FAILED == 0 or tlb.table_used == 0 or tlb.lazy != 0:
            break
        tlb.table_used = 0
        tlb.tables_on = 0  # a paging-structure cache may say less than memory does by now: it must not cause a fault
    tlb.tables_on = with_tables
    if tlb.checking != 0:
        check_walk(m, gla, access, required, word)
    tlb.references = tlb.references + result.references
    cost_of_walk(m)
    if word & FAILED != 0:
        tlb.faults = tlb.faults + 1
        forget_failed(m, gla, word)
        return word & ~FAILED
    tlb.refused = 0
    offset = page_offset(word)
    result.word = word
    result.hpa = word & FRAME_MASK | gla & offset
    result.page_bytes = offset + 1
    result.permissions = permissions(m, word, required, access)
    if tlb.watch_frames != 0:
        outcome = _frame_outcome(m)
        if outcome != DONE:
            return outcome
    key_space = space | GLOBAL_TAG if word & GLOBAL != 0 else space
    insert_everywhere(m, access >> 1 & 1, gla, pcid, key_space, word >> CLASS_SHIFT & 3, word, result.gpa & ~offset)
    return DONE


@kernel
def _frame_outcome(m: "State") -> int:
    """POISON or RETIRED_FRAME where the walk has ended at such a frame: nothing of it is kept."""
    m.walk.frame_state = frame_state(m, m.walk.hpa)
    if m.walk.frame_state == POISONED:
        return POISON
    return RETIRED_FRAME if m.walk.frame_state == RETIRED else DONE


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

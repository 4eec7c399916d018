"""Translation of arrays of addresses in one call.

Each address is looked up, and costs and changes the TLB, in its turn. Where misses follow each other closely the
walks for the next sixteen addresses are done ahead, in lockstep: they overlap as those of a processor would.
"""

from typing import TYPE_CHECKING, Any

from vmxemu.jit import kernel, load64, store64
from vmxemu.layout import u64 as U
from vmxemu.translation.bits import CR0_PG, FRAME_MASK
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.lanes import LANES
from vmxemu.translation.lockstep import count_walks, lockstep_possible, walk_ahead
from vmxemu.translation.miss import walk_and_insert
from vmxemu.translation.replacement import drop, insert, insert_everywhere, used, used_at
from vmxemu.translation.rights import CLASS_SHIFT, GLOBAL, LOOK_CLOSER, page_offset, permitted, requirement
from vmxemu.translation.tlb import GLOBAL_TAG, MISS, current_pcid, find, find_second, linear_space, match
from vmxemu.translation.translate import translate, truncate

if TYPE_CHECKING:
    from vmxemu.state import State

EVERYTHING = U(0xFFFFFFFFFFFFFFFF)
PAGE_MASK = U(0xFFFFFFFFFFFFF000)
CLOSE = U(4)  # misses no further apart than this are worth a walk ahead
ALONE = U(16)  # how many addresses go without one after a walk ahead that did not do


@kernel
def translate_many(m: "State", glas: Any, access: int, hpas_out: Any, status_out: Any) -> int:
    """Translate `glas` one after the other with the state of now. Returns how many succeeded; others have hpa 0 and
    their outcome. Of `m.walk` only `cycles_due` is kept up.
    """
    if m.r.cr[0] & CR0_PG == 0:
        return _one_by_one(m, glas, access, hpas_out, status_out)
    pcid, space, required = current_pcid(m), linear_space(m), requirement(m, access)
    if required & LOOK_CLOSER != 0:
        return _one_by_one(m, glas, access, hpas_out, status_out)
    group, mask = access >> 1 & 1, truncate(m, EVERYTHING, access)
    source, hpas, status = _address(glas), _address(hpas_out), _address(status_out)
    count = U(len(glas))
    # the latest walk ahead: from which address on, to which, what is done; where the next one may start
    first, end, done, allowed = U(0), U(0), U(0), U(0) if lockstep_possible(m) else EVERYTHING
    latest_miss, failed = U(0), U(0)
    shape, alike = U(0), U(0)  # walks of one shape that are still to be counted
    i = _run_of_hits(m, source, U(0), count, mask, group, pcid, space, required, hpas, status)
    while i < count:
        gla = load64(source + i * 8) & mask
        m.tlb.clock = m.tlb.clock + 1
        slot = find(m, group, gla, pcid, space)
        if slot != MISS:
            word = m.tlb.entries[slot].word
            if permitted(word, required):
                used(m, slot)
                store64(hpas + i * 8, word & FRAME_MASK | gla & page_offset(word))
                store64(status + i * 8, 0)
                i = _run_of_hits(m, source, i + 1, count, mask, group, pcid, space, required, hpas, status)
                continue
            drop(m, slot)
        word = _second_level(m, group, gla, pcid, space, required)
        if word == 0:
            if i >= end and i >= allowed and i - latest_miss <= CLOSE and i + LANES <= count:
                first, end, done = i, i + LANES, _look_ahead(m, source, i, mask, access, required)
            latest_miss = i
            if i < end and done >> (i - first) & 1 != 0:
                word = _take(m, i - first, group, gla, pcid, space)
                if m.tlb.ahead_shape[i - first] != shape:
                    count_walks(m, shape, alike)
                    shape, alike = m.tlb.ahead_shape[i - first], U(0)
                alike = alike + 1
            else:
                outcome = walk_and_insert(m, gla, access, pcid, space, required)
                if i < end:  # the walk may have set flags in entries that were read ahead
                    end, allowed = i, i + ALONE
                store64(hpas + i * 8, m.walk.hpa if outcome == 0 else 0)
                store64(status + i * 8, outcome)
                failed = failed + (1 if outcome != 0 else 0)
                i = i + 1
                continue
        store64(hpas + i * 8, word & FRAME_MASK | gla & page_offset(word))
        store64(status + i * 8, 0)
        i = i + 1
    count_walks(m, shape, alike)
    return count - failed


@apart
def _run_of_hits(
    m: "State",
    source: int,
    i: int,
    count: int,
    mask: int,
    group: int,
    pcid: int,
    space: int,
    required: int,
    hpas: int,
    status: int,
) -> int:
    """Translate from the `i`th address on as long as each page stands where one of its low bits was last found in the
    first level. Gives the number of the first that does not. The arrays are given by their host addresses: Numba counts
    references to arrays that it hands over, with atomic instructions.
    """
    hints, clock = group << 8, m.tlb.clock
    while i < count:
        gla = load64(source + i * 8) & mask
        slot: int = m.tlb.hints[hints | gla >> 12 & 0xFF]
        word = m.tlb.entries[slot].word
        if match(m, slot, gla & PAGE_MASK | pcid, space, MISS) == MISS or not permitted(word, required):
            break
        clock = clock + 1
        used_at(m, slot, clock)
        store64(hpas + i * 8, word & FRAME_MASK | gla & 0xFFF)
        store64(status + i * 8, 0)
        i = i + 1
    m.tlb.clock = clock
    return i


@inlined
def _address(numbers: Any) -> int:
    """Host address of a contiguous array of 64-bit numbers."""
    return U(numbers.ctypes.data)


@inlined
def _second_level(m: "State", group: int, gla: int, pcid: int, space: int, required: int) -> int:
    """Take a translation from the STLB to the first level: its word, or 0."""
    slot = find_second(m, gla, pcid, space)
    if slot == MISS:
        return 0
    value = m.tlb.entries[slot]
    word = value.word
    if not permitted(word, required):
        drop(m, slot)
        return 0
    used(m, slot)
    m.tlb.stlb_hits = m.tlb.stlb_hits + 1
    m.walk.cycles_due = m.walk.cycles_due + m.tlb.stlb_cycles
    key_space = space | GLOBAL_TAG if word & GLOBAL != 0 else space
    insert(m, group, gla, pcid, key_space, word >> CLASS_SHIFT & 3, word, value.gpa)
    return word


@inlined
def _look_ahead(m: "State", source: int, start: int, mask: int, access: int, required: int) -> int:
    for lane in range(LANES):
        m.tlb.ahead_gla[lane] = load64(source + (start + lane) * 8)
    return walk_ahead(m, mask, access, required)


@inlined
def _take(m: "State", lane: int, group: int, gla: int, pcid: int, space: int) -> int:
    """Account for a walk that was done ahead (but for its shape), and keep what it found: the word."""
    word, references = m.tlb.ahead_word[lane], m.tlb.ahead_references[lane]
    m.tlb.walks = m.tlb.walks + 1
    m.tlb.references = m.tlb.references + references
    cycles = m.tlb.walk_cycles + references * m.tlb.reference_cycles
    m.tlb.walk_clock = m.tlb.walk_clock + cycles
    m.walk.cycles_due = m.walk.cycles_due + cycles
    key_space = space | GLOBAL_TAG if word & GLOBAL != 0 else space
    insert_everywhere(m, group, gla, pcid, key_space, word >> CLASS_SHIFT & 3, word, m.tlb.ahead_gpa[lane])
    return word


@kernel
def translate_in_full(
    m: "State", glas: Any, access: int, hpas_out: Any, status_out: Any, permissions: Any, references: Any, cycles: Any
) -> int:
    """The same, one by one, with all that is known of each: PERMIT_* (0 where it failed), references, cycles."""
    succeeded = access ^ access
    for i in range(len(glas)):
        outcome = translate(m, glas[i], access)
        done = outcome == 0
        status_out[i] = outcome
        hpas_out[i] = m.walk.hpa if done else 0
        permissions[i] = m.walk.permissions if done else 0
        references[i] = m.walk.references
        cycles[i] = m.walk.cycles
        succeeded = succeeded + (1 if done else 0)
    return succeeded


@kernel
def _one_by_one(m: "State", glas: Any, access: int, hpas_out: Any, status_out: Any) -> int:
    succeeded = access ^ access
    for i in range(len(glas)):
        outcome = translate(m, glas[i], access)
        status_out[i] = outcome
        hpas_out[i] = m.walk.hpa if outcome == 0 else 0
        succeeded = succeeded + (1 if outcome == 0 else 0)
    return succeeded

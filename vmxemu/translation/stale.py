"""The search for stale translations: uses of something cached that memory no longer says, because an invalidation was owed
and not made.

While `m.tlb.checking` is 1 every use of a cached translation is compared with a walk that has no effects. A processor
may use what it has cached until software invalidates it, and may as well have dropped it: software that is right never
depends on which. Found are uses that make a difference: another frame, an access that memory now forbids, a store whose
dirty flag is lost. Rights that have become fewer in the cache's eyes only, and accessed flags, make none.
"""

from typing import TYPE_CHECKING

from vmxemu.jit import address_of, copy_bytes, kernel
from vmxemu.layout import u64 as U
from vmxemu.outcome import FAULT, kind_of
from vmxemu.translation.bits import FRAME_MASK
from vmxemu.translation.ept_failure import FAILED
from vmxemu.translation.inline import apart
from vmxemu.translation.layout import READ, WRITE, Walk
from vmxemu.translation.rights import MAY_WRITE_WP0, page_offset
from vmxemu.translation.tlb_layout import L1I, STLB
from vmxemu.translation.tlb_layout import STALE_USES as _STALE_USES
from vmxemu.translation.walk import walk

if TYPE_CHECKING:
    from vmxemu.state import State

STALE_USES, WALK_BYTES = U(_STALE_USES), U(Walk.SIZE)
FROM_DTLB, FROM_ITLB, FROM_STLB, FROM_WALK = (U(i) for i in range(4))  # StaleUse.source
# StaleUse.owed: what the guest's tables say has changed; what EPT says; a dirty flag was cleared in either
OWED_GUEST, OWED_EPT, OWED_DIRTY = U(1), U(2), U(3)


@apart
def check_hit(m: "State", slot: int, gla: int, access: int, required: int) -> None:
    """Compare a TLB entry that is about to be used with what memory says."""
    source = FROM_STLB
    if slot < m.tlb.arrays[STLB * 3].first:
        source = FROM_ITLB if slot >= m.tlb.arrays[L1I * 3].first else FROM_DTLB
    value = m.tlb.values[slot]
    offset = gla & page_offset(value.word)
    owed = _compare(m, gla, access, required, value.word, value.gpa | offset)
    if owed != 0:
        _report(m, gla, access, source, owed, value.word, value.gpa | offset)
        m.tlb.stale[_latest(m)].born_clock = m.tlb.births[slot]
        m.tlb.stale[_latest(m)].born_ticks = m.tlb.birth_ticks[slot]


@apart
def check_walk(m: "State", gla: int, access: int, required: int, word: int) -> None:
    """Compare what a walk with the help of walk caches has found (FAILED and an outcome included) with what memory
    says.
    """
    gpa = m.walk.gpa
    owed = _compare(m, gla, access, required, word, gpa)
    if owed != 0 and owed != OWED_DIRTY:
        _report(m, gla, access, FROM_WALK, owed, word, gpa)


@kernel
def _compare(m: "State", gla: int, access: int, required: int, word: int, gpa: int) -> int:
    """0, or which invalidation was owed. What memory says is left in `m.tlb.probed_word` and `probed_gpa`."""
    now = _probe(m, gla, access, required)
    tlb = m.tlb
    if now & FAILED != 0:
        if word & FAILED != 0:
            return U(0)
        return OWED_GUEST if kind_of(now & ~FAILED) == FAULT else OWED_EPT
    if word & FAILED != 0:
        return OWED_GUEST if kind_of(word & ~FAILED) == FAULT else OWED_EPT
    if _address(word, gla) != _address(now, gla):
        return OWED_GUEST if tlb.probed_gpa >> 12 != gpa >> 12 else OWED_EPT
    if access & 3 == WRITE:
        gpa_now = tlb.probed_gpa
        clean = _probe(m, gla, access & ~WRITE | READ, required) & MAY_WRITE_WP0 == 0
        tlb.probed_word = now
        tlb.probed_gpa = gpa_now
        return OWED_DIRTY if clean else U(0)
    return U(0)


@kernel
def _address(word: int, gla: int) -> int:
    offset = page_offset(word)
    return word & FRAME_MASK & ~offset | gla & offset


@kernel
def _probe(m: "State", gla: int, access: int, required: int) -> int:
    """What memory says: a word, or FAILED and the outcome. Nothing is counted, cached, charged, set or recorded."""
    tlb, state, kept = m.tlb, m.walk, address_of(m.tlb.before_probe)
    copy_bytes(kept, address_of(state), WALK_BYTES)
    tables, nested, pages, caches = tlb.tables_on, tlb.nested_on, tlb.nested_pages_on, m.caches.on
    ept_tables = tlb.ept_tables_on
    tlb.tables_on = 0
    tlb.ept_tables_on = 0
    tlb.nested_on = 0
    tlb.nested_pages_on = 0
    m.caches.on = 0
    state.recording = 0
    tlb.probing = 1
    word = walk(m, gla, access, required)
    tlb.probing = 0
    tlb.tables_on = tables
    tlb.ept_tables_on = ept_tables
    tlb.nested_on = nested
    tlb.nested_pages_on = pages
    m.caches.on = caches
    tlb.probed_word = word
    tlb.probed_gpa = state.gpa
    copy_bytes(address_of(state), kept, WALK_BYTES)
    return word


@kernel
def _latest(m: "State") -> int:
    """Place of the latest report; all that come after the last place stand in it."""
    count = m.tlb.stale_count
    return count - 1 if count < STALE_USES else STALE_USES - 1


@kernel
def _report(m: "State", gla: int, access: int, source: int, owed: int, word: int, gpa: int) -> None:
    m.tlb.stale_count = m.tlb.stale_count + 1
    use = m.tlb.stale[_latest(m)]
    use.gla = gla
    use.access = access
    use.source = source
    use.owed = owed
    use.cached_gpa = gpa
    use.cached_word = word
    use.now_gpa = m.tlb.probed_gpa
    use.now_word = m.tlb.probed_word
    use.born_clock = 0
    use.born_ticks = 0
    use.used_clock = m.tlb.clock
    use.used_ticks = m.clock.ticks
    use.pcid = m.tlb.walk_pcid
    use.vpid = m.paging.vpid
    use.ept_pointer = m.paging.ept_pointer
    use.rip = m.r.rip

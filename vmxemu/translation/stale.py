"""The search for stale translations: uses of something cached that memory no longer says, because an invalidation was owed
and not made.

While `m.tlb.checking` is 1 every use of a cached translation is compared with a walk that has no effects. A processor
may use what it has cached until software invalidates it, and may as well have dropped it: software that is right never
depends on which. Found are uses that make a difference: another frame, an access that memory now forbids, a fault that
memory does not ask for, a store whose dirty flag is lost. No difference make accessed flags, memory types, and a page
fault that comes only because a paging-structure cache still has fewer rights than memory: that one needs no
invalidation (SDM Vol. 3A, 'Optional Invalidation').

The tables that a translation was made by, and those that stand in memory now, are compared from the top: the first
difference says who changed something and so which invalidation is owed.
"""

from typing import TYPE_CHECKING

from vmxemu.jit import address_of, copy_bytes, kernel
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import read8
from vmxemu.outcome import FAULT, PML_FULL, kind_of
from vmxemu.translation.births import LEVELS, begin_birth, end_birth, root_of, take_birth
from vmxemu.translation.bits import FRAME_MASK, IS_TRANSLATION, D
from vmxemu.translation.ept_failure import FAILED
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.layout import READ, WRITE, Walk
from vmxemu.translation.rights import GLOBAL, MAY_WRITE_WP0, page_offset
from vmxemu.translation.stale_source import FROM_DTLB, FROM_ITLB, FROM_STLB, find_source
from vmxemu.translation.tlb import current_pcid
from vmxemu.translation.tlb_layout import L1I, STLB
from vmxemu.translation.tlb_layout import STALE_USES as _STALE_USES
from vmxemu.translation.walk import walk

if TYPE_CHECKING:
    from vmxemu.state import State

STALE_USES = U(_STALE_USES)
WALK_BYTES = U(Walk.FIELDS["recording"].offset)  # without the journal
# StaleUse.owed: the guest's tables have changed; EPT has; the dirty flag was cleared in the guest's entry, or in EPT's;
# the tag (VPID, PCID) stands for other tables
OWED_GUEST, OWED_EPT, OWED_DIRTY, OWED_EPT_DIRTY, OWED_TAG = (U(i) for i in range(1, 6))
SAME, DIFFERENT, CLEAN = U(0), U(1), U(2)
PROBE, PROBE_FLAGS = U(1), U(2)  # m.tlb.probing
PAGE = U(12)


@apart
def check_hit(m: "State", slot: int, gla: int, access: int, required: int) -> None:
    """Compare a TLB entry that is about to be used with what memory says."""
    value = m.tlb.entries[slot]
    gpa = value.gpa | gla & page_offset(value.word)
    take_birth(m, slot)
    found = _compare(m, gla, access, required, value.word, gpa, PROBE)
    if found == SAME:
        return
    source = FROM_STLB
    if slot < m.tlb.arrays[STLB * 3].first:
        source = FROM_ITLB if slot >= m.tlb.arrays[L1I * 3].first else FROM_DTLB
    _report(m, gla, access, source, _owed(m, found, value.word, gpa), value.word, gpa)


@apart
def check_walk(m: "State", gla: int, access: int, required: int, word: int) -> None:
    """Compare what a walk with the help of walk caches has found (FAILED and an outcome included) with what memory
    says. `begin_birth` was called before it.
    """
    gpa, owed = m.walk.gpa, U(0)
    found = _compare(m, gla, access, required, word, gpa, PROBE_FLAGS)
    if found == DIFFERENT and not _is_no_use(m, word):
        source = find_source(m, gla, word)
        _take_path(m)
        owed = _owed(m, found, word, gpa)
        _report(m, gla, access, source, owed, word, gpa)
    end_birth(m, owed)


@kernel
def _is_no_use(m: "State", word: int) -> bool:
    """Whether a walk that failed while memory says otherwise has still used nothing stale: a page fault for want of rights
    in a paging-structure cache; a full log, which the walk to compare with does not look at.
    """
    if word & FAILED == 0:
        return False
    kind = kind_of(word & ~FAILED)
    return (kind == FAULT or kind == PML_FULL) and _same_tables(m)


@kernel
def _compare(m: "State", gla: int, access: int, required: int, word: int, gpa: int, probing: int) -> int:
    """SAME; DIFFERENT; or CLEAN: the same, but a dirty flag is 0 that a store would have to set. What memory says is
    left in `m.tlb.probed_word` and `m.tlb.probe`.
    """
    clean = SAME
    if access & 3 == WRITE and word & FAILED == 0:
        if _probe(m, gla, access & ~WRITE | READ, required, PROBE) & (FAILED | MAY_WRITE_WP0) == 0:
            clean = CLEAN
    now = _probe(m, gla, access, required, probing)
    if now & FAILED != 0 or word & FAILED != 0:
        return SAME if now == word else DIFFERENT
    if _address(word, gla) != _address(now, gla):
        return DIFFERENT
    return clean


@kernel
def _address(word: int, gla: int) -> int:
    offset = page_offset(word)
    return word & FRAME_MASK & ~offset | gla & offset


@kernel
def _probe(m: "State", gla: int, access: int, required: int, probing: int) -> int:
    """What memory says: a word, or FAILED and the outcome. Nothing is counted, cached, charged, set or recorded."""
    tlb, state, kept = m.tlb, m.walk, address_of(m.tlb.before_probe)
    recording = state.recording
    copy_bytes(kept, address_of(state), WALK_BYTES)
    begin_birth(m)
    tables, nested, pages, caches = tlb.tables_on, tlb.nested_on, tlb.nested_pages_on, m.caches.on
    ept_tables = tlb.ept_tables_on
    tlb.tables_on = 0
    tlb.ept_tables_on = 0
    tlb.nested_on = 0
    tlb.nested_pages_on = 0
    m.caches.on = 0
    state.recording = 0
    state.qualification = 0
    tlb.probing = probing
    word = walk(m, gla, access, required)
    tlb.probing = 0
    tlb.tables_on = tables
    tlb.ept_tables_on = ept_tables
    tlb.nested_on = nested
    tlb.nested_pages_on = pages
    m.caches.on = caches
    tlb.probed_word = word
    copy_bytes(address_of(tlb.probe), address_of(state), WALK_BYTES)
    copy_bytes(address_of(state), kept, WALK_BYTES)
    state.recording = recording
    return word


@kernel
def _same_tables(m: "State") -> bool:
    """Whether the walk without effects has come to every entry that the walk has read."""
    for level in range(LEVELS):
        was_gpa, was = m.walk.entry_gpa[level], m.walk.entry_hpa[level]
        if was_gpa != 0 and was_gpa != m.tlb.probe.entry_gpa[level]:
            return False
        if was != 0 and was != m.tlb.probe.entry_hpa[level]:
            return False
    return True


@kernel
def _take_path(m: "State") -> None:
    """The entries that the walk has read, to be compared with those that it should have read."""
    birth = m.tlb.birth
    birth.owed = 0
    for level in range(LEVELS):
        birth.entry_gpa[level] = m.walk.entry_gpa[level]
        birth.entry_hpa[level] = m.walk.entry_hpa[level]


@kernel
def _owed(m: "State", found: int, word: int, gpa: int) -> int:
    """Which invalidation was not made for the translation of `m.tlb.birth`."""
    birth, now = m.tlb.birth, m.tlb.probe
    if birth.owed != 0:
        return birth.owed
    if found == CLEAN:
        return OWED_EPT_DIRTY if _guest_is_dirty(m) else OWED_DIRTY
    if birth.root != root_of(m) and birth.clock != 0 and (word & FAILED != 0 or word & GLOBAL == 0):
        return OWED_TAG
    level = LEVELS
    while level > 1:
        level = level - 1
        if birth.entry_gpa[level] != 0 and now.entry_gpa[level] != 0:
            if birth.entry_gpa[level] != now.entry_gpa[level]:
                return OWED_GUEST
            if now.entry_hpa[level] != 0 and birth.entry_hpa[level] != 0 and birth.entry_hpa[level] != now.entry_hpa[level]:
                return OWED_EPT
    return _owed_for_page(m, word, gpa)


@kernel
def _owed_for_page(m: "State", word: int, gpa: int) -> int:
    """The same where all tables stand where they stood: the last entry of one kind has changed."""
    now = m.tlb.probed_word
    if now & FAILED != 0:
        if kind_of(now & ~FAILED) == FAULT:
            return OWED_GUEST
        if m.tlb.probe.qualification & IS_TRANSLATION == 0:
            return OWED_EPT
    if word & FAILED != 0:
        return OWED_GUEST if kind_of(word & ~FAILED) == FAULT else OWED_EPT
    return OWED_GUEST if m.tlb.probe.gpa >> PAGE != gpa >> PAGE else OWED_EPT


@kernel
def _guest_is_dirty(m: "State") -> bool:
    """Whether the guest's last entry has its dirty flag; so does what has no such entry."""
    for level in range(1, LEVELS):
        at = m.tlb.probe.entry_hpa[level]
        if at != 0:
            return read8(m, at) & D != 0
    return True


@kernel
def _report(m: "State", gla: int, access: int, source: int, owed: int, word: int, gpa: int) -> None:
    """Count a use; the first of a page and kind with all that is known of it."""
    tlb = m.tlb
    tlb.stale_count = tlb.stale_count + 1
    for place in range(tlb.stale_kinds):
        if _is_like(m, place, gla, access, source, owed):
            tlb.stale[place].count = tlb.stale[place].count + 1
            return
    if tlb.stale_kinds >= STALE_USES:
        return
    use = tlb.stale[tlb.stale_kinds]
    use.count = 1
    use.gla = gla
    use.access = access
    use.source = source
    use.owed = owed
    use.cached_gpa = gpa
    use.cached_word = word
    use.now_gpa = tlb.probe.gpa
    use.now_word = tlb.probed_word
    use.born_clock = tlb.birth.clock
    use.born_ticks = tlb.birth.ticks
    use.used_clock = tlb.clock
    use.used_ticks = m.clock.ticks
    use.pcid = current_pcid(m)
    use.vpid = m.paging.vpid
    use.ept_pointer = m.paging.ept_pointer
    use.rip = m.r.rip
    use.level = _level(m)
    tlb.stale_kinds = tlb.stale_kinds + 1


@kernel
def _level(m: "State") -> int:
    if m.cpu.in_smm != 0:
        return U(3)
    if m.vmx.non_root == 0:
        return U(0)
    return m.outer.level if m.outer.up != 0 else U(1)


@inlined
def _is_like(m: "State", place: int, gla: int, access: int, source: int, owed: int) -> bool:
    use, paging = m.tlb.stale[place], m.paging
    kind = (use.access ^ access) | (use.source ^ source) | (use.owed ^ owed)
    tag = (use.vpid ^ paging.vpid) | (use.ept_pointer ^ paging.ept_pointer)
    return kind | tag | (use.gla ^ gla) >> PAGE == 0

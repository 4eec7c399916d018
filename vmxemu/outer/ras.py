"""Memory faults: counting corrected errors, migrating a page under the running VMM2, containing uncorrected errors."""

from typing import TYPE_CHECKING

from vmxemu.jit import copy_bytes, kernel, load8, store8
from vmxemu.layout import u64 as U
from vmxemu.memory.frames import frame_state, poison_line, set_frame_state
from vmxemu.memory.layout import FAILING, HEALTHY, HOLDS_CODE, MAPPED_ON_BEHALF, POISONED, RETIRED
from vmxemu.memory.physical import frame_index, host_address, read64, write64
from vmxemu.outer.ept02 import forget_frame
from vmxemu.outer.ept_tables import FRAME_MASK, FROM_POOL, NOT_MAPPED, leaf_4k, translate_software
from vmxemu.outer.guest_view import host_of, vmcs02, vmcs12
from vmxemu.outer.layout import COUNTED_FRAMES as _COUNTED
from vmxemu.outer.layout import MIGRATIONS as _MIGRATIONS
from vmxemu.outer.merge import place_pages
from vmxemu.outer.pool import NO_FRAME, fill_frame, take_frame
from vmxemu.timing import costs
from vmxemu.timing.clock import charge_event, now_cycles
from vmxemu.trace import events
from vmxemu.trace.emit import emit

if TYPE_CHECKING:
    from vmxemu.state import State

MIGRATED, ALREADY_RETIRED, POOL_EMPTY, NOT_VM1_MEMORY, SOURCE_POISONED, NO_TABLE = (U(i) for i in range(6))  # MIGRATION's status
STATUS_NAMES = {
    0: "migrated",
    1: "already retired",
    2: "pool exhausted",
    3: "not VM1's memory",
    4: "source poisoned",
    5: "no table page",
}
COUNTED_CAPACITY, MIGRATION_CAPACITY = U(_COUNTED), U(_MIGRATIONS)
RETIRED_PATTERN = U(0xDEAD_F4A3_DEAD_F4A3)  # a retired frame gives garbage, so that a stale translation shows
FRAME_OFFSET = U(0xFFF)


@kernel
def gpa1_of(m: "State", hpa: int) -> int:
    """VM1's guest-physical address of a frame; NOT_MAPPED if VM1 does not have it. EPT01 maps identically but for migrated
    pages."""
    outer = m.outer
    for index in range(outer.migration_count):
        entry = outer.migrations[outer.migration_count - 1 - index]
        if entry.new_hpa >> 12 == hpa >> 12:
            return entry.gpa | hpa & FRAME_OFFSET
    if translate_software(m, outer.ept01 & FRAME_MASK, hpa) == hpa:
        return hpa
    return NOT_MAPPED


@kernel
def count_error(m: "State", hpa: int) -> int:
    """One more corrected error of this frame; returns how many it has had."""
    outer = m.outer
    frame = hpa >> 12 << 12
    for index in range(outer.counted_frames):
        if outer.counted[index].hpa == frame:
            outer.counted[index].errors = outer.counted[index].errors + 1
            return outer.counted[index].errors
    if outer.counted_frames >= COUNTED_CAPACITY:
        return outer.threshold  # no room to count: treat the frame as failing
    entry = outer.counted[outer.counted_frames]
    entry.hpa = frame
    entry.errors = 1
    outer.counted_frames = outer.counted_frames + 1
    return U(1)


@kernel
def corrected(m: "State", hpa: int) -> int:
    """A corrected error at `hpa`: count it; at the threshold move the page. Returns 1 if it was moved."""
    if frame_state(m, hpa) == RETIRED:
        return U(0)
    if count_error(m, hpa) < m.outer.threshold:
        return U(0)
    return U(1) if migrate(m, hpa >> 12 << 12) == MIGRATED else U(0)


@kernel
def migrate(m: "State", old: int) -> int:
    """Move the page of VM1 that stands in the frame `old` to a sequestered frame and retire the frame. Records the outcome."""
    began = now_cycles(m)
    gpa = gpa1_of(m, old)
    fresh = NO_FRAME
    status = MIGRATED
    if frame_state(m, old) == RETIRED:
        status = ALREADY_RETIRED
    elif gpa == NOT_MAPPED:
        status = NOT_VM1_MEMORY
    elif frame_state(m, old) == POISONED:
        status = SOURCE_POISONED
    else:
        set_frame_state(m, old, FAILING if frame_state(m, old) == HEALTHY else frame_state(m, old))
        leaf = leaf_4k(m, m.outer.ept01 & FRAME_MASK, gpa, FROM_POOL)
        if leaf == NOT_MAPPED or m.outer.migration_count >= MIGRATION_CAPACITY:
            status = NO_TABLE
        else:
            fresh = take_frame(m, MAPPED_ON_BEHALF)
            if fresh == NO_FRAME:
                status = POOL_EMPTY
            else:
                move(m, gpa, leaf, old, fresh)
    emit(m, events.MIGRATION, status, gpa, old, fresh, now_cycles(m) - began)
    return status


@kernel
def move(m: "State", gpa: int, leaf: int, old: int, fresh: int) -> None:
    """Copy, remap in EPT01, drop everything derived from the old mapping, and only then retire the source."""
    outer = m.outer
    charge_event(m, costs.PAGE_COPY)
    copy_bytes(host_address(m, fresh), host_address(m, old), 4096)
    write64(m, leaf, read64(m, leaf) & ~FRAME_MASK | fresh)
    if outer.invalidation != 0:
        cleared = forget_frame(m, old)
        emit(m, events.INVALIDATION, cleared, outer.ept01 & FRAME_MASK, gpa, 4096, 0)
    remember(m, gpa, old, fresh)
    refresh_pointers(m)
    retire(m, old)


@kernel
def remember(m: "State", gpa: int, old: int, fresh: int) -> None:
    """Keep the new place of the page for gpa1_of."""
    outer = m.outer
    entry = outer.migrations[outer.migration_count]
    entry.gpa = gpa
    entry.old_hpa = old
    entry.new_hpa = fresh
    outer.migration_count = outer.migration_count + 1


@kernel
def refresh_pointers(m: "State") -> None:
    """VMM1's shortcuts into VM1's memory may have moved with the page."""
    nested = m.outer.nested
    if nested.host_address != 0:
        nested.host_address = host_of(m, nested.current)
        place_pages(m, vmcs02(m), vmcs12(m))


@kernel
def retire(m: "State", hpa: int) -> None:
    """Take a frame out of use for good: its contents are worthless from here on."""
    index = frame_index(m, hpa)
    at = m.memory.frames + index
    holds_code = load8(at) & HOLDS_CODE != 0
    fill_frame(m, hpa, RETIRED_PATTERN)
    set_frame_state(m, hpa, RETIRED)
    if holds_code:
        store8(at, RETIRED)
        m.engine.drop_all_code = 1
    emit(m, events.FRAME, RETIRED, hpa, 0, 0, 0)


@kernel
def contain(m: "State", hpa: int) -> None:
    """An uncorrected error that nobody has consumed: from here on the frame gives no data to anyone, copied or not."""
    if frame_state(m, hpa) == HEALTHY or frame_state(m, hpa) == FAILING:
        emit(m, events.FRAME, POISONED, hpa, 0, 0, 0)
    if frame_state(m, hpa) != RETIRED:
        poison_line(m, hpa)

"""Paging-structure caches of EPT: where the EPT table is that an entry of level n refers to, by guest-physical address.

They spare an EPT walk its upper references. SDM Vol. 3C, 'Information That May Be Cached' (guest-physical mappings).
"""

from typing import TYPE_CHECKING

from vmxemu.jit import load64
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import read64
from vmxemu.translation.associative import find_latest, keep, note_use
from vmxemu.translation.bits import EPT_LARGE, EPTP_AD, FRAME_MASK
from vmxemu.translation.data_caches import reference_cycles
from vmxemu.translation.ept_failure import WANT_SHADOW_STACK
from vmxemu.translation.ept_page import (
    ONE_LEVEL,
    SIZE_OF_SHIFT,
    STORE_READY,
    TWO_LEVELS,
    is_refused,
    read_entry,
)
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.journal import note
from vmxemu.translation.layout import EPT_MODE_BASED_EXECUTE, STEP_EPT, STEP_EPT_WALK_CACHE
from vmxemu.translation.replacement import drop
from vmxemu.translation.tlb import MISS, guest_physical_space
from vmxemu.translation.tlb_layout import EPT_TABLES

if TYPE_CHECKING:
    from vmxemu.state import State

NOT_FROM_HERE = U(1 << 62)  # no answer of a walk
PAGE = U(12)
LAST_LEVEL = U(5)
NOWHERE = U(1)  # no entry has this address
RIGHTS = U(7)


@apart
def walk_below(
    m: "State", eptp: int, gpa: int, want: int, guest_level: int, ram: int, plain: int, reserved: int
) -> int:
    """The answer of an EPT walk (translation.ept) that begins at the deepest table that is known, for a permitted access
    that needs no flag set; else NOT_FROM_HERE, and nothing has happened: the walk from the top is to be made.

    The straight way is one or two entries in plain RAM.
    """
    if want & WANT_SHADOW_STACK | m.paging.ept_extensions & EPT_MODE_BASED_EXECUTE != 0:
        return NOT_FROM_HERE
    space = guest_physical_space(m)
    level = U(2)
    slot = MISS
    while slot == MISS:
        if m.tlb.arrays[EPT_TABLES + level].ways != 0:
            page = _page(gpa, level)
            slot = find_latest(m, EPT_TABLES + level, page, page << PAGE, space)
        level = level + 1
        if level > LAST_LEVEL and slot == MISS:
            return NOT_FROM_HERE
    first = level - 2  # of the entries to be read
    word = m.tlb.entries[slot].word
    at = word & FRAME_MASK | gpa >> first * 9 & 0xFF8
    if first > 2 or at >= plain:
        return _walk_far(m, eptp, gpa, want, guest_level, ram, plain, reserved, slot, first)
    entry = load64(ram + at)
    both, tables, shift = (word | ~RIGHTS) & entry, U(0), first * 9
    upper, rights = NOWHERE, U(0)
    if first == 2 and entry & EPT_LARGE == 0:
        upper, tables, shift = at, entry, ONE_LEVEL
        rights = word & entry & RIGHTS
        at = entry & FRAME_MASK | gpa >> 9 & 0xFF8
        if at >= plain:
            return _walk_far(m, eptp, gpa, want, guest_level, ram, plain, reserved, slot, first)
        entry = load64(ram + at)
        both = both & entry
    if is_refused(m, eptp, want, both, tables, entry, shift, reserved):
        return NOT_FROM_HERE
    _note_start(m, first, slot)
    m.walk.references = m.walk.references + 1
    index = guest_level * 64 + shift + first
    m.tlb.ept_walks[index] = m.tlb.ept_walks[index] + 1
    if upper != NOWHERE:
        m.walk.references = m.walk.references + 1
        if m.caches.on != 0:
            m.walk.memory_cycles = m.walk.memory_cycles + reference_cycles(m, upper, eptp & 7)
        _keep(m, gpa, TWO_LEVELS, tables & FRAME_MASK | rights, space)
    if m.caches.on != 0:
        m.walk.memory_cycles = m.walk.memory_cycles + reference_cycles(m, at, eptp & 7)
    return _answer(eptp, gpa, both, entry, shift)


@apart
def _walk_far(
    m: "State",
    eptp: int,
    gpa: int,
    want: int,
    guest_level: int,
    ram: int,
    plain: int,
    reserved: int,
    slot: int,
    first: int,
) -> int:
    """The same from the table of entry `slot` on, for any number of levels, in any memory, with the journal."""
    word = m.tlb.entries[slot].word
    both, tables, entry = word | ~RIGHTS, U(0), word
    shift = first * 9
    while True:
        at = entry & FRAME_MASK | gpa >> shift & 0xFF8
        entry = read_entry(m, at, ram, plain)
        both = both & entry
        if shift == ONE_LEVEL or entry & EPT_LARGE != 0:
            break
        tables = tables | entry
        shift = shift - 9
    if is_refused(m, eptp, want, both, tables, entry, shift, reserved):
        return NOT_FROM_HERE
    _note_start(m, first, slot)
    if m.walk.recording != 0:
        note(m, STEP_EPT_WALK_CACHE, first + 1, guest_level, gpa, word & FRAME_MASK, word, U(0))
    _account(m, eptp, gpa, guest_level, word, first, shift)
    return _answer(eptp, gpa, both, entry, shift)


@inlined
def _note_start(m: "State", first: int, slot: int) -> None:
    """The walk has begun below a cached entry: it was used."""
    note_use(m, EPT_TABLES + first + 1, slot)
    m.tlb.ept_table_hits[first + 1] = m.tlb.ept_table_hits[first + 1] + 1


@inlined
def _answer(eptp: int, gpa: int, both: int, entry: int, shift: int) -> int:
    ready = STORE_READY if eptp & EPTP_AD == 0 else entry >> 6 & STORE_READY
    low = (both & 7) | ready | (entry & 0x78) << 4
    if shift == ONE_LEVEL:
        return entry & FRAME_MASK | low
    offset = ((1 << (shift + 3)) - 1) & FRAME_MASK
    size: int = SIZE_OF_SHIFT[shift]
    return (entry & FRAME_MASK & ~offset) | (gpa & offset) | low | size


@inlined
def _account(m: "State", eptp: int, gpa: int, guest_level: int, word: int, first: int, last: int) -> None:
    """Count and charge the references from level `first` to the shift `last`, and keep what they refer to: it is in no cache
    yet. `word`: the cached entry.
    """
    m.walk.references = m.walk.references + first + 1 - (last * 57 >> 9)
    index = guest_level * 64 + last + first
    m.tlb.ept_walks[index] = m.tlb.ept_walks[index] + 1
    space = guest_physical_space(m)
    table, rights, shift = word & FRAME_MASK, word & RIGHTS, first * 9
    while True:
        at = table | gpa >> shift & 0xFF8
        cycles = U(0)
        if m.caches.on != 0:
            cycles = reference_cycles(m, at, eptp & 7)
            m.walk.memory_cycles = m.walk.memory_cycles + cycles
        entry = read64(m, at)
        if m.walk.recording != 0:
            note(m, STEP_EPT, shift * 57 >> 9, guest_level, gpa, at, entry, cycles)
        if shift == last:
            return
        rights = rights & entry
        table = entry & FRAME_MASK
        _keep(m, gpa, shift, table | rights, space)
        shift = shift - 9


@apart
def keep_ept_tables(m: "State", eptp: int, gpa: int, leaf_shift: int) -> None:
    """Remember the tables on the way of a walk from the top that was permitted and has set its flags."""
    shift = ((eptp >> 3 & 7) + 1) * 9
    table, rights, space = eptp & FRAME_MASK, RIGHTS, guest_physical_space(m)
    while shift > leaf_shift:
        entry = read64(m, table | gpa >> shift & 0xFF8)
        rights = rights & entry
        table = entry & FRAME_MASK
        level = shift * 57 >> 9
        page = _page(gpa, level)
        slot = find_latest(m, EPT_TABLES + level, page, page << PAGE, space)
        if slot != MISS:  # it was of no use to this walk
            drop(m, slot)
        _keep(m, gpa, shift, table | rights, space)
        shift = shift - 9


@apart
def _keep(m: "State", gpa: int, shift: int, word: int, space: int) -> None:
    """Remember the table that the entry of this shift refers to."""
    level = shift * 57 >> 9
    if m.tlb.arrays[EPT_TABLES + level].ways != 0:
        page = _page(gpa, level)
        keep(m, EPT_TABLES + level, page, page << PAGE, space, word, gpa)


@inlined
def _page(gpa: int, level: int) -> int:
    """What an entry of this level is known by."""
    return gpa >> (level - 1) * 9 + PAGE

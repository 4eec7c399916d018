"""What the search for stale translations has to know of each cached one: when it was made, and by which of the guest's
entries. Kept while `m.tlb.checking` is 1.
"""

from typing import TYPE_CHECKING

from vmxemu.jit import address_of, copy_bytes
from vmxemu.layout import u64 as U
from vmxemu.translation.bits import FRAME_MASK
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.tlb_layout import TABLES, Birth

if TYPE_CHECKING:
    from vmxemu.state import State

BIRTH_BYTES = U(Birth.SIZE)
LEVELS = U(6)
FIRST_WALK_CACHE = TABLES + U(2)


@apart
def note_birth(m: "State", number: int, slot: int) -> None:
    """An entry of an array was filled. A translation of a page has the birth that the search has put together, one that is
    copied from the second level that of the copied one; what a walk cache keeps is born now.
    """
    birth = m.tlb.births[slot]
    if number < FIRST_WALK_CACHE:
        copy_bytes(address_of(birth), address_of(m.tlb.birth), BIRTH_BYTES)
    else:
        birth.clock = m.tlb.clock
        birth.ticks = m.clock.ticks
        birth.root = root_of(m)


@inlined
def root_of(m: "State") -> int:
    """What tells one set of the guest's tables from another."""
    return m.r.cr[3] & FRAME_MASK


@apart
def take_birth(m: "State", slot: int) -> None:
    """What is inserted next is a copy of this entry."""
    copy_bytes(address_of(m.tlb.birth), address_of(m.tlb.births[slot]), BIRTH_BYTES)


@apart
def begin_birth(m: "State") -> None:
    """A walk is to begin: forget which entries earlier ones have read."""
    for level in range(LEVELS):
        m.walk.entry_gpa[level] = 0
        m.walk.entry_hpa[level] = 0


@apart
def end_birth(m: "State", owed: int) -> None:
    """What is inserted next was found just now, by the entries that the latest walk without effects has read."""
    birth, found = m.tlb.birth, m.tlb.probe
    birth.clock = m.tlb.clock
    birth.ticks = m.clock.ticks
    birth.root = root_of(m)
    birth.owed = owed
    for level in range(LEVELS):
        birth.entry_gpa[level] = found.entry_gpa[level]
        birth.entry_hpa[level] = found.entry_hpa[level]

"""Walk caches: fully associative arrays of the TLB's pool. An entry is found by its key, used, and kept in the place of the
least recently used one (or where the tree points to).
"""

from typing import TYPE_CHECKING

from vmxemu.jit import address_of
from vmxemu.layout import u64 as U
from vmxemu.translation.births import note_birth
from vmxemu.translation.bytes64 import matching_of_64, replace_byte, to_front
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.lanes import lowest_bit
from vmxemu.translation.replacement import STAMP_SHIFT, free_way, place, used
from vmxemu.translation.tlb import CANNOT_BE_KEPT, MISS, find_in, match
from vmxemu.translation.tlb_layout import PAGE_ARRAYS, SmallArray

if TYPE_CHECKING:
    from vmxemu.state import State

FIRST = U(PAGE_ARRAYS)
EVERYTHING = U(0xFFFF_FFFF_FFFF_FFFF)
ORDER = U(SmallArray.FIELDS["order"].offset)


@inlined
def find_latest(m: "State", number: int, page: int, tag: int, space: int) -> int:
    """Slot of an entry, or MISS. First the one that was found last: walks often need what the walk before has found."""
    slot = m.tlb.latest[number]
    if match(m, slot, tag, space, MISS) != MISS:
        return slot
    array = m.tlb.arrays[number]
    found = MISS
    if array.small != 0:
        filters = address_of(m.tlb.small[number - FIRST])
        alike = matching_of_64(filters, page ^ page >> 8) & EVERYTHING >> (64 - array.ways)
        while alike != 0:
            found = match(m, array.first + lowest_bit(alike), tag, space, found)
            alike = alike & alike - 1
    else:
        found = find_in(m, number, page, tag, space)
    if found != MISS:
        m.tlb.latest[number] = found
    return found


@inlined
def note_use(m: "State", number: int, slot: int) -> None:
    """An entry was used now."""
    array = m.tlb.arrays[number]
    if array.small != 0:
        to_front(address_of(m.tlb.small[number - FIRST]) + ORDER, slot - array.first)
    else:
        used(m, slot)
        _age(m, number, slot)


@inlined
def keep(m: "State", number: int, page: int, tag: int, space: int, word: int, gpa: int) -> None:
    """Fill an entry."""
    if space & CANNOT_BE_KEPT != 0:
        return
    array = m.tlb.arrays[number]
    if array.small == 0:
        _age(m, number, place(m, number, page, tag, space, word, gpa))
        return
    small = m.tlb.small[number - FIRST]
    way = MISS if m.tlb.may_have_room >> number & 1 == 0 else free_way(m, array.first, array.ways)
    if way == MISS:
        m.tlb.may_have_room = m.tlb.may_have_room & ~(1 << number)
        way = small.order[array.ways - 1]
    to_front(address_of(small) + ORDER, way)
    replace_byte(address_of(small), way, page ^ page >> 8)
    slot = array.first + way
    entry = m.tlb.entries[slot]
    entry.tag = tag
    entry.space = space
    entry.word = word
    entry.gpa = gpa
    if m.tlb.checking != 0:
        note_birth(m, number, slot)


@apart
def _age(m: "State", number: int, slot: int) -> None:
    """A walk may use several entries of one array in one look-up: each use counts."""
    if m.tlb.arrays[number].tree_levels == 0:
        m.tlb.uses = m.tlb.uses + 1
        m.tlb.stamps[slot] = m.tlb.uses << STAMP_SHIFT | slot

"""The TLB's entries one by one: which were used, which go, what takes their places."""

from typing import TYPE_CHECKING

from vmxemu.jit import address_of, load32, store32
from vmxemu.layout import u64 as U
from vmxemu.translation.births import note_birth
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.lanes import LANES, least
from vmxemu.translation.rights import CLASS_SHIFT
from vmxemu.translation.tlb import BYTE, CANNOT_BE_KEPT, FILTERS, GLOBAL_TAG, MISS, PAGE, REGION, SIZE_SHIFT, find_in, set_of
from vmxemu.translation.tlb_layout import ARRAYS, BY_TREE, CLASS_2M, STLB, Tlb
from vmxemu.translation.tree_plru import away_from, pointed_to

if TYPE_CHECKING:
    from vmxemu.state import State

FOUR = U(0xFFFF_FFFF_FFFF_FFFC)
STAMPS = U(Tlb.FIELDS["stamps"].offset)
MAY_HAVE_ROOM = U(1)  # of a set's tree
EVERY_ARRAY = U((1 << ARRAYS) - 1)
EVERY_REGION = U(0xFFFF_FFFF_FFFF_FFFF)
STAMP_SHIFT, SLOT_MASK = U(14), U(0x3FFF)
NEVER_VICTIM = U(0xFFFF_FFFF_FFFF_FFFF)  # stamp of the entries that only fill up a stride
NOT_CLASS = U(0xFFFF_FFFF_FFFF_FF3F)


@inlined
def used(m: "State", slot: int) -> None:
    """Note that an entry was used now."""
    used_at(m, slot, m.tlb.clock)


@inlined
def used_at(m: "State", slot: int, clock: int) -> None:
    """The same for callers that keep the clock themselves."""
    where = m.tlb.sets[slot]
    if where & BY_TREE != 0:
        first = where ^ BY_TREE
        m.tlb.trees[first >> 2] = away_from(m.tlb.trees[first >> 2], slot - first)
    else:
        m.tlb.stamps[slot] = clock << STAMP_SHIFT | slot


@inlined
def drop(m: "State", slot: int) -> None:
    """Invalidate an entry; it will be the first of its set to be reused."""
    m.tlb.entries[slot].space = 0
    m.tlb.stamps[slot] = slot
    quarter = (m.tlb.sets[slot] & ~BY_TREE) >> 2
    m.tlb.trees[quarter] = m.tlb.trees[quarter] | MAY_HAVE_ROOM
    m.tlb.may_have_room = EVERY_ARRAY


@inlined
def victim(m: "State", number: int, page: int) -> int:
    """Slot of a page's set to be filled, the most recently used one from now on: an invalid entry, else the least recently
    used one or the one that the tree points to.
    """
    array = m.tlb.arrays[number]
    first = set_of(m, number, page)
    if array.tree_levels != 0:
        tree = m.tlb.trees[first >> 2]
        way = MISS if tree & MAY_HAVE_ROOM == 0 else free_way(m, first, array.ways)
        if way == MISS:
            tree = tree & ~MAY_HAVE_ROOM
            way = pointed_to(tree, array.tree_nodes, array.tree_levels)
        m.tlb.trees[first >> 2] = away_from(tree, way)
        return first + way
    slot = _oldest(m, first, array.stride)
    m.tlb.stamps[slot] = m.tlb.clock << STAMP_SHIFT | slot
    return slot


@inlined
def _oldest(m: "State", first: int, stride: int) -> int:
    stamps = address_of(m.tlb) + STAMPS + (first << 3)
    if stride <= 4:
        low = min(m.tlb.stamps[first], m.tlb.stamps[first + 1])
        high = min(m.tlb.stamps[first + 2], m.tlb.stamps[first + 3])
        return min(low, high) & SLOT_MASK
    oldest = least(stamps, min(stride, LANES))
    while stride > LANES:
        stride = stride - LANES
        stamps = stamps + LANES * 8
        oldest = min(oldest, least(stamps, min(stride, LANES)))
    return oldest & SLOT_MASK


@apart
def free_way(m: "State", first: int, ways: int) -> int:
    """The first way of a set that holds nothing valid, or MISS."""
    for way in range(ways):
        if m.tlb.entries[first + way].space == 0:
            return way
    return MISS


@inlined
def place(m: "State", number: int, page: int, tag: int, space: int, word: int, gpa: int) -> int:
    """Fill an entry of the page's set in an array; gives its slot."""
    slot = victim(m, number, page)
    entry = m.tlb.entries[slot]
    entry.tag = tag
    entry.space = space
    entry.word = word
    entry.gpa = gpa
    filters, byte = address_of(m.tlb) + FILTERS + (slot & FOUR), (slot & 3) * 8
    store32(filters, load32(filters) & ~(BYTE << byte) | ((page ^ page >> 8) & BYTE) << byte)
    if m.tlb.checking != 0:
        note_birth(m, number, slot)
    return slot


@inlined
def insert(m: "State", group: int, address: int, pcid: int, space: int, page_class: int, word: int, gpa: int) -> None:
    """Put a translation into a group. A page larger than the group can hold is kept as its part around `address`."""
    number = group * 3
    if space & CANNOT_BE_KEPT != 0:
        return
    if page_class != 0:  # a branch, so that in the usual case nothing has to wait for the class to find the set
        _insert_large(m, group, address, pcid, space, page_class, word, gpa)
    elif m.tlb.arrays[number].ways != 0:
        page = address >> PAGE
        place(m, number, page, page << PAGE | pcid, space, word, gpa)
        m.tlb.live = m.tlb.live | 1 << number


@apart
def _insert_large(m: "State", group: int, address: int, pcid: int, space: int, page_class: int, word: int, gpa: int) -> None:
    number = group * 3 + page_class
    while m.tlb.arrays[number].ways == 0:
        if number == group * 3:
            return
        number = number - 1
    kept_class = number - group * 3
    shift = PAGE + kept_class * 9
    page = address >> shift
    # It may be there already, where an access was refused by a smaller part of it in another array.
    same = find_in(m, number, page, page << shift | pcid, space & ~GLOBAL_TAG | kept_class << SIZE_SHIFT)
    if same != MISS:
        drop(m, same)
    frame_offset = ((1 << (PAGE + page_class * 9)) - 1) >> shift << shift
    kept_word = word & NOT_CLASS | kept_class << CLASS_SHIFT | (address & frame_offset)
    place(
        m, number, page, page << shift | pcid, space | kept_class << SIZE_SHIFT, kept_word, gpa | address & frame_offset
    )
    m.tlb.live = m.tlb.live | 1 << number
    if kept_class != 0:
        region = 1 << (address >> REGION & 0x3F) if kept_class == CLASS_2M else EVERY_REGION
        m.tlb.large_regions[group] = m.tlb.large_regions[group] | region


@inlined
def insert_everywhere(
    m: "State", group: int, address: int, pcid: int, space: int, page_class: int, word: int, gpa: int
) -> None:
    """After a walk: into the first level and the STLB."""
    insert(m, group, address, pcid, space, page_class, word, gpa)
    insert(m, STLB, address, pcid, space, page_class, word, gpa)

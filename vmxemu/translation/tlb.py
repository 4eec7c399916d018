"""The TLB: look-up, insertion, removal of single entries.

A key has two words. `tag`: the page's address in bits 63:12, the PCID below. `space`: whose translation it is: EP4TA
in 45:12, VPID in 53:46 and 11:0 (twenty bits: VPID 0 gets a fresh number each time all of its translations are
dropped), page-size class in 55:54, kind in 57:56 (bit 56: of linear addresses, bit 57: through EPT; both = combined
mapping), and in 63:60 how many low bits of the tag do not count: 12 for a global page, whatever the PCID. SDM Vol.
3C, 'Caching Translation Information'.
"""

from typing import TYPE_CHECKING

from vmxemu.jit import address_of, kernel, load32, store32
from vmxemu.layout import u64 as U
from vmxemu.translation.births import note_birth
from vmxemu.translation.bits import CR4_PCIDE, FRAME_MASK, PCID_MASK
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.lanes import LANES, least, lowest_bit, matching_bytes
from vmxemu.translation.rights import CLASS_SHIFT
from vmxemu.translation.tlb_layout import BY_TREE, CLASS_1G, STLB, Tlb
from vmxemu.translation.tree_plru import away_from, pointed_to

if TYPE_CHECKING:
    from vmxemu.state import State

MISS = U(0xFFFFFFFF)
EP4TA_MASK = U(0x3FFF_FFFF_F000)
LINEAR, THROUGH_EPT = U(1 << 56), U(1 << 57)
SIZE_SHIFT = U(54)
GLOBAL_TAG = U(12 << 60)
NO_SPACE = U(0x0FFF_FFFF_FFFF_FFFF)  # of an EPTP that has no room in it: nothing is kept there
CANNOT_BE_KEPT = U(1 << 58)  # a bit of that and of no other
VPID0_NUMBERS = U((1 << 20) - (1 << 16))
PAGE = U(12)
BYTE, EACH_BYTE, HIGH_BITS = U(0xFF), U(0x01010101), U(0x80808080)
FOUR = U(0xFFFF_FFFF_FFFF_FFFC)
FILTERS, STAMPS = U(Tlb.FIELDS["filters"].offset), U(Tlb.FIELDS["stamps"].offset)
MAY_HAVE_ROOM = U(1)  # of a set's tree
STAMP_SHIFT, SLOT_MASK = U(14), U(0x3FFF)
NEVER_VICTIM = U(0xFFFF_FFFF_FFFF_FFFF)  # stamp of the entries that only fill up a stride
NOT_CLASS = U(0xFFFF_FFFF_FFFF_FF3F)


@kernel
def vpid_bits(m: "State", vpid: int) -> int:
    """A VPID's place in `space`."""
    number = vpid if vpid != 0 else 0x10000 + m.tlb.vpid0_generation % VPID0_NUMBERS
    return (number & 0xFFF) | number >> 12 << 46


@kernel
def linear_space(m: "State") -> int:
    """`space` of the linear addresses that are in use now, for 4K pages."""
    eptp = m.paging.ept_pointer
    if eptp & FRAME_MASK & ~EP4TA_MASK != 0:
        return NO_SPACE
    kind = LINEAR | THROUGH_EPT if eptp != 0 else LINEAR
    return kind | vpid_bits(m, m.paging.vpid) | (eptp & EP4TA_MASK)


@kernel
def guest_physical_space(m: "State") -> int:
    """`space` of guest-physical addresses; they have no VPID."""
    eptp = m.paging.ept_pointer
    return THROUGH_EPT | eptp & EP4TA_MASK if eptp & FRAME_MASK & ~EP4TA_MASK == 0 else NO_SPACE


@kernel
def current_pcid(m: "State") -> int:
    """PCID in use."""
    return m.r.cr[3] & PCID_MASK if m.r.cr[4] & CR4_PCIDE != 0 else 0


@inlined
def set_of(m: "State", number: int, page: int) -> int:
    """Index of the first entry of the set of a page number in an array."""
    array = m.tlb.arrays[number]
    return array.first + ((page ^ page >> array.hash_shift & array.hash_mask) & array.set_mask) * array.stride


@inlined
def match(m: "State", slot: int, tag: int, space: int, found: int) -> int:
    """`slot` if its key fits, else `found`; without a branch."""
    other_space = m.tlb.spaces[slot] ^ space
    other_tag = (m.tlb.tags[slot] ^ tag) >> (other_space >> 60)
    return slot if (other_tag | other_space << 4) == 0 else found


@inlined
def find_in(m: "State", number: int, page: int, tag: int, space: int) -> int:
    """Slot of a translation in one array, or MISS. Sixteen ways are looked through at a time."""
    slot, ways = set_of(m, number, page), m.tlb.arrays[number].ways
    filters = address_of(m.tlb) + FILTERS
    found = MISS
    if ways <= 4:
        # A wider load would have to wait for the latest insertions of neighbours to reach the cache.
        unlike = load32(filters + slot) ^ ((page ^ page >> 8) & BYTE) * EACH_BYTE
        alike = unlike - EACH_BYTE & ~unlike & HIGH_BITS  # at least where a byte of it is 0
        while alike != 0:
            found = match(m, slot + (lowest_bit(alike) >> 3), tag, space, found)
            alike = alike & alike - 1
        return found
    while True:
        alike = matching_bytes(filters + slot, page ^ page >> 8) & ((1 << ways) - 1 if ways < 16 else 0xFFFF)
        while alike != 0:
            found = match(m, slot + lowest_bit(alike), tag, space, found)
            alike = alike & alike - 1
        if ways <= 16 or found != MISS:
            return found
        slot = slot + 16
        ways = ways - 16


@inlined
def find_latest(m: "State", number: int, page: int, tag: int, space: int) -> int:
    """`find_in` for a walk cache: walks often need what the walk before has found."""
    slot = m.tlb.latest[number]
    if match(m, slot, tag, space, MISS) != MISS:
        return slot
    found = find_in(m, number, page, tag, space)
    if found != MISS:
        m.tlb.latest[number] = found
    return found


@apart
def find_large(m: "State", group: int, address: int, pcid: int, space: int) -> int:
    """Slot of the 2M or 1G translation of an address in a group, or MISS."""
    page_class = 1
    while page_class <= CLASS_1G:
        number = group * 3 + page_class
        if m.tlb.live >> number & 1 != 0:
            shift = PAGE + page_class * 9
            page = address >> shift
            found = find_in(m, number, page, page << shift | pcid, space | page_class << SIZE_SHIFT)
            if found != MISS:
                if group != STLB:
                    m.tlb.large_hints[group << 6 | address >> 21 & 0x3F] = found
                return found
        page_class = page_class + 1
    return MISS


@inlined
def match_large(m: "State", slot: int, address: int, pcid: int, space: int) -> int:
    """`slot` if it translates the address, whatever its page size, else MISS."""
    size = m.tlb.spaces[slot] >> SIZE_SHIFT & 3
    shift = PAGE + size * 9
    return match(m, slot, address >> shift << shift | pcid, space | size << SIZE_SHIFT, MISS)


@inlined
def find(m: "State", group: int, address: int, pcid: int, space: int) -> int:
    """Slot of the translation of an address in a first-level group (L1D, L1I), or MISS."""
    page = address >> PAGE
    tag = page << PAGE | pcid
    hint = group << 8 | page & 0xFF
    found = match(m, m.tlb.hints[hint], tag, space, MISS)
    if found != MISS:
        return found
    large = m.tlb.live >> group * 3 & 6
    if large != 0:
        found = match_large(m, m.tlb.large_hints[group << 6 | address >> 21 & 0x3F], address, pcid, space)
        if found != MISS:
            return found
    found = find_in(m, group * 3, page, tag, space)
    if found != MISS:
        m.tlb.hints[hint] = found
    elif large != 0:
        found = find_large(m, group, address, pcid, space)
    return found


@inlined
def find_second(m: "State", address: int, pcid: int, space: int) -> int:
    """Slot of the translation of an address in the STLB, or MISS."""
    page = address >> PAGE
    found = find_in(m, STLB * 3, page, page << PAGE | pcid, space)
    if found == MISS and m.tlb.live >> STLB * 3 & 6 != 0:
        found = find_large(m, STLB, address, pcid, space)
    return found


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
    m.tlb.spaces[slot] = 0
    m.tlb.stamps[slot] = slot
    quarter = (m.tlb.sets[slot] & ~BY_TREE) >> 2
    m.tlb.trees[quarter] = m.tlb.trees[quarter] | MAY_HAVE_ROOM


@inlined
def victim(m: "State", number: int, page: int) -> int:
    """Slot of a page's set to be filled, the most recently used one from now on: an invalid entry, else the least recently
    used one or the one that the tree points to.
    """
    array = m.tlb.arrays[number]
    first = set_of(m, number, page)
    if array.tree_levels != 0:
        tree = m.tlb.trees[first >> 2]
        way = MISS if tree & MAY_HAVE_ROOM == 0 else _free(m, first, array.ways)
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
def _free(m: "State", first: int, ways: int) -> int:
    """The first way of a set that holds nothing valid, or MISS."""
    for way in range(ways):
        if m.tlb.spaces[first + way] == 0:
            return way
    return MISS


@inlined
def place(m: "State", number: int, page: int, tag: int, space: int, word: int, gpa: int) -> None:
    """Fill an entry of the page's set in an array."""
    if space & CANNOT_BE_KEPT != 0:
        return
    slot = victim(m, number, page)
    m.tlb.tags[slot] = tag
    m.tlb.spaces[slot] = space
    filters, byte = address_of(m.tlb) + FILTERS + (slot & FOUR), (slot & 3) * 8
    store32(filters, load32(filters) & ~(BYTE << byte) | ((page ^ page >> 8) & BYTE) << byte)
    value = m.tlb.values[slot]
    value.word = word
    value.gpa = gpa
    if m.tlb.checking != 0:
        note_birth(m, number, slot)


@inlined
def insert(m: "State", group: int, address: int, pcid: int, space: int, page_class: int, word: int, gpa: int) -> None:
    """Put a translation into a group. A page larger than the group can hold is kept as its part around `address`."""
    number = group * 3
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
    frame_offset = ((1 << (PAGE + page_class * 9)) - 1) >> shift << shift
    kept_word = word & NOT_CLASS | kept_class << CLASS_SHIFT | (address & frame_offset)
    place(
        m, number, page, page << shift | pcid, space | kept_class << SIZE_SHIFT, kept_word, gpa | address & frame_offset
    )
    m.tlb.live = m.tlb.live | 1 << number


@inlined
def insert_everywhere(
    m: "State", group: int, address: int, pcid: int, space: int, page_class: int, word: int, gpa: int
) -> None:
    """After a walk: into the first level and the STLB."""
    insert(m, group, address, pcid, space, page_class, word, gpa)
    insert(m, STLB, address, pcid, space, page_class, word, gpa)

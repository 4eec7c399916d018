"""The TLB: what entries are known by, and look-up.

A key has two words. `tag`: the page's address in bits 63:12, the PCID below. `space`: whose translation it is: EP4TA
in 45:12, VPID in 53:46 and 11:0 (twenty bits: VPID 0 gets a fresh number each time all of its translations are
dropped), page-size class in 55:54, kind in 57:56 (bit 56: of linear addresses, bit 57: through EPT; both = combined
mapping), and in 63:60 how many low bits of the tag do not count: 12 for a global page, whatever the PCID. SDM Vol.
3C, 'Caching Translation Information'.
"""

from typing import TYPE_CHECKING

from vmxemu.jit import address_of, kernel, load32
from vmxemu.layout import u64 as U
from vmxemu.translation.bits import CR4_PCIDE, FRAME_MASK, PCID_MASK
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.lanes import lowest_bit, matching_bytes
from vmxemu.translation.tlb_layout import CLASS_1G, STLB, Tlb

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
PAGE, REGION = U(12), U(21)
BYTE, EACH_BYTE, HIGH_BITS = U(0xFF), U(0x01010101), U(0x80808080)
FILTERS = U(Tlb.FIELDS["filters"].offset)


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
    other_space = m.tlb.entries[slot].space ^ space
    other_tag = (m.tlb.entries[slot].tag ^ tag) >> (other_space >> 60)
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
def may_be_large(m: "State", group: int, address: int) -> bool:
    """Whether a group may hold a page larger than 4K for an address."""
    return m.tlb.large_regions[group] >> (address >> REGION & 0x3F) & 1 != 0


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
                    m.tlb.large_hints[group << 6 | address >> REGION & 0x3F] = found
                return found
        page_class = page_class + 1
    return MISS


@inlined
def _match_large(m: "State", slot: int, address: int, pcid: int, space: int) -> int:
    """`slot` if it translates the address, whatever its page size, else MISS."""
    size = m.tlb.entries[slot].space >> SIZE_SHIFT & 3
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
    large = may_be_large(m, group, address)
    if large and m.tlb.parts == 0:
        found = _match_large(m, m.tlb.large_hints[group << 6 | address >> REGION & 0x3F], address, pcid, space)
        if found != MISS:
            return found
    found = find_in(m, group * 3, page, tag, space)
    if found != MISS:
        m.tlb.hints[hint] = found
    elif large:
        found = find_large(m, group, address, pcid, space)
    return found


@inlined
def find_second(m: "State", address: int, pcid: int, space: int) -> int:
    """Slot of the translation of an address in the STLB, or MISS."""
    page = address >> PAGE
    found = find_in(m, STLB * 3, page, page << PAGE | pcid, space)
    if found == MISS and may_be_large(m, STLB, address):
        found = find_large(m, STLB, address, pcid, space)
    return found

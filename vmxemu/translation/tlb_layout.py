"""Cached translations: a first level each for data and instructions with one array per page size, and a shared second
level.
"""

from vmxemu.layout import Array, Layout, array, u8, u16, u64
from vmxemu.layout import u64 as U

CAPACITY = 12288  # entries of all arrays together, and one that is never filled
L1D, L1I, STLB = U(0), U(1), U(2)  # groups of arrays
CLASS_4K, CLASS_2M, CLASS_1G, CLASS_4M = (
    U(0),
    U(1),
    U(2),
    U(3),
)  # page sizes; no array holds 4M pages, they are kept as 2M


class TlbArray(Layout):
    """Geometry of one array. Victims are sought in fours: `stride` is `ways` rounded up, the rest is never filled."""

    ways: u64  # 0 = there is no such array: pages of this size are kept in the next smaller one
    stride: u64
    set_mask: u64  # number of sets - 1
    first: u64  # index of its first entry
    hash_shift: u64  # set = (page ^ (page >> hash_shift & hash_mask)) & set_mask
    hash_mask: u64


class TlbValue(Layout):
    """What is known of the page: frame and rights in `word` (translation.rights), and the guest-physical page."""

    word: u64
    gpa: u64


class NestedEntry(Layout):
    """Where the guest's latest table page of one level stands: a guest-physical mapping, gone with INVEPT."""

    eptp: u64  # 0 = empty
    gpa: u64
    hpa: u64


class Tlb(Layout):
    """The TLB of one logical processor, its costs and its counters."""

    arrays: Array[TlbArray] = array(
        9
    )  # index group * 3 + page-size class; the STLB's 4K and 2M arrays are one and the same
    used: u64  # entries of the pool in use by the arrays
    live: u64  # bit group * 3 + class: such a translation was inserted since the last full invalidation
    clock: u64  # number of look-ups; stamps entries for LRU
    vpid0_generation: u64  # how often everything tagged VPID 0 was dropped
    transition_vpid: u64  # VPID at the latest VM entry or exit
    stlb_cycles: u64  # cost of an STLB hit
    walk_cycles: u64  # cost of a walk without its references
    reference_cycles: u64  # cost of one reference
    stlb_hits: u64  # first-level hits are clock - stlb_hits - walks
    walks: u64  # look-ups that missed, whatever their outcome
    references: u64
    faults: u64  # walks that ended in #PF, #GP, an EPT violation or a misconfiguration
    invalidations: u64
    guest_walks: Array[u64] = array(
        8 * 8
    )  # walks of the guest's tables: index first level * 8 + last level read (1 = PT)
    # EPT walks: index 64 * level of the guest entry (0 = the page itself, 7 = a store to flags) + 9 * last EPT level
    ept_walks: Array[u64] = array(8 * 64)
    hints: Array[u16] = array(
        2 * 256
    )  # where a 4K page was last found in L1D and L1I, by its low bits: saves a search, no more
    # Entries. What one is looked up by: see translation.tlb for the bits of tag and space; space 0 = invalid.
    tags: Array[u64] = array(CAPACITY)
    spaces: Array[u64] = array(CAPACITY)
    filters: Array[u8] = array(CAPACITY + 16)  # a byte of the page number per entry: spares most comparisons
    values: Array[TlbValue] = array(CAPACITY)
    stamps: Array[u64] = array(CAPACITY)  # clock of the latest use << 14 | index; the oldest of a set is its victim
    large_hints: Array[u16] = array(2 * 64)  # the same as `hints` for 2M and 1G pages
    # Results of walks done ahead (translation.lockstep), one per lane
    ahead_gla: Array[u64] = array(16)
    ahead_word: Array[u64] = array(16)
    ahead_gpa: Array[u64] = array(16)
    ahead_shape: Array[u64] = array(16)
    ahead_references: Array[u64] = array(16)
    nested_on: u64  # keep the translations of the guest's table pages; 0 = each walk makes all its references
    nested: Array[NestedEntry] = array(8)  # index level of the guest's table

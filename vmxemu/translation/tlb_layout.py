"""Cached translations: a first level each for data and instructions with one array per page size, a shared second
level, paging-structure caches, nested TLBs; and the data caches that say what a walk's references cost.
"""

from vmxemu.layout import Array, Layout, array, fixed, u8, u16, u64
from vmxemu.layout import u64 as U
from vmxemu.translation.layout import Walk

CAPACITY = 16384  # entries of all arrays together, and four that are never filled
L1D, L1I, STLB = U(0), U(1), U(2)  # groups of arrays
CLASS_4K, CLASS_2M, CLASS_1G, CLASS_4M = (
    U(0),
    U(1),
    U(2),
    U(3),
)  # page sizes; no array holds 4M pages, they are kept as 2M
# Numbers of arrays. 0 to 8: group * 3 + page-size class; the STLB's 4K and 2M arrays are one and the same.
TABLES = U(7)  # + level 2..5: the paging-structure cache of that level's entries
NESTED_TABLES, NESTED_PAGES = U(13), U(14)
EPT_TABLES = U(13)  # + level 2..5: the same of EPT
ARRAYS = 19
PAGE_ARRAYS = 9  # the first so many; the others are walk caches
SMALL_WAYS = 64  # a walk cache of no more entries has a SmallArray
BY_TREE = U(1 << 15)


class TlbArray(Layout):
    """Geometry of one array. Victims are sought in fours: `stride` is `ways` rounded up, the rest is never filled."""

    ways: u64 = fixed()  # 0 = there is no such array: pages of this size are kept in the next smaller one
    stride: u64 = fixed()
    set_mask: u64 = fixed()  # number of sets - 1
    first: u64 = fixed()  # index of its first entry
    hash_shift: u64 = fixed()  # set = (page ^ (page >> hash_shift & hash_mask)) & set_mask
    hash_mask: u64 = fixed()
    tree_levels: u64 = fixed()  # of the tree of bits, per set, that points to victims; 0 = victims by age
    tree_nodes: u64 = fixed()  # mask of its nodes whose right half has ways
    small: u64 = fixed()  # it has its keys and its order of use in a SmallArray


class SmallArray(Layout):
    """Of a small walk cache, by entry: a byte of the page number, and the entries from the most recently used one on."""

    filters: Array[u8] = array(SMALL_WAYS, align=64)
    order: Array[u8] = array(SMALL_WAYS, align=64)


class TlbEntry(Layout):
    """What a translation is looked up by (see translation.tlb for the bits of tag and space; space 0 = invalid), and what is
    known of the page: frame and rights in `word` (translation.rights), and the guest-physical page.

    In a paging-structure cache: the next table and what the entries so far permit; in a nested TLB: an EPT walk's answer.
    """

    tag: u64
    space: u64
    word: u64
    gpa: u64


class DataCache(Layout):
    """One data cache as the walks' references see it."""

    tags: u64 = fixed()  # host address of the sets (translation.data_caches)
    ways: u64 = fixed()  # 0 = there is no such cache
    set_mask: u64 = fixed()
    cycles: u64 = fixed()  # load-to-use latency
    hits: u64


class Caches(Layout):
    """Data caches; `on` = 0: each reference costs `tlb.reference_cycles`."""

    on: u64
    memory_cycles: u64 = fixed()
    misses: u64
    uncached: u64
    level: Array[DataCache] = array(3)


class Birth(Layout):
    """How a cached translation came to be, where `checking` asks for it: when, and by which of the guest's entries."""

    clock: u64  # look-ups
    ticks: u64
    root: u64  # CR3's address
    owed: u64  # it was stale already: stale.OWED_*
    entry_gpa: Array[u64] = array(6)  # by level, 0 = none
    entry_hpa: Array[u64] = array(6)


class StaleUse(Layout):
    """Uses of a translation that memory no longer gives (translation.stale), all of one page and kind; facts of the first."""

    count: u64
    gla: u64
    access: u64
    source: u64  # stale.FROM_*: which cache it came from
    owed: u64  # stale.OWED_*: which invalidation was not made
    cached_gpa: u64
    cached_word: u64  # translation.rights; or FAILED and the outcome
    now_gpa: u64
    now_word: u64
    born_clock: u64  # when the translation was cached: look-ups, ticks. 0, 0: not known
    born_ticks: u64
    used_clock: u64
    used_ticks: u64
    pcid: u64
    vpid: u64
    ept_pointer: u64
    rip: u64
    level: u64  # 0 = VMX root or no VMX, 1 = VM1, 2 = VM2, 3 = SMM


STALE_USES = 256


class Tlb(Layout):
    """The TLB of one logical processor, its costs and its counters."""

    small: Array[SmallArray] = array(ARRAYS - PAGE_ARRAYS)
    entries: Array[TlbEntry] = array(CAPACITY, align=32)
    arrays: Array[TlbArray] = array(ARRAYS)
    used: u64 = fixed()  # entries of the pool in use by the arrays
    pages_end: u64 = fixed()  # entries of the pool in use by TLBs of linear addresses; those of walk caches follow
    live: u64  # bit group * 3 + class: such a translation was inserted since the last full invalidation
    large_regions: Array[u64] = array(3)  # by group, bit n: a larger one was, with n in bits 26:21 of its address
    clock: u64  # number of look-ups; stamps pages for LRU
    vpid0_generation: u64  # how often everything tagged VPID 0 was dropped
    transition_vpid: u64  # VPID at the latest VM entry or exit
    tables_on: u64  # there are paging-structure caches
    table_used: u64  # the walk in progress began at one
    ept_tables_on: u64  # the same of EPT
    nested_on: u64  # there is a nested TLB for the guest's tables; 0 = each walk makes all its references
    nested_pages_on: u64  # and one for pages
    # the first level holds whole pages that the second has in parts: it may hold both, and the smaller one goes first
    parts: u64 = fixed()
    uses: u64  # of entries of larger walk caches: their clock
    may_have_room: u64  # bit n: walk cache n may have an invalid entry
    lazy: u64 = fixed()  # a walk that fails is not repeated without what is cached
    eager: u64 = fixed()  # each invalidation drops all that it may drop
    watch_frames: u64 = fixed()  # a walk that ends at a poisoned or retired frame says so
    checking: u64 = fixed()  # uses of stale translations are looked for
    probing: u64  # a walk is to have no effects. 2: but to fail where a flag that it would set could not be stored
    walk_pcid: u64  # keys of the walk in progress
    walk_space: u64
    stlb_cycles: u64 = fixed()  # cost of an STLB hit
    walk_cycles: u64 = fixed()  # cost of a walk without its references
    reference_cycles: u64 = fixed()  # cost of one reference
    stlb_hits: u64  # first-level hits are clock - stlb_hits - walks
    walks: u64  # look-ups that missed, whatever their outcome
    references: u64
    faults: u64  # walks that ended in #PF, #GP, an EPT violation or a misconfiguration
    invalidations: u64
    walk_clock: u64  # cycles of all walks
    nested_hits: u64
    table_hits: Array[u64] = array(8)  # of paging-structure caches, by the level of the entry
    ept_table_hits: Array[u64] = array(8)
    guest_walks: Array[u64] = array(
        8 * 8
    )  # walks of the guest's tables: index first level * 8 + last level read (1 = PT)
    # EPT walks: index 64 * level of the guest entry (0 = the page itself, 7 = a store to flags) + 9 * last EPT level
    # + first EPT level, 0 = the top
    ept_walks: Array[u64] = array(8 * 64)
    hints: Array[u16] = array(
        2 * 256
    )  # where a 4K page was last found in L1D and L1I, by its low bits: saves a search, no more
    # a byte of the page number per entry: spares most comparisons. Small walk caches have theirs in `small`
    filters: Array[u8] = array(CAPACITY + 16)
    # `clock` (in a walk cache `uses`) at the latest use << 14 | index: the oldest of a set is its victim. Only where neither a
    # tree nor `small` decides
    stamps: Array[u64] = array(CAPACITY + 16)
    # index of the first entry of the entry's set, | BY_TREE where a tree points to victims
    sets: Array[u16] = array(CAPACITY, fixed=True)
    # tree-PLRU state of a set, at a quarter of its first entry's index; bit 0: the set may have an invalid entry
    trees: Array[u64] = array(CAPACITY // 4)
    large_hints: Array[u16] = array(2 * 64)  # the same as `hints` for 2M and 1G pages
    latest: Array[u64] = array(ARRAYS)  # the same for walk caches: where one was last found
    births: Array[Birth] = array(CAPACITY)  # of the entries, where `checking` asks for it
    birth: Birth  # of the translation that is inserted next
    # Results of walks done ahead (translation.lockstep), one per lane
    ahead_gla: Array[u64] = array(16)
    ahead_word: Array[u64] = array(16)
    ahead_gpa: Array[u64] = array(16)
    ahead_shape: Array[u64] = array(16)
    ahead_references: Array[u64] = array(16)
    probed_word: u64  # what a walk without effects has found
    probe: Walk  # and what it left in `m.walk`
    before_probe: Walk  # `m.walk`, kept meanwhile
    stale_count: u64  # uses seen
    stale_kinds: u64  # places of `stale` that are taken; uses of further kinds are counted only
    stale_traced: u64  # of them, those that are in the trace
    stale: Array[StaleUse] = array(STALE_USES)
    refused: u64  # an entry that did not permit the access was dropped on the way to the walk in progress

"""What references cost: the nearest data cache, or memory where the table is not cacheable."""

import pytest

from vmxemu.translation import bits
from vmxemu.translation.geometry import DataCacheGeometry, Geometry
from vmxemu.translation.layout import READ, WRITE
from vmxemu.translation.library import EPT_DEFAULT, GUEST_DEFAULT, PAGE_2M, PAGE_4K, WRITE_BACK, Walker

NEAR, FAR, MEMORY, START = 4, 14, 200, 9
CACHES = (DataCacheGeometry(64 << 10, 16, NEAR), DataCacheGeometry(256 << 10, 16, FAR))
COSTS = {"data_caches": CACHES, "memory_cycles": MEMORY, "walk_cycles": START}
FLAGS = GUEST_DEFAULT | int(bits.A | bits.D)
PCD, PWT = 1 << 4, 1 << 3
GLA = 0x40_0000


def walker_of(table_bits=FLAGS, with_ept=False, ept_type=WRITE_BACK, **geometry):
    """One 4-KiB page, everything in the data caches but the first walk's lines; no TLB."""
    walker = Walker(4 << 20, Geometry(**(COSTS | geometry)))
    walker.ept = walker.new_ept() if with_ept else None
    if with_ept:
        walker.ept.map(0, 0, PAGE_2M, 2, EPT_DEFAULT | ept_type << 3)
    walker.guest = walker.new_guest_tables(walker.ept)
    walker.guest.table_bits = table_bits
    walker.guest.map(GLA, 0x1000, flags=FLAGS)
    walker.use(walker.guest, walker.ept)
    return walker


def cost(walker):
    return walker.translate(GLA).cycles - START


@pytest.mark.jit_off
def test_lines_come_from_memory_once():
    walker = walker_of()
    assert cost(walker) == 4 * MEMORY
    assert cost(walker) == 4 * NEAR
    caches = walker.m.caches
    assert (int(caches.misses), int(caches.level[0].hits), int(caches.uncached)) == (4, 4, 0)


def test_a_line_that_left_the_first_cache_is_in_the_next():
    walker = walker_of(data_caches=(DataCacheGeometry(2 * 64, 2, NEAR), CACHES[1]))
    assert [cost(walker) for _ in range(2)] == [4 * MEMORY, 4 * FAR]  # four lines go round in two places


@pytest.mark.parametrize("ways", [1, 11, 16])
def test_data_caches_forget_the_line_used_longest_ago(ways):
    """Tables of as many ways stay; one more and all go. Each page has a page table of its own; the upper three tables'
    lines are in other sets.
    """
    for tables, expected in ((ways, NEAR), (ways + 1, MEMORY)):
        walker = Walker(4 << 20, Geometry(data_caches=(DataCacheGeometry(64 * 64 * ways, ways, NEAR),), memory_cycles=MEMORY))
        guest = walker.new_guest_tables()
        guest.table_bits = FLAGS
        glas = [(1 << 39 | 8 << 30 | number + 24 << 21) + 40 * 8 * PAGE_4K for number in range(tables)]
        for gla in glas:
            guest.map(gla, 0, flags=FLAGS)
        walker.use(guest)
        for _ in range(2):
            costs = [walker.translate(gla).cycles for gla in glas]
        assert costs == [3 * NEAR + expected] * tables


@pytest.mark.parametrize(("type_bits", "uncached"), [(0, 0), (PWT, 0), (PCD, 3), (PCD | PWT, 3)])
def test_uncacheable_tables_cost_memory_latency(type_bits, uncached):
    """PCD of an entry speaks of the table that it refers to: all but the first one here."""
    walker = walker_of(FLAGS | type_bits)
    cost(walker)
    assert cost(walker) == uncached * MEMORY + (4 - uncached) * NEAR
    assert int(walker.m.caches.uncached) == 2 * uncached


def test_cr3_says_how_the_first_table_is_accessed_unless_it_holds_a_pcid():
    walker = walker_of()
    m = walker.m
    m.r.cr[3] = int(m.r.cr[3]) | PCD
    cost(walker)
    assert cost(walker) == MEMORY + 3 * NEAR
    m.r.cr[4] = int(m.r.cr[4]) | int(bits.CR4_PCIDE)
    cost(walker)
    assert cost(walker) == 4 * NEAR


def test_mtrrs_make_tables_uncacheable():
    walker = walker_of()
    walker.m.cpu.mtrr_base[0] = 0
    walker.m.cpu.mtrr_mask[0] = ((1 << 46) - (4 << 20)) | 1 << 11
    cost(walker)
    assert cost(walker) == 4 * MEMORY


@pytest.mark.parametrize("kind", [0, 1, 4, 5, 6])
def test_the_ept_type_of_the_guests_tables(kind):
    """With EPT it takes the place of the MTRRs' for the guest's entries; EPT's own entries have the type in EPTP."""
    walker = walker_of(with_ept=True, ept_type=kind)
    assert cost(walker) > 0
    per_walk = 3  # 2M pages
    assert cost(walker) == 5 * per_walk * NEAR + 4 * (MEMORY if kind <= 1 else NEAR)


def test_the_type_in_eptp():
    walker = walker_of(with_ept=True)
    walker.m.paging.ept_pointer = int(walker.m.paging.ept_pointer) & ~7
    cost(walker)
    assert cost(walker) == 15 * MEMORY + 4 * NEAR


@pytest.mark.parametrize("with_ept", [False, True])
def test_disabled_caches(with_ept):
    """CR0.CD makes every reference one to memory, those of EPT too."""
    walker = walker_of(with_ept=with_ept)
    cost(walker)
    walker.m.r.cr[0] = int(walker.m.r.cr[0]) | int(bits.CR0_CD)
    assert cost(walker) == (19 if with_ept else 4) * MEMORY


@pytest.mark.parametrize("walk_caches", [{"pd": 4}, {"nested": 8}])
@pytest.mark.parametrize("kind", [0, 6])
def test_a_cached_table_is_accessed_by_its_own_type(walk_caches, kind):
    """Whether the walk to it was spared or not: the type comes from EPT, or from the entry above."""
    walker = walker_of(with_ept=True, ept_type=kind, walk_caches=walk_caches)
    cost(walker)
    guest_entries, ept_walks = (1, 1) if "pd" in walk_caches else (4, 1)
    assert cost(walker) == guest_entries * (NEAR if kind else MEMORY) + ept_walks * 3 * NEAR
    walker = walker_of(FLAGS | PCD, walk_caches={"pd": 4})
    cost(walker)
    assert cost(walker) == MEMORY


def test_stores_to_flags_are_neither_references_nor_charged():
    """They move lines, and that is all: with data caches as with a flat cost of a reference."""
    for geometry in ({}, {"data_caches": (), "reference_cycles": NEAR}):
        walker = walker_of(with_ept=True, **geometry)
        walker.use(walker.guest, walker.ept, accessed_dirty=True)
        walker.translate(GLA, int(WRITE))
        settled = walker.translate(GLA, int(READ))
        for level in (1, 2, 3, 4):
            at = walker.guest.entry_address(GLA, level)
            walker.write64(at, walker.read64(at) & ~int(bits.A | bits.D))
        again = walker.translate(GLA, int(WRITE))
        assert (again.references, again.cycles) == (settled.references, settled.cycles) == (19, START + 19 * NEAR)
        assert walker.guest.find(GLA) & int(bits.A | bits.D) == int(bits.A | bits.D)

"""Walk caches and arrays of several kinds, in small cases: what is kept once, what a fault takes with it, who shares."""

import numpy as np
import pytest

from vmxemu.outcome import EPT_VIOLATION, FAULT
from vmxemu.translation import bits
from vmxemu.translation.geometry import NAMES, Geometry
from vmxemu.translation.layout import FETCH, READ, WRITE
from vmxemu.translation.library import EPT_DEFAULT, GUEST_DEFAULT, PAGE_1G, PAGE_2M, PAGE_4K, WRITE_BACK, Walker

RAM = 4 << 20
GLA = 0x40_0000
FLAGS = GUEST_DEFAULT | int(bits.A | bits.D)
EPT_FLAGS = EPT_DEFAULT | WRITE_BACK << 3 | int(bits.EPT_A)


def walker_of(geometry, with_ept=True, pages=16):
    walker = Walker(RAM, geometry)
    walker.ept = walker.new_ept() if with_ept else None
    if with_ept:
        walker.ept.table_bits |= int(bits.EPT_A)
        walker.ept.map(0, 0, count=RAM // PAGE_4K, flags=EPT_FLAGS)
    walker.guest = walker.new_guest_tables(walker.ept)
    walker.guest.table_bits = FLAGS
    walker.guest.map(GLA, 0x1_0000, count=pages, flags=FLAGS)
    walker.use(walker.guest, walker.ept, accessed_dirty=True)
    return walker


def references(walker, gla, access=READ):
    return walker.translate(gla, int(access)).references


def held(walker, name):
    """Valid entries in the named array."""
    array = walker.m.tlb.arrays[next(number for number, own in NAMES.items() if own == name)]
    first = int(array.first)
    return int((walker.m.tlb.entries.column("space")[first : first + (int(array.set_mask) + 1) * int(array.stride)] != 0).sum())


@pytest.mark.jit_off
def test_an_array_that_does_not_exist_finds_nothing():
    """And not what stands at the beginning of the pool."""
    data_only = walker_of(Geometry({"l1d_4k": (4, 4)}))
    assert [references(data_only, GLA) for _ in range(2)] == [24, 0]
    assert [references(data_only, GLA, FETCH) for _ in range(2)] == [24, 24]
    second_only = walker_of(Geometry({"stlb_4k": (4, 4)}, stlb_cycles=7))
    assert [references(second_only, GLA) for _ in range(2)] == [24, 0]
    assert int(second_only.m.walk.cycles) == 7 and int(second_only.m.tlb.stlb_hits) == 1


def test_pages_larger_than_any_array_holds_are_kept_in_parts():
    first_level = {"l1d_4k": (4, 4), "l1i_4k": (4, 4), "l1i_2m": (4, 4)}
    walker = walker_of(Geometry(first_level | {"stlb_4k": (8, 8), "stlb_2m": (8, 8)}), with_ept=False)
    walker.guest.map(PAGE_1G, PAGE_1G, PAGE_1G, flags=FLAGS)
    inside = PAGE_1G + 5 * PAGE_2M
    assert references(walker, inside) == 2 and references(walker, inside) == 0
    assert references(walker, inside + PAGE_4K) == 0  # the STLB holds 2M of it
    assert references(walker, inside + 7 * PAGE_4K, FETCH) == 0 and references(walker, inside + PAGE_2M) == 2
    assert (held(walker, "l1d_4k"), held(walker, "l1i_2m"), held(walker, "l1i_4k"), held(walker, "stlb_2m")) == (3, 1, 0, 2)
    for page in (inside, inside + PAGE_4K, inside + PAGE_2M):
        assert walker.translate(page + 1).hpa == page + 1


def test_a_walk_from_the_top_does_not_cache_ept_tables_twice():
    """A store that sets a dirty flag walks from the top although the tables are known."""
    walker = walker_of(Geometry(walk_caches={"ept_pd": 8, "ept_pdpt": 4, "ept_pml4": 4}))
    for page in range(16):
        walker.translate(GLA + page * PAGE_4K, int(WRITE))
    assert (held(walker, "ept_pd"), held(walker, "ept_pdpt"), held(walker, "ept_pml4")) == (2, 1, 1)  # 4M of RAM


def test_a_nested_translation_is_replaced_by_one_of_more_rights():
    """A page is read, then written (its EPT dirty flag was clear): one entry, and it permits the next store."""
    walker = walker_of(Geometry(walk_caches={"nested_pages": 4}))
    walker.translate(GLA)
    assert held(walker, "nested_pages") == 1
    assert references(walker, GLA, WRITE) == 24
    assert held(walker, "nested_pages") == 1
    assert references(walker, GLA, WRITE) == references(walker, GLA) == 20


def test_a_table_is_cached_once_its_accessed_flags_are_set():
    """SDM Vol. 3A, 'Caches for Paging Structures': not from entries whose accessed flag is 0."""
    walker = walker_of(Geometry(walk_caches={"pd": 4}), with_ept=False)
    at = walker.guest.entry_address(GLA, 2)
    walker.write64(at, walker.read64(at) & ~int(bits.A))
    assert [references(walker, GLA) for _ in range(3)] == [4, 4, 1]


def test_a_fault_is_found_by_one_walk_unless_a_cached_table_had_a_part_in_it():
    walker = walker_of(Geometry(walk_caches={"pd": 4}), with_ept=False)
    missing = GLA + 64 * PAGE_4K
    assert references(walker, missing) == 4
    references(walker, GLA)
    assert references(walker, missing) == 1 + 4
    assert references(walker, GLA) == 4  # the fault has dropped the table


def test_a_page_fault_drops_the_tables_of_its_own_address_only():
    """The entry for half the address is another page's."""
    walker = walker_of(Geometry(walk_caches={"pd": 4}), with_ept=False)
    other = 2 * GLA
    references(walker, GLA)
    assert references(walker, other) == 3  # no table
    assert references(walker, GLA) == 1


def test_a_page_fault_leaves_guest_physical_translations():
    walker = walker_of(Geometry(walk_caches={"nested": 8, "nested_pages": 8, "ept_pd": 8}))
    references(walker, GLA)
    before = [held(walker, name) for name in ("nested", "nested_pages", "ept_pd")]
    outcome = walker.translate(GLA + 64 * PAGE_4K).outcome
    assert outcome & 0xFF == int(FAULT)
    assert [held(walker, name) for name in ("nested", "nested_pages", "ept_pd")] == before
    assert references(walker, GLA) == 4


def test_an_ept_violation_takes_the_ept_tables_of_its_address_with_it():
    """SDM Vol. 3C, 'Operations that Invalidate Cached Mappings': guest-physical mappings for the address, those in
    paging-structure caches included. So a hypervisor that replaces the table in its handler needs no INVEPT.
    """
    walker = walker_of(Geometry(walk_caches={"ept_pd": 8}))
    walker.ept.map(0x1_1000, 0, flags=0)
    references(walker, GLA)
    assert walker.translate(GLA + PAGE_4K).outcome == int(EPT_VIOLATION)
    old = walker.ept.entry_address(0x1_0000, 2)
    new = walker.new_frame()
    walker.write64(new + 8 * 0x11, 0x5000 | EPT_FLAGS)
    walker.write64(walker.read64(old) // PAGE_4K * PAGE_4K + 8 * 0x11, 0x6000 | EPT_FLAGS)  # the old one, reused
    walker.write64(old, new | 7 | int(bits.EPT_A))
    assert walker.translate(GLA + PAGE_4K).hpa == 0x5000


def test_tlbs_for_several_page_sizes_share_their_entries():
    """zen4-like: one first level of 72 entries for pages of all sizes, replaced by age beside second levels with trees."""
    walker = Walker(RAM, "zen4-like")
    arrays = {name: walker.m.tlb.arrays[number] for number, name in NAMES.items()}
    assert len({int(arrays[name].first) for name in ("l1d_4k", "l1d_2m", "l1d_1g")}) == 1
    assert int(arrays["l1d_4k"].ways) == 72 and not arrays["l1d_4k"].tree_levels and arrays["stlb_4k"].tree_levels
    guest = walker.new_guest_tables()
    guest.table_bits = FLAGS
    guest.map(0, 0, PAGE_4K, 70, FLAGS)
    guest.map(PAGE_1G, 0, PAGE_2M, 4, FLAGS)
    walker.use(guest)
    small = np.arange(70, dtype=np.uint64) * np.uint64(PAGE_4K)
    large = np.uint64(PAGE_1G) + np.arange(4, dtype=np.uint64) * np.uint64(PAGE_2M)
    walker.translate_many(small)
    walker.translate_many(large)
    walker.reset_counters()
    walker.translate_many(small[2:])  # the oldest two have made room
    assert int(walker.m.tlb.stlb_hits) == 0
    walker.translate_many(small[:2])
    assert int(walker.m.tlb.stlb_hits) == 2 and int(walker.m.tlb.walks) == 0


@pytest.mark.parametrize("profile", ["skylake-sp", "icelake-sp", "zen4-like", "ideal"])
def test_only_the_second_level_for_4k_and_2m_pages_is_hashed(profile):
    """As isa/cpus/*.toml has it."""
    arrays = Walker(RAM, profile).m.tlb.arrays
    hashed = {name for number, name in NAMES.items() if int(arrays[number].hash_mask)}
    assert hashed == ({"stlb_4k", "stlb_2m"} if profile in ("skylake-sp", "icelake-sp") else set())


def test_a_tree_of_twelve_ways_points_away_from_what_was_used():
    """Filled from way 0 to way 11. Ways 8 to 11 were used last, so that the first victim is in the half of 0 to 7; there
    the older halves lead to 0. When that is used again the other half is the older one: 12 to 15 do not exist, 8 is next.
    """
    geometry = Geometry({"l1d_4k": (12, 12)}, tree_plru=frozenset({"l1d_4k"}))
    walker = walker_of(geometry, with_ept=False)

    def gone(pages):
        return {page for page in range(pages) if GLA + page * PAGE_4K not in walker.m.tlb.entries.column("tag")[:12]}

    for page in range(12):
        references(walker, GLA + page * PAGE_4K)
    references(walker, GLA + 12 * PAGE_4K)
    assert gone(13) == {0}
    references(walker, GLA + 13 * PAGE_4K)
    assert gone(14) == {0, 8}

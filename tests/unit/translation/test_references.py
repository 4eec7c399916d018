"""References of two-dimensional walks: (g + 1)(h + 1) - 1 without caches, and what each cache leaves of them.

g: entries of the guest's tables that a walk reads; h: those of EPT. A walk of r guest entries reads r + r h of them and
of EPT for the tables, and h for the page. What is known spares its part: a table in a nested TLB its h, a table in a
paging-structure cache that h and the guest entries above it, an EPT table all EPT entries above it.
"""

import itertools

import numpy as np
import pytest

from tests.unit.translation.old_tables import PAGE_4M, ShortTables
from vmxemu.translation import bits
from vmxemu.translation.geometry import NO_TLB, Geometry
from vmxemu.translation.library import PAGE_1G, PAGE_2M, PAGE_4K, Walker

RAM = 2 << 20
# (levels of the root, page size) that make g or h references
GUEST = {0: [(4, None)], 2: [(4, PAGE_1G)], 3: [(4, PAGE_2M), (5, PAGE_1G)], 4: [(4, PAGE_4K), (5, PAGE_2M)], 5: [(5, PAGE_4K)]}
EPT = {references: shapes for references, shapes in GUEST.items() if references}
COMBINATIONS = [
    (g, h, guest, ept) for g, h in itertools.product(GUEST, EPT) for guest in GUEST[g] for ept in EPT[h]
]  # fmt: skip
ACCESSED = int(bits.P | bits.RW | bits.US | bits.A)


def build(guest_shape, ept_shape, geometry=NO_TLB, accessed_dirty=False):
    """A page at 0, its tables at the end of RAM, all mapped one to one."""
    walker = Walker(RAM, geometry)
    ept_levels, ept_size = ept_shape
    ept = walker.new_ept(ept_levels)
    ept.table_bits |= int(bits.EPT_A)
    flags = 7 | 6 << 3 | int(bits.EPT_A | bits.EPT_D)
    ept.map(0, 0, ept_size, max(1, RAM // ept_size), flags)
    guest_levels, guest_size = guest_shape
    guest = None
    if guest_size:
        guest = walker.new_guest_tables(ept, guest_levels)
        guest.table_bits = ACCESSED
        guest.map(0, 0, guest_size, flags=ACCESSED)
    walker.use(guest, ept, accessed_dirty)
    return walker


def test_all_combinations_are_there():
    assert {(g, h) for g, h, _, _ in COMBINATIONS} == set(itertools.product((0, 2, 3, 4, 5), (2, 3, 4, 5)))


@pytest.mark.jit_off
@pytest.mark.parametrize("accessed_dirty", [False, True])
def test_references_without_caches(accessed_dirty):
    for g, h, guest, ept in COMBINATIONS:
        walker = build(guest, ept, accessed_dirty=accessed_dirty)
        result = walker.translate(0x123)
        assert result.outcome == 0 and result.hpa == 0x123
        assert result.references == (g + 1) * (h + 1) - 1, (g, h)
        expected = np.zeros((6, 6), int)
        guest_read = range(guest[0], guest[0] - g, -1)
        ept_read = range(ept[0], ept[0] - h, -1)
        for level in guest_read:
            expected[level, 0] = 1
        for level, ept_level in itertools.product((0, *guest_read), ept_read):
            expected[level, ept_level] = 1
        assert (walker.reference_matrix() == expected).all(), (g, h, guest, ept)


@pytest.mark.parametrize("ept", [(4, PAGE_1G), (4, PAGE_2M), (4, PAGE_4K), (5, PAGE_4K)])
@pytest.mark.parametrize(("mode", "size", "g"), [("32", PAGE_4M, 1), ("32", PAGE_4K, 2), ("pae", PAGE_2M, 1), ("pae", PAGE_4K, 2)])
def test_references_of_the_older_modes(mode, size, g, ept):
    """The PDPTE registers of PAE paging are no references."""
    walker = build((4, None), ept)
    m = walker.m
    tables = ShortTables(walker) if mode == "32" else walker.new_guest_tables(None, levels=2)
    tables.table_bits = ACCESSED
    tables.map(0, 0, size, flags=ACCESSED)
    m.r.efer, m.r.cr[4] = bits.EFER_NXE, bits.CR4_PAE if mode == "pae" else bits.CR4_PSE
    m.r.cr[0], m.r.cr[3], m.paging.pdpte0 = bits.CR0_PG | bits.CR0_WP, tables.root, tables.root | 1
    result = walker.translate(0x123)
    h = walker_levels(ept)
    assert result.outcome == 0 and result.references == (g + 1) * (h + 1) - 1
    matrix = walker.reference_matrix()
    assert matrix[:, 0].tolist() == [0, *([0] * (2 - g)), *([1] * g), 0, 0, 0]
    assert matrix.sum() == result.references and matrix[0].sum() == h


def walker_levels(ept_shape):
    levels, size = ept_shape
    return levels - {PAGE_4K: 0, PAGE_2M: 1, PAGE_1G: 2}[size]


def second_walk(guest, ept, walk_caches, accessed_dirty=False):
    """References of a walk whose predecessor has filled the walk caches; there is no TLB."""
    walker = build(guest, ept, Geometry(walk_caches=walk_caches), accessed_dirty)
    first = walker.translate(0x123)
    second = walker.translate(0x123)
    assert (second.outcome, second.hpa) == (0, 0x123) and second.references <= first.references
    walker.reset_counters()
    assert walker.translate(0x123).references == second.references == walker.reference_matrix().sum()
    return second.references


ALL_NESTED = {"nested": 16, "nested_pages": 16}


def test_all_guest_physical_translations_cached_leave_the_guests_entries():
    assert second_walk((4, PAGE_4K), (4, PAGE_4K), ALL_NESTED) == 4
    for g, _, guest, ept in COMBINATIONS:
        assert second_walk(guest, ept, ALL_NESTED) == g


def test_only_the_guests_tables_cached():
    for g, h, guest, ept in COMBINATIONS:
        assert second_walk(guest, ept, {"nested": 16}) == g + h


def test_a_combined_pde_entry_leaves_the_pte_and_the_page():
    """5 of 24; 3 where EPT maps the page by 1G."""
    assert second_walk((4, PAGE_4K), (4, PAGE_4K), {"pd": 4}) == 5
    assert second_walk((4, PAGE_4K), (4, PAGE_1G), {"pd": 4}) == 3


@pytest.mark.parametrize("accessed_dirty", [False, True])
@pytest.mark.parametrize(("cache", "level"), [("pd", 2), ("pdpt", 3), ("pml4", 4), ("pml5", 5)])
def test_combined_entries_of_every_level(cache, level, accessed_dirty):
    """An entry of this level is known: r entries below it are read, the first of them without an EPT walk, so that
    r + (r - 1) h + h = r (h + 1) references are left. Nothing is known where the walk ends at that level or above.
    """
    for g, h, guest, ept in COMBINATIONS:
        last = guest[0] - g + 1  # level of the entry that maps the page
        below = level - last
        known = g and last < level <= guest[0]
        assert second_walk(guest, ept, {cache: 4}, accessed_dirty) == (below * (h + 1) if known else (g + 1) * (h + 1) - 1)


@pytest.mark.parametrize(("cache", "level"), [("ept_pd", 2), ("ept_pdpt", 3), ("ept_pml4", 4), ("ept_pml5", 5)])
def test_ept_tables_of_every_level(cache, level):
    """Each of the g + 1 EPT walks reads the entries below that level only."""
    for g, h, guest, ept in COMBINATIONS:
        last = ept[0] - h + 1
        left = level - last if last < level <= ept[0] else h
        assert second_walk(guest, ept, {cache: 8}) == (g + 1) * (left + 1) - 1


def test_caches_together():
    """A combined PDE entry, and EPT's: PTE and one EPT entry; with the page itself in a nested TLB the PTE alone."""
    assert second_walk((4, PAGE_4K), (4, PAGE_4K), {"pd": 4, "ept_pd": 8}) == 2
    assert second_walk((5, PAGE_4K), (5, PAGE_4K), {"pd": 4, "pml4": 4, "ept_pd": 8}) == 2
    assert second_walk((4, PAGE_4K), (4, PAGE_4K), {"pd": 4, **ALL_NESTED}) == 1
    assert second_walk((4, PAGE_4K), (4, PAGE_4K), {"ept_pd": 8}) == 9


@pytest.mark.parametrize(("shape", "g"), [((4, PAGE_4K), 4), ((4, PAGE_2M), 3), ((4, PAGE_1G), 2), ((5, PAGE_4K), 5)])
def test_without_ept_a_walk_reads_the_guest_entries_only(shape, g):
    for walk_caches, left in (({}, g), ({"pd": 4}, 1 if shape[1] == PAGE_4K else g)):
        walker = Walker(RAM, Geometry(walk_caches=walk_caches))
        guest = walker.new_guest_tables(None, shape[0])
        guest.table_bits = ACCESSED
        guest.map(0, 0, shape[1], flags=ACCESSED)
        walker.use(guest)
        assert walker.translate(0x10).references == g
        assert walker.translate(0x10).references == left

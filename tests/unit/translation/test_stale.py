"""The search for stale translations: each invalidation left out is found and named, and none that was made is."""

import numpy as np
import pytest

from vmxemu.isa import cpus
from vmxemu.translation import bits, invalidate
from vmxemu.translation.geometry import geometry_of
from vmxemu.translation.layout import FETCH, READ, WRITE
from vmxemu.translation.library import EPT_DEFAULT, GUEST_DEFAULT, PAGE_2M, PAGE_4K, WRITE_BACK, Walker
from vmxemu.translation.stale_report import stale_uses

RAM = 8 << 20
GLA, GPA, OTHER = 0x40_0000, 0x10_0000, 0x20_0000
LARGE_GLA = 0x80_0000
GUEST = GUEST_DEFAULT | int(bits.A | bits.D)
EPT = EPT_DEFAULT | WRITE_BACK << 3 | int(bits.EPT_A | bits.EPT_D)
GUEST_CHANGED, EPT_CHANGED, DIRTY, EPT_DIRTY, OTHER_TABLES = (
    "guest tables changed",
    "EPT changed",
    "guest dirty flag cleared",
    "EPT dirty flag cleared",
    "other tables under the same VPID and PCID",
)


class Checked(Walker):
    """A guest with 16 pages at GLA and a large one at LARGE_GLA, on an EPT of 4K pages 1:1, while the search is on."""

    def __init__(self, profile="skylake-sp"):
        super().__init__(RAM, geometry_of(cpus.load(profile)))
        self.ept = self.new_ept()
        self.ept.map(0, 0, count=RAM // PAGE_4K, flags=EPT)
        self.guest = self.tables()
        self.use(self.guest, self.ept, accessed_dirty=True)
        self.m.r.cr[4] = int(self.m.r.cr[4]) | int(bits.CR4_PGE | bits.CR4_PCIDE)
        self.m.paging.vpid = 1
        self.m.tlb.checking = 1

    def tables(self, gpa=GPA):
        tables = self.new_guest_tables(self.ept)
        tables.table_bits |= int(bits.A)  # only what was accessed is kept in paging-structure caches
        tables.map(GLA, gpa, count=16, flags=GUEST)
        tables.map(LARGE_GLA, 0, PAGE_2M, flags=GUEST)
        return tables

    @property
    def eptp(self):
        return int(self.m.paging.ept_pointer)

    def entry(self, level=1, gla=GLA, tables=None):
        return (tables or self.guest).entry_address(gla, level)

    def change(self, at, clear=0, put=0):
        self.write64(at, self.read64(at) & ~clear | put)

    def found(self):
        return stale_uses(self.m)


@pytest.fixture
def world():
    return Checked()


def invlpg(world):
    invalidate.invlpg(world.m, GLA)


def invept(world):
    invalidate.invept(world.m, 1, world.eptp)


def invvpid(world):
    invalidate.invvpid(world.m, 1, 1, 0)


FRAME = int(bits.FRAME_MASK)


def remapped(world):
    world.guest.map(GLA, OTHER, flags=GUEST)


def removed(world):
    world.change(world.entry(), clear=int(bits.P))


def protected(world):
    world.change(world.entry(), clear=int(bits.RW))


def made_supervisor(world):
    world.m.r.mode = int(world.m.r.mode) | 3
    world.change(world.entry(), clear=int(bits.US))


def made_not_executable(world):
    world.change(world.entry(), put=int(bits.XD))


def cleaned(world):
    world.change(world.entry(), clear=int(bits.D))


def key_changed(world):
    world.m.r.cr[4] = int(world.m.r.cr[4]) | int(bits.CR4_PKE)
    world.m.paging.pkru = 1 << 2 * 5
    world.change(world.entry(), put=5 << 59)


def ept_remapped(world):
    world.ept.map(GPA, OTHER, flags=EPT)


def ept_removed(world):
    world.change(world.ept.entry_address(GPA, 1), clear=7)


def ept_protected(world):
    world.change(world.ept.entry_address(GPA, 1), clear=int(bits.EPT_WRITE))


def ept_not_executable(world):
    world.change(world.ept.entry_address(GPA, 1), clear=int(bits.EPT_EXECUTE))


def ept_cleaned(world):
    world.change(world.ept.entry_address(GPA, 1), clear=int(bits.EPT_D))


def ept_misconfigured(world):
    world.change(world.ept.entry_address(GPA, 1), put=7 << 3)


def table_moved_in_ept(world):
    """The guest's last table gets another frame, in which the page is mapped to another one."""
    table, copy = world.entry() & ~0xFFF, world.new_frame()
    world.ram[copy : copy + 4096] = world.ram[table : table + 4096]
    world.write64(copy | world.entry() & 0xFFF, OTHER | GUEST)
    world.ept.map(table, copy, flags=EPT)


def upper_table_moved_in_ept(world):
    """The same a level higher: the copy leads to a table with other pages."""
    at = world.entry(2)
    table, copy = at & ~0xFFF, world.new_frame()
    world.ram[copy : copy + 4096] = world.ram[table : table + 4096]
    other = world.tables(OTHER)
    world.write64(copy | at & 0xFFF, world.read64(world.entry(2, tables=other)))
    world.ept.map(table, copy, flags=EPT)


def directory_entry_changed(world):
    other = world.tables(OTHER)
    world.write64(world.entry(2), world.read64(world.entry(2, tables=other)))


def other_tables_under_the_tag(world):
    world.m.r.cr[3] = world.tables(OTHER).root


def large_ept_page_over_small_ones(world):
    world.write64(world.ept.entry_address(GPA, 2), 0x40_0000 | EPT | int(bits.PS))


LEFT_OUT = [
    (remapped, READ, GUEST_CHANGED, invlpg),
    (removed, READ, GUEST_CHANGED, invlpg),
    (protected, WRITE, GUEST_CHANGED, invlpg),
    (made_supervisor, READ, GUEST_CHANGED, invlpg),
    (made_not_executable, FETCH, GUEST_CHANGED, invlpg),
    (cleaned, WRITE, DIRTY, invlpg),
    (key_changed, READ, GUEST_CHANGED, invlpg),
    (directory_entry_changed, READ, GUEST_CHANGED, invlpg),
    (ept_remapped, READ, EPT_CHANGED, invept),
    (ept_removed, READ, EPT_CHANGED, invept),
    (ept_protected, WRITE, EPT_CHANGED, invept),
    (ept_not_executable, FETCH, EPT_CHANGED, invept),
    (ept_cleaned, WRITE, EPT_DIRTY, invept),
    (ept_misconfigured, READ, EPT_CHANGED, invept),
    (table_moved_in_ept, READ, EPT_CHANGED, invept),
    (upper_table_moved_in_ept, READ, EPT_CHANGED, invept),
    (large_ept_page_over_small_ones, READ, EPT_CHANGED, invept),
    (other_tables_under_the_tag, READ, OTHER_TABLES, invvpid),
]
NAMES = [row[0].__name__ for row in LEFT_OUT]
each_left_out = pytest.mark.parametrize(("change", "access", "name", "invalidation"), LEFT_OUT, ids=NAMES)


@each_left_out
def test_an_invalidation_that_is_left_out_is_found(world, change, access, name, invalidation):
    world.m.r.mode = int(world.m.r.mode) | (3 if change is made_supervisor else 0)
    world.translate(GLA, int(access))
    assert world.found() == []
    cached = int(world.m.tlb.clock)
    world.m.clock.ticks = 160
    change(world)
    world.m.r.rip = 0x1234
    stale = world.translate(GLA, int(access))
    assert (stale.outcome, stale.hpa) == (0, GPA)
    (use,) = world.found()
    assert (use["changed"], use["count"], use["gla"], use["cached"]) == (name, 1, GLA, f"{GPA:#x}")
    assert use["source"] == ("L1 ITLB" if access == FETCH else "L1 DTLB")
    assert (use["lookup_cached"], use["lookup"], use["cycle_cached"], use["cycle"]) == (cached, cached + 1, 0, 10)
    assert (use["rip"], use["vpid"], use["eptp"]) == (0x1234, 1, world.eptp)
    world.translate(GLA + 8, int(access))
    assert [use["count"] for use in world.found()] == [2]


@each_left_out
def test_one_that_is_made_leaves_nothing_to_find(world, change, access, name, invalidation):
    world.m.r.mode = int(world.m.r.mode) | (3 if change is made_supervisor else 0)
    world.translate(GLA, int(access))
    change(world)
    invalidation(world)
    for _ in range(2):
        world.translate(GLA, int(access))
        world.translate(GLA + PAGE_4K, int(access))
    assert world.found() == []


def test_eager_needs_none_at_all(world):
    """Whatever invalidation there is drops everything."""
    world.m.tlb.eager = 1
    world.translate(GLA)
    ept_remapped(world)
    invalidate.invlpg(world.m, LARGE_GLA)
    assert world.translate(GLA).hpa == OTHER
    remapped(world)
    invalidate.on_vm_transition(world.m)
    world.translate(GLA)
    assert world.found() == []


def test_what_memory_says_is_told(world):
    world.translate(GLA, int(WRITE))
    protected(world)
    world.translate(GLA, int(WRITE))
    ept_removed(world)
    world.translate(GLA)
    assert [(use["now"], use["access"]) for use in world.found()] == [("#PF(0x3)", "write"), ("EPT violation", "read")]


def test_the_second_level_passes_the_time_on(world):
    """What the first level copies from the second was cached when the second level was filled."""
    world.translate(GLA)
    born = int(world.m.tlb.clock)
    world.translate(GLA + PAGE_4K)
    world.translate(GLA, int(FETCH))
    remapped(world)
    world.translate(GLA, int(FETCH))
    world.translate(GLA)
    assert [(use["source"], use["lookup_cached"]) for use in world.found()] == [("L1 ITLB", born), ("L1 DTLB", born)]


def test_the_second_level_is_a_source(world):
    world.translate(GLA)
    remapped(world)
    world.translate(GLA, int(FETCH))
    assert [use["source"] for use in world.found()] == ["STLB"]


@pytest.mark.parametrize("lazy", [0, 1])
def test_a_paging_structure_cache_is_a_source(world, lazy):
    """The upper-level entry has changed; another page of the region is used, which no TLB knows."""
    world.m.tlb.lazy = lazy
    world.translate(GLA)
    born = int(world.m.tlb.clock)
    directory_entry_changed(world)
    stale = world.translate(GLA + PAGE_4K)
    assert stale.hpa == GPA + PAGE_4K
    (use,) = world.found()
    assert (use["source"], use["changed"], use["lookup_cached"]) == ("paging-structure cache", GUEST_CHANGED, born)
    assert (use["cached"], use["now"]) == (f"{GPA + PAGE_4K:#x}", f"{OTHER + PAGE_4K:#x}")
    assert world.translate(GLA + PAGE_4K).hpa == GPA + PAGE_4K  # the TLB has it now, and it is still the guest's to remove
    assert [(use["source"], use["changed"]) for use in world.found()][1] == ("L1 DTLB", GUEST_CHANGED)


def test_a_table_that_ept_has_moved_is_known_from_the_caches_of_the_walk(world):
    world.translate(GLA)
    table_moved_in_ept(world)
    at = world.entry() & ~0xFFF
    world.write64((world.ept.find(at) & FRAME) | (world.entry(1, GLA + PAGE_4K) & 0xFFF), OTHER | GUEST)
    world.translate(GLA + PAGE_4K)
    (use,) = world.found()
    assert (use["source"], use["changed"], use["now"]) == ("paging-structure cache", EPT_CHANGED, f"{OTHER:#x}")


def test_the_nested_tlb_is_a_source(world):
    """Only the nested TLB still knows where the guest's table was."""
    world.translate(GLA)
    table_moved_in_ept(world)
    at = world.entry() & ~0xFFF
    world.write64((world.ept.find(at) & FRAME) | (world.entry(1, GLA + PAGE_4K) & 0xFFF), OTHER | GUEST)
    invvpid(world)
    world.translate(GLA + PAGE_4K)
    assert [(use["source"], use["changed"]) for use in world.found()] == [("nested TLB", EPT_CHANGED)]


def test_a_fault_for_want_of_rights_in_a_paging_structure_cache_needs_no_invalidation(world):
    world.m.tlb.lazy = 1
    world.change(world.entry(2), clear=int(bits.RW))
    world.translate(GLA)
    world.change(world.entry(2), put=int(bits.RW))
    assert world.translate(GLA + PAGE_4K, int(WRITE)).outcome != 0
    assert world.translate(GLA + PAGE_4K, int(WRITE)).outcome == 0  # the fault has taken it away
    assert world.found() == []


def test_a_fault_from_an_old_table_is_found(world):
    world.m.tlb.lazy = 1
    world.change(world.entry(1, GLA + PAGE_4K), clear=int(bits.P))
    world.translate(GLA)
    directory_entry_changed(world)
    assert world.translate(GLA + PAGE_4K).outcome != 0
    assert [(use["source"], use["cached"], use["now"]) for use in world.found()] == [
        ("paging-structure cache", "#PF(0x0)", f"{OTHER + PAGE_4K:#x}")
    ]


def test_a_global_page_that_two_address_spaces_disagree_on(world):
    world.guest.map(GLA, GPA, flags=GUEST | int(bits.G))
    world.translate(GLA)
    world.m.r.cr[3] = world.tables(OTHER).root | 7
    invalidate.on_cr3_write(world.m, 0, int(world.m.r.cr[3]))
    world.translate(GLA)
    assert [use["changed"] for use in world.found()] == [GUEST_CHANGED]


def test_a_pcid_that_is_used_again_for_other_tables(world):
    world.m.r.cr[3] = world.guest.root | 7
    world.translate(GLA)
    world.m.r.cr[3] = world.guest.root | 8
    other = world.tables(OTHER).root | 7
    world.m.r.cr[3] = other
    invalidate.on_cr3_write(world.m, 0, other | 1 << 63)
    world.translate(GLA)
    (use,) = world.found()
    assert (use["changed"], use["pcid"]) == (OTHER_TABLES, 7)


def test_a_pcid_whose_tables_have_changed_while_another_ran(world):
    world.m.r.cr[3] = world.guest.root | 7
    world.translate(GLA)
    world.m.r.cr[3] = world.tables(OTHER).root | 8
    remapped(world)
    invalidate.invlpg(world.m, GLA)  # of the current PCID only
    world.m.r.cr[3] = world.guest.root | 7
    invalidate.on_cr3_write(world.m, 0, int(world.m.r.cr[3]) | 1 << 63)
    world.translate(GLA)
    assert [use["changed"] for use in world.found()] == [GUEST_CHANGED]


def test_an_ept_root_that_is_used_again_for_another_machine(world):
    world.translate(GLA)
    copy, root = world.new_ept(), world.ept.root
    copy.map(0, 0, count=RAM // PAGE_4K, flags=EPT)
    copy.map(GPA, OTHER, flags=EPT)
    world.ram[root : root + 4096] = world.ram[copy.root : copy.root + 4096]
    world.translate(GLA)
    assert [use["changed"] for use in world.found()] == [EPT_CHANGED]


def test_a_large_page_that_was_split_otherwise(world):
    """Cached as parts, since EPT has 4K pages; the split maps one of them elsewhere."""
    world.translate(LARGE_GLA)
    world.translate(LARGE_GLA + PAGE_4K)
    table = world.new_frame()
    for index in range(512):
        world.write64(table + 8 * index, (OTHER if index == 1 else index << 12) | GUEST)
    world.write64(world.entry(2, LARGE_GLA), table | GUEST_DEFAULT | int(bits.A))
    world.translate(LARGE_GLA)
    world.translate(LARGE_GLA + PAGE_4K)
    assert [(use["gla"], use["changed"]) for use in world.found()] == [(LARGE_GLA + PAGE_4K, GUEST_CHANGED)]


def test_ept_with_paging_off(world):
    world.use(None, world.ept)
    world.translate(GPA)
    ept_remapped(world)
    world.translate(GPA)
    assert [use["changed"] for use in world.found()] == [EPT_CHANGED]


def test_more_rights_a_wider_flag_and_the_accessed_flag_are_no_difference(world):
    world.change(world.entry(), clear=int(bits.RW | bits.D), put=int(bits.XD))
    world.translate(GLA)
    world.change(world.entry(), clear=int(bits.XD | bits.A), put=int(bits.RW))
    world.change(world.ept.entry_address(GPA, 1), clear=int(bits.EPT_A))
    for access in (READ, WRITE, FETCH):
        assert world.translate(GLA, int(access)).outcome == 0
    assert world.found() == []


def test_a_full_log_and_a_flag_that_cannot_be_stored_are_no_difference(world):
    from vmxemu.translation.layout import EPT_PAGE_MODIFICATION_LOG

    world.change(world.entry(), clear=int(bits.D))
    world.m.paging.ept_extensions, world.m.paging.pml_index = int(EPT_PAGE_MODIFICATION_LOG), 0xFFFF
    world.change(world.ept.entry_address(GPA, 1), clear=int(bits.EPT_D))
    assert world.translate(GLA, int(WRITE)).outcome != 0
    world.m.paging.ept_extensions = 0
    table = world.entry() & ~0xFFF
    world.change(world.ept.entry_address(table, 1), clear=int(bits.EPT_WRITE))
    world.change(world.entry(), clear=int(bits.D))
    world.use(world.guest, world.ept)
    assert world.translate(GLA, int(WRITE)).outcome != 0
    assert world.found() == []


def test_the_table_of_kinds_ends(world):
    """More kinds than there are places: the rest is counted."""
    tables = world.new_guest_tables(world.ept)
    pages = 600
    tables.map(GLA, GPA, count=pages, flags=GUEST)
    world.use(tables, world.ept)
    addresses = np.arange(pages, dtype=np.uint64) * np.uint64(PAGE_4K) + np.uint64(GLA)
    world.translate_many(addresses)
    tables.map(GLA, OTHER, count=pages, flags=GUEST)
    world.translate_many(addresses)
    assert len(world.found()) == 256 and int(world.m.tlb.stale_count) == pages

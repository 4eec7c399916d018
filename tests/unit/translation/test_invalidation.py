"""What invalidations and faults remove from walk caches and from what is known of guest-physical addresses, and what stays.

The TLBs' part is in test_tlb.
"""

import pytest

from vmxemu.isa import cpus
from vmxemu.translation import bits, invalidate
from vmxemu.translation.geometry import geometry_of
from vmxemu.translation.layout import READ, WRITE
from vmxemu.translation.library import EPT_DEFAULT, GUEST_DEFAULT, PAGE_2M, PAGE_4K, WRITE_BACK, Walker
from vmxemu.translation.roomy import roomy
from vmxemu.translation.tlb import LINEAR, THROUGH_EPT

RAM = 8 << 20
GLA, FAR, LARGE, GPA = 0x40_0000, 0x4040_0000, 0x80_0000, 0x10_0000
GUEST = GUEST_DEFAULT | int(bits.A | bits.D)
EPT = EPT_DEFAULT | WRITE_BACK << 3


@pytest.fixture
def world():
    """Pages at GLA and, by other tables, at FAR; a large page, kept in parts; PCIDs on; VPID 1."""
    walker = Walker(RAM, roomy(geometry_of(cpus.load("skylake-sp"))))
    walker.ept = walker.new_ept()
    walker.ept.map(0, 0, count=RAM // PAGE_4K, flags=EPT)
    walker.guest = walker.new_guest_tables(walker.ept)
    walker.guest.table_bits |= int(bits.A)
    for address in (GLA, FAR):
        walker.guest.map(address, GPA, count=16, flags=GUEST)
    walker.guest.map(LARGE, 0, PAGE_2M, flags=GUEST)
    walker.use(walker.guest, walker.ept)
    walker.m.r.cr[4] = int(walker.m.r.cr[4]) | int(bits.CR4_PGE | bits.CR4_PCIDE)
    use(walker, vpid=1, pcid=0)
    return walker


def use(walker, vpid, pcid):
    walker.m.paging.vpid = vpid
    walker.m.r.cr[3] = walker.guest.root | pcid


def contents(walker):
    """How many entries there are: page translations of linear addresses, their walk caches, and the guest-physical ones."""
    tlb = walker.m.tlb
    spaces = [int(space) for space in tlb.entries.column("space")[: int(tlb.used)]]
    linear = [bool(space & int(LINEAR)) for space in spaces]
    physical = [bool(space & int(THROUGH_EPT)) and not space & int(LINEAR) for space in spaces]
    end = int(tlb.pages_end)
    return sum(linear[:end]), sum(linear[end:]), sum(physical)


def test_invlpg_takes_the_paging_structure_caches_of_all_addresses(world):
    world.translate(GLA)
    world.translate(FAR)
    pages, tables, physical = contents(world)
    assert pages == 4 and tables > 4 and physical > 4
    invalidate.invlpg(world.m, GLA)
    assert contents(world) == (2, 0, physical)


@pytest.mark.parametrize("pcid", [0, 5])
def test_invlpg_takes_those_of_the_current_pcid_only(world, pcid):
    world.translate(GLA)
    before = contents(world)
    use(world, 1, pcid)
    invalidate.invlpg(world.m, FAR)
    assert contents(world)[1] == (0 if pcid == 0 else before[1])


@pytest.mark.parametrize("kind", ["invpcid", "invvpid"])
def test_individual_address_takes_those_of_the_address_only(world, kind):
    world.translate(GLA)
    _, of_one, _ = contents(world)
    world.translate(FAR)
    _, of_both, _ = contents(world)
    if kind == "invpcid":
        invalidate.invpcid(world.m, 0, 0, FAR)
    else:
        invalidate.invvpid(world.m, 0, 1, FAR)
    shared = 1  # the PML4 entry's, which FAR uses too
    assert contents(world)[:2] == (2, of_one - shared)
    assert of_both - of_one == 2


def test_smi_takes_vpid_0_and_rsm_takes_all_linear_addresses(world):
    world.translate(GLA)
    use(world, 0, 0)
    world.translate(GLA)
    use(world, 1, 0)
    _, _, physical = contents(world)
    invalidate.on_smi(world.m)
    assert world.translate(GLA).references == 0
    use(world, 0, 0)
    assert world.translate(GLA).references != 0
    invalidate.on_rsm(world.m)
    assert contents(world) == (0, 0, physical)


def test_smep_takes_the_current_pcid_and_global_pages(world):
    world.guest.map(GLA + PAGE_4K, GPA, flags=GUEST | int(bits.G))
    for pcid in (5, 0):
        use(world, 1, pcid)
        world.translate(GLA)
    world.translate(GLA + PAGE_4K)
    use(world, 2, 0)
    world.translate(GLA)
    assert contents(world)[0] == 8
    use(world, 1, 0)
    invalidate.on_smep_set(world.m)
    assert contents(world)[0] == 4  # PCID 5 and VPID 2
    use(world, 1, 5)
    assert world.translate(GLA).references == 0


@pytest.mark.parametrize("eager", [0, 1])
def test_a_change_of_rights_takes_nothing_that_it_need_not(world, eager):
    world.m.tlb.eager = eager
    world.translate(GLA)
    before = contents(world)
    world.m.engine.flush = 0
    invalidate.on_rights_change(world.m)
    assert world.m.engine.flush == 1
    assert contents(world) == ((0, 0, 0) if eager else before)


@pytest.mark.parametrize("eager", [0, 1])
def test_transitions_with_vpids(world, eager):
    world.m.tlb.eager = eager
    world.translate(GLA)
    before = contents(world)
    invalidate.on_vm_transition(world.m)
    assert contents(world) == ((0, 0, 0) if eager else before)


def test_a_page_fault_takes_all_parts_of_a_large_page(world):
    """The manual gives page faults the assurance that INVLPG gives."""
    for part in (0, 1, 2):
        world.translate(LARGE + part * PAGE_4K)
    world.translate(GLA)
    pages, tables, physical = contents(world)
    assert pages == 8
    world.write64(world.guest.entry_address(LARGE, 2), 0)
    world.m.engine.flush = 0
    assert world.translate(LARGE + 9 * PAGE_4K).outcome != 0
    assert contents(world)[0] == 2 and contents(world)[2] == physical
    assert world.m.engine.flush == 1
    assert world.translate(FAR + PAGE_4K).outcome == 0


def test_a_page_fault_takes_the_page_under_every_eptp(world):
    world.guest.map(GLA, GPA, flags=GUEST & ~int(bits.RW))
    world.translate(GLA)
    first = int(world.m.paging.ept_pointer)
    other = world.new_ept()
    other.map(0, 0, count=RAM // PAGE_4K, flags=EPT)
    world.m.paging.ept_pointer = other.root | first & 0xFFF
    world.translate(GLA)
    assert contents(world)[0] == 4
    assert world.translate(GLA, int(WRITE)).outcome != 0
    assert contents(world)[:2] == (0, 0)


def test_a_refused_access_makes_the_engine_forget(world):
    """The page fault has nothing left to drop, since its own look-up has dropped it; Unicorn may still read the page."""
    world.write64(world.guest.entry_address(GLA, 1), GPA | int(bits.P | bits.US | bits.A))
    world.translate(GLA)
    world.m.engine.flush = 0
    assert world.translate(GLA, int(WRITE)).outcome != 0
    assert world.m.engine.flush == 1
    world.m.engine.flush = 0
    assert world.translate(GLA, int(WRITE)).outcome != 0
    assert world.m.engine.flush == 0


def test_an_ept_violation_takes_the_linear_and_the_guest_physical_address(world):
    world.translate(GLA)
    world.translate(GLA + PAGE_4K)
    world.write64(world.ept.entry_address(GPA, 1), EPT & ~int(bits.EPT_WRITE) | GPA)
    before = contents(world)
    assert world.translate(GLA, int(WRITE)).outcome == 0  # by what is cached
    invalidate.invept(world.m, 1, int(world.m.paging.ept_pointer))
    world.translate(GLA)
    world.translate(GLA + PAGE_4K)
    before = contents(world)
    assert world.translate(GLA, int(WRITE)).outcome != 0
    after = contents(world)
    assert after[0] == before[0] - 2 and after[2] < before[2]
    assert world.translate(GLA + PAGE_4K).references == 0


def test_a_misconfiguration_takes_nothing(world):
    world.translate(GLA)
    before = contents(world)
    world.write64(world.ept.entry_address(GPA + 0x5000, 1), GPA | 2)
    assert world.translate(GLA + 0x5000).outcome != 0
    pages, _, _ = contents(world)
    assert pages == before[0]
    assert world.translate(GLA, int(READ)).references == 0

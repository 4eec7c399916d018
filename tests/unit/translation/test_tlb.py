"""The TLB: what hits, what a hit may do, replacement, and what each invalidation removes and keeps."""

import numpy as np
import pytest

from vmxemu.outcome import FAULT
from vmxemu.translation import bits, invalidate
from vmxemu.translation.geometry import SKYLAKE_SP, Geometry, install
from vmxemu.translation.layout import FETCH, PERMIT_EXECUTE, PERMIT_READ, PERMIT_WRITE, READ, WRITE
from vmxemu.translation.library import EPT_DEFAULT, GUEST_DEFAULT, PAGE_2M, PAGE_4K, WRITE_BACK, Walker

RAM = 8 << 20
GLA, GPA = 0x40_0000, 0x10_0000
FLAGS = GUEST_DEFAULT | int(bits.A)


@pytest.fixture
def world():
    """EPT on with 4K pages, guest pages at GLA; one of them global."""
    walker = Walker(RAM)
    walker.ept = walker.new_ept()
    walker.ept.map(0, 0, count=RAM // PAGE_4K)
    walker.guest = walker.new_guest_tables(walker.ept)
    walker.guest.map(GLA, GPA, count=64, flags=FLAGS)
    walker.guest.map(GLA + 0x10_0000, GPA, flags=FLAGS | int(bits.G))
    walker.use(walker.guest, walker.ept)
    walker.m.r.cr[4] = int(walker.m.r.cr[4]) | int(bits.CR4_PGE | bits.CR4_PCIDE)
    walker.m.engine.flush = 0
    return walker


GLOBAL_GLA = GLA + 0x10_0000


def is_cached(walker, gla, access=READ):
    """Whether a translation needs no walk. (Asking fills the TLB.)"""
    return walker.translate(gla, int(access)).references == 0


def use_vpid(walker, vpid, pcid=0):
    walker.m.paging.vpid = vpid
    walker.m.r.cr[3] = walker.guest.root | pcid


@pytest.mark.jit_off
def test_a_second_access_hits(world):
    first, second = world.translate(GLA + 5), world.translate(GLA + 9)
    assert (first.references, second.references) == (24, 0)
    assert (second.gpa, second.hpa) == (GPA + 9, GPA + 9)
    assert first.cycles == SKYLAKE_SP.walk_cycles + 24 * SKYLAKE_SP.reference_cycles and second.cycles == 0


def test_an_stlb_hit_costs_its_cycles(world):
    for page in range(33):
        world.translate(GLA + page * PAGE_4K)
    world.translate(GLA, int(FETCH))  # not in the first level for instructions
    assert world.m.walk.cycles == SKYLAKE_SP.stlb_cycles and world.m.tlb.stlb_hits == 1


def test_execute_is_granted_to_fetches_only(world):
    assert world.translate(GLA).permissions & int(PERMIT_EXECUTE) == 0
    assert world.translate(GLA, int(FETCH)).permissions & int(PERMIT_EXECUTE)


@pytest.mark.parametrize("accessed_dirty", [False, True])
def test_write_is_granted_when_the_dirty_flags_are_set(world, accessed_dirty):
    world.use(world.guest, world.ept, accessed_dirty)
    assert world.translate(GLA).permissions == int(PERMIT_READ)
    written = world.translate(GLA, int(WRITE))
    assert written.references == 24  # a hit does not do: the flag must be set
    assert written.permissions == int(PERMIT_READ | PERMIT_WRITE)
    assert world.guest.find(GLA) & int(bits.D)
    assert bool(world.ept.find(GPA) & int(bits.EPT_D)) == accessed_dirty
    assert world.translate(GLA).permissions == int(PERMIT_READ | PERMIT_WRITE)
    assert is_cached(world, GLA, WRITE)


def test_ept_dirty_is_needed_too(world):
    world.guest.map(GLA, GPA, flags=FLAGS | int(bits.D))
    world.use(world.guest, world.ept, accessed_dirty=True)
    assert world.translate(GLA).permissions == int(PERMIT_READ)


def test_a_user_access_does_not_use_what_only_a_supervisor_may(world):
    world.guest.map(GLA, GPA, flags=FLAGS & ~int(bits.US))
    world.translate(GLA)
    world.m.r.mode = int(world.m.r.mode) | 3
    assert world.translate(GLA).outcome & 0xFF == int(FAULT)
    assert world.translate(GLA, 4).outcome == 0  # implicit supervisor access


def test_smap_is_checked_on_hits(world):
    world.m.r.cr[4] = int(world.m.r.cr[4]) | int(bits.CR4_SMAP)
    world.m.r.eflags = int(bits.RFLAGS_AC)
    assert world.translate(GLA).outcome == 0
    assert world.translate(GLA, 4).outcome & 0xFF == int(FAULT)
    assert world.translate(GLA).outcome == 0
    world.m.r.eflags = 0
    assert world.translate(GLA).outcome & 0xFF == int(FAULT)


def test_cleared_write_protection_lets_supervisors_write(world):
    world.guest.map(GLA, GPA, flags=FLAGS & ~int(bits.RW))
    assert world.translate(GLA, int(WRITE)).outcome & 0xFF == int(FAULT)
    world.m.r.cr[0] = int(world.m.r.cr[0]) & ~int(bits.CR0_WP)
    assert world.translate(GLA, int(WRITE)).permissions == int(PERMIT_READ | PERMIT_WRITE)
    world.m.r.cr[0] = int(world.m.r.cr[0]) | int(bits.CR0_WP)
    assert world.translate(GLA).permissions == int(PERMIT_READ)


def test_lru_replacement_keeps_what_fits_and_nothing_of_a_longer_cycle(world):
    install(world.m, Geometry({"l1d_4k": (16, 4)}))
    fits = np.arange(16, dtype=np.uint64) * np.uint64(4096) + np.uint64(GLA)
    too_long = np.arange(20, dtype=np.uint64) * np.uint64(4096) + np.uint64(GLA)
    for addresses, walks in ((fits, 0), (too_long, 20)):
        world.translate_many(addresses)
        world.reset_counters()
        world.translate_many(addresses)
        assert world.m.tlb.walks == walks


def test_random_accesses_miss_as_lru_must(world):
    """Uniform over N pages with E entries: 1 - E/N."""
    install(world.m, Geometry({"stlb_4k": (32, 4)}))
    addresses = np.random.default_rng(3).integers(0, 64, 400_000).astype(np.uint64) * np.uint64(4096) + np.uint64(GLA)
    world.translate_many(addresses)
    world.reset_counters()
    world.translate_many(addresses)
    assert abs(int(world.m.tlb.walks) / len(addresses) - 0.5) < 0.005


def test_ways_that_are_no_multiple_of_four(world):
    install(world.m, Geometry({"l1d_4k": (6, 6)}))
    addresses = np.arange(6, dtype=np.uint64) * np.uint64(4096) + np.uint64(GLA)
    world.translate_many(addresses)
    assert all(is_cached(world, int(gla)) for gla in addresses)
    assert not is_cached(world, GLA + 6 * 4096)
    assert not is_cached(world, GLA)


def test_bad_geometry_is_refused():
    walker = Walker(1 << 20)
    with pytest.raises(ValueError, match="power of two"):
        install(walker.m, Geometry({"l1d_4k": (12, 4)}))
    with pytest.raises(ValueError, match="not less than"):
        install(walker.m, Geometry({"stlb_4k": (1 << 14, 4)}))


# ---- invalidation


def cache_everywhere(world):
    """GLA and GLOBAL_GLA cached under VPIDs 0 (host), 1, 2 and PCIDs 0 (all), 5 (VPID 1)."""
    for vpid, pcid in ((0, 0), (1, 0), (1, 5), (2, 0)):
        use_vpid(world, vpid, pcid)
        world.translate(GLA)
        world.translate(GLOBAL_GLA)


def cached_set(world):
    """Which of the cached translations are there, without filling."""
    present = set()
    for vpid, pcid in ((0, 0), (1, 0), (1, 5), (2, 0)):
        use_vpid(world, vpid, pcid)
        for name, gla in (("page", GLA), ("global", GLOBAL_GLA)):
            # look for it by hand: translate would fill
            from vmxemu.translation.tlb import MISS, find_second, linear_space

            if int(find_second(world.m, gla, pcid, int(linear_space(world.m)))) != int(MISS):
                present.add((vpid, pcid, name))
    return present


EVERYTHING = {(vpid, pcid, name) for vpid, pcid in ((0, 0), (1, 0), (1, 5), (2, 0)) for name in ("page", "global")}


def vpid_entries(*vpids):
    return {entry for entry in EVERYTHING if entry[0] in vpids}


CASES = {
    "all": (lambda m: invalidate.invalidate_all(m), EVERYTHING),
    "CR3 write": (lambda m: invalidate.on_cr3_write(m, 0, 0), {(1, 0, "page")}),
    "CR3 write, other PCID": (lambda m: invalidate.on_cr3_write(m, 0, 5), {(1, 5, "page")}),
    "CR3 write, no flush": (lambda m: invalidate.on_cr3_write(m, 0, 1 << 63 | 5), set()),
    "paging change": (lambda m: invalidate.on_paging_change(m), vpid_entries(1)),
    "INVLPG": (lambda m: invalidate.invlpg(m, GLA + 77), {(1, 0, "page")}),
    "INVLPG, global": (lambda m: invalidate.invlpg(m, GLOBAL_GLA), {(1, 0, "global"), (1, 5, "global")}),
    "INVPCID address": (lambda m: invalidate.invpcid(m, 0, 5, GLA), {(1, 5, "page")}),
    "INVPCID address, global": (lambda m: invalidate.invpcid(m, 0, 5, GLOBAL_GLA), set()),
    "INVPCID single": (lambda m: invalidate.invpcid(m, 1, 5, 0), {(1, 5, "page")}),
    "INVPCID all": (lambda m: invalidate.invpcid(m, 2, 0, 0), vpid_entries(1)),
    "INVPCID all but globals": (lambda m: invalidate.invpcid(m, 3, 0, 0), {(1, 0, "page"), (1, 5, "page")}),
    "INVEPT all": (lambda m: invalidate.invept(m, 2, 0), EVERYTHING),
    "INVEPT single": (lambda m: invalidate.invept(m, 1, m.paging.ept_pointer), EVERYTHING),
    "INVEPT another": (lambda m: invalidate.invept(m, 1, 0x7000 | 0x1E), set()),
    "INVVPID address": (lambda m: invalidate.invvpid(m, 0, 1, GLA), {(1, 0, "page"), (1, 5, "page")}),
    "INVVPID address, global": (
        lambda m: invalidate.invvpid(m, 0, 1, GLOBAL_GLA),
        {(1, 0, "global"), (1, 5, "global")},
    ),
    "INVVPID single": (lambda m: invalidate.invvpid(m, 1, 2, 0), vpid_entries(2)),
    "INVVPID all": (lambda m: invalidate.invvpid(m, 2, 0, 0), vpid_entries(1, 2)),
    "INVVPID retaining globals": (lambda m: invalidate.invvpid(m, 3, 1, 0), {(1, 0, "page"), (1, 5, "page")}),
}


@pytest.mark.parametrize("name", CASES)
def test_invalidation_removes_this_and_keeps_that(world, name):
    action, removed = CASES[name]
    cache_everywhere(world)
    assert cached_set(world) == EVERYTHING
    use_vpid(world, 1, 0)
    world.m.engine.flush = 0
    action(world.m)
    assert world.m.engine.flush == 1
    assert cached_set(world) == EVERYTHING - removed


def test_vm_transitions_drop_vpid_0_only_where_no_vpid_is_used(world):
    cache_everywhere(world)
    for vpid in (0, 1, 2, 0):  # root, entry, entry of another, exit
        use_vpid(world, vpid)
        if vpid:
            invalidate.on_vm_transition(world.m)
    invalidate.on_vm_transition(world.m)
    assert cached_set(world) == EVERYTHING
    use_vpid(world, 0)
    world.m.engine.flush = 0
    invalidate.on_vm_transition(world.m)
    assert world.m.engine.flush == 1
    assert cached_set(world) == EVERYTHING - vpid_entries(0)


def test_invlpg_removes_all_parts_of_a_large_page(world):
    world.guest.map(0x80_0000, 0, PAGE_2M, flags=FLAGS)
    parts = [0x80_0000 + part * PAGE_4K for part in (0, 1, 300)]
    for gla in parts:
        world.translate(gla)
    assert all(is_cached(world, gla) for gla in parts)
    invalidate.invlpg(world.m, 0x80_0000 + 7 * PAGE_4K)
    assert not any(is_cached(world, gla) for gla in parts)


def test_guest_physical_translations_have_no_vpid(world):
    world.use(None, world.ept)
    assert world.translate(GPA).references == 4
    world.m.paging.vpid = 3
    assert is_cached(world, GPA)
    invalidate.invvpid(world.m, 2, 0, 0)
    assert is_cached(world, GPA)
    invalidate.invept(world.m, 1, world.m.paging.ept_pointer)
    assert not is_cached(world, GPA)


def test_a_changed_ept_entry_is_seen_after_invept_only(world):
    world.translate(GLA)
    world.ept.map(GPA, GPA + 0x1000, flags=EPT_DEFAULT | WRITE_BACK << 3)
    assert world.translate(GLA).hpa == GPA
    invalidate.invept(world.m, 1, world.m.paging.ept_pointer)
    assert world.translate(GLA).hpa == GPA + 0x1000


def test_old_numbers_of_vpid_0_never_come_back(world):
    use_vpid(world, 0)
    world.m.tlb.vpid0_generation = (1 << 19) - 1
    world.translate(GLA)
    invalidate.drop_vpid0(world.m)
    assert int(world.m.tlb.live) == 0

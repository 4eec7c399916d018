"""The walker as a library: what one call and many calls give, profiles, marked frames, and RAM that costs nothing."""

from pathlib import Path

import numpy as np
import pytest

from tests.unit.translation.worlds import FRAMES, World
from vmxemu.isa import cpus
from vmxemu.memory.layout import FAILING, HEALTHY, POISONED, RETIRED
from vmxemu.outcome import DONE, FAULT, POISON, RETIRED_FRAME
from vmxemu.translation.geometry import NO_TLB, SKYLAKE_SP, Geometry, geometry_of
from vmxemu.translation.invalidate import invalidate_all
from vmxemu.translation.layout import FETCH, READ, WRITE
from vmxemu.translation.library import PAGE_1G, PAGE_2M, PAGE_4K, Walker

RAM = 4 << 20
GLA, GPA = 0x40_0000, 0x10_0000
WALK_CACHES = Geometry({"l1d_4k": (4, 4), "stlb_4k": (8, 8)}, walk_caches={"pd": 2, "nested": 3, "nested_pages": 2, "ept_pd": 2})


def walker_of(geometry=SKYLAKE_SP, with_ept=True, **options):
    walker = Walker(RAM, geometry, **options)
    walker.ept = walker.new_ept() if with_ept else None
    if with_ept:
        walker.ept.map(0, 0, PAGE_2M, RAM // PAGE_2M)
    walker.guest = walker.new_guest_tables(walker.ept)
    walker.guest.map(GLA, GPA, count=64)
    walker.use(walker.guest, walker.ept)
    return walker


# ---- one and many


@pytest.mark.parametrize("geometry", [NO_TLB, SKYLAKE_SP, WALK_CACHES, "skylake-sp"])
@pytest.mark.parametrize("access", [READ, WRITE, FETCH])
def test_in_full_is_one_by_one(geometry, access):
    """Addresses, outcomes (a few pages are missing), permissions, references, cycles; and what is left behind."""
    many, single = walker_of(geometry), walker_of(geometry)
    glas = np.uint64(GLA) + np.random.default_rng(5).integers(0, 70 * PAGE_4K, 300).astype(np.uint64)
    found = many.translate_in_full(glas, int(access))
    for i, gla in enumerate(glas):
        one = single.translate(int(gla), int(access))
        assert found.outcomes[i] == one.outcome and found.hpas[i] == (one.hpa or 0)
        assert found.permissions[i] == (one.permissions if one.outcome == 0 else 0)
        assert (found.references[i], found.cycles[i]) == (one.references, one.cycles)
    assert {int(outcome) & 0xFF for outcome in found.outcomes} == {int(DONE), int(FAULT)}
    assert many.m.tlb.bytes().tobytes() == single.m.tlb.bytes().tobytes()
    assert many.ram.tobytes() == single.ram.tobytes()


@pytest.mark.jit_off
def test_in_full_is_one_by_one_in_hostile_worlds():
    many, single = Walker(FRAMES * 4096, WALK_CACHES), Walker(FRAMES * 4096, WALK_CACHES)
    for seed in range(3):
        world = World(seed, 0.05)
        for walker in (many, single):
            world.load_into(walker)
        glas = np.array([access.address for access in world.accesses(20)], np.uint64)
        found = many.translate_in_full(glas)
        ones = [single.translate(int(gla)) for gla in glas]
        assert found.outcomes.tolist() == [one.outcome for one in ones]
        assert found.hpas.tolist() == [one.hpa or 0 for one in ones]
        assert found.references.tolist() == [one.references for one in ones]
        assert found.cycles.tolist() == [one.cycles for one in ones]


def test_many_and_in_full_say_the_same():
    glas = np.uint64(GLA) + np.arange(0, 64 * PAGE_4K, 1000, dtype=np.uint64)
    hpas, outcomes = walker_of().translate_many(glas)
    found = walker_of().translate_in_full(glas)
    assert (found.hpas == hpas).all() and (found.outcomes == outcomes).all()
    assert (hpas == glas - np.uint64(GLA - GPA)).all()


def test_lists_and_slices_of_addresses_will_do():
    walker = walker_of()
    hpas, _ = walker.translate_many([GLA, GLA + 1])
    assert hpas.tolist() == [GPA, GPA + 1]
    every_other = np.uint64(GLA) + np.arange(10, dtype=np.uint64)[::2]
    assert walker.translate_in_full(every_other).hpas.tolist() == [GPA + 2 * number for number in range(5)]
    assert walker.translate_many([])[0].tolist() == []


# ---- profiles


@pytest.mark.parametrize("name", cpus.names())
def test_every_profile_fits(name):
    profile = cpus.load(name)
    walker = walker_of(name)
    m, geometry = walker.m, geometry_of(profile)
    assert int(m.cpu.physical_bits) == profile.identity.physical_bits
    first, again = walker.translate(GLA), walker.translate(GLA)
    assert first.outcome == again.outcome == 0 and (again.references, again.cycles) == (0, 0)
    assert first.cycles == geometry.walk_cycles + int(m.walk.memory_cycles)
    assert int(m.tlb.walk_clock) == first.cycles
    assert int(m.tlb.stlb_cycles) == profile.costs["tlb_stlb_hit"]
    assert set(geometry.walk_caches) == set(profile.walk_caches)
    for tlb_name, tlb in profile.tlb.items():
        group = {"dtlb": "l1d", "itlb": "l1i", "stlb": "stlb"}[tlb_name.split("_")[0]]
        for size in tlb.page_sizes:
            array = f"{group}_{size.lower()}"
            if tlb_name != "stlb_code" and size != "4M":
                assert geometry.arrays[array] == (tlb.entries, tlb.ways)
                assert (array in geometry.tree_plru) == (tlb.replacement == "tree_plru")


def test_a_width_that_is_given_wins():
    assert int(Walker(RAM, "skylake-sp", 52).m.cpu.physical_bits) == 52
    assert int(Walker(RAM).m.cpu.physical_bits) == 46


def test_an_unknown_profile_is_named():
    with pytest.raises(ValueError, match="no CPU profile 'pentium'; known: icelake-sp, ideal"):
        Walker(RAM, "pentium")


# ---- marked frames


@pytest.mark.jit_off
@pytest.mark.parametrize("with_ept", [False, True])
@pytest.mark.parametrize(
    ("state", "outcome", "number"), [("poisoned", POISON, POISONED), ("retired", RETIRED_FRAME, RETIRED)]
)
def test_a_walk_that_ends_at_a_bad_frame_says_so(with_ept, state, outcome, number):
    walker = walker_of(with_ept=with_ept)
    walker.mark_frame(GPA + 0x1234, state)
    found = walker.translate(GLA + 0x1FF8)
    assert found.outcome == int(outcome)
    assert (found.gpa, found.hpa, found.frame_state) == (GPA + 0x1FF8, GPA + 0x1FF8, state)
    assert (found.memory_type, found.key) == (None, None)
    assert int(walker.m.walk.frame_state) == int(number)
    again = walker.translate(GLA + 0x1000)
    assert (again.outcome, again.references) == (int(outcome), found.references)  # nothing was kept in the TLB
    assert int(walker.m.tlb.walks) == 2 and int(walker.m.tlb.faults) == 0
    neighbour = walker.translate(GLA)
    assert (neighbour.outcome, neighbour.frame_state) == (0, "healthy")


@pytest.mark.parametrize("access", [READ, WRITE, FETCH])
def test_in_many(access):
    walker = walker_of()
    walker.mark_frame(GPA + 3 * PAGE_4K, "poisoned")
    walker.mark_frame(GPA + 5 * PAGE_4K, "retired")
    glas = np.uint64(GLA) + np.arange(64, dtype=np.uint64) * np.uint64(PAGE_4K)
    for hpas, outcomes in (walker.translate_many(glas, int(access)), walker.translate_in_full(glas, int(access))[:2]):
        assert np.flatnonzero(outcomes).tolist() == [3, 5] == np.flatnonzero(hpas == 0).tolist()
        assert outcomes[[3, 5]].tolist() == [int(POISON), int(RETIRED_FRAME)]


def test_other_states_are_told_and_stop_nothing():
    walker = walker_of()
    walker.mark_frame(GPA, "failing")
    assert [walker.translate(GLA).outcome for _ in range(2)] == [0, 0]
    assert walker.translate(GLA).frame_state == "failing" and int(walker.m.walk.references) == 0
    walker.mark_frame(GPA, "healthy")
    assert walker.translate(GLA).frame_state == "healthy"
    assert int(FAILING) != int(HEALTHY)


def test_what_was_cached_before_is_used_until_it_is_invalidated():
    walker = walker_of()
    walker.translate(GLA)
    walker.mark_frame(GPA, "retired")
    hit = walker.translate(GLA)
    assert (hit.outcome, hit.references, hit.frame_state) == (0, 0, "retired")
    invalidate_all(walker.m)
    assert walker.translate(GLA).outcome == int(RETIRED_FRAME)
    walker.ept.map(0, PAGE_2M, PAGE_2M)  # the page has moved
    invalidate_all(walker.m)
    assert walker.translate(GLA).outcome == 0


def test_a_frame_inside_a_large_page():
    walker = Walker(RAM)
    guest = walker.new_guest_tables()
    guest.map(0, 0, PAGE_2M)
    walker.use(guest)
    walker.mark_frame(0x5000, "poisoned")
    outcomes = walker.translate_many(np.arange(0, 16, dtype=np.uint64) * np.uint64(PAGE_4K))[1]
    assert outcomes[0] == 0
    # The page is cached as a whole before its bad frame is met: hits are not looked at.
    assert not outcomes.any()
    invalidate_all(walker.m)
    assert walker.translate(0x5000).outcome == int(POISON)


def test_bad_marks_are_refused():
    walker = Walker(RAM)
    with pytest.raises(ValueError, match="no frame state 'broken'"):
        walker.mark_frame(0, "broken")
    with pytest.raises(ValueError, match="0x400000 is not in RAM"):
        walker.mark_frame(RAM, "retired")
    assert int(walker.m.tlb.watch_frames) == 0


# ---- size


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
def test_64_gib_cost_nothing_until_they_are_touched():
    walker_of("skylake-sp").translate(GLA)  # compiled code, and what else is there once
    before = resident_bytes()
    walker = Walker(64 << 30, "skylake-sp")
    ept = walker.new_ept()
    ept.map(0, 0, PAGE_1G, 64)
    guest = walker.new_guest_tables(ept)
    guest.map(0, 0, PAGE_1G, 63)
    walker.use(guest, ept)
    assert walker.translate(40 << 30).hpa == 40 << 30
    assert resident_bytes() - before < 64 << 20
    walker.mark_frame((50 << 30) + 5, "poisoned")
    assert walker.translate((50 << 30) + 6).outcome == int(POISON)
    assert resident_bytes() - before < 64 << 20

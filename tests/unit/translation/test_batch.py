"""A batch is what its translations one by one are: results, flags in memory, contents of the TLB and every counter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.translation.worlds import RAM_BYTES, World
from vmxemu.translation import lanes
from vmxemu.translation.geometry import NO_TLB, SKYLAKE_SP, Geometry
from vmxemu.translation.invalidate import invalidate_all
from vmxemu.translation.layout import FETCH, READ, WRITE
from vmxemu.translation.library import PAGE_1G, PAGE_2M, PAGE_4K, Walker
from vmxemu.translation.translate import translate

COUNTERS = ("clock", "stlb_hits", "walks", "references", "faults")
CONTENTS = ("stamps", "trees", "guest_walks", "ept_walks")
TINY_ARRAYS = {"l1d_4k": (4, 2), "l1i_4k": (4, 4), "stlb_4k": (24, 12), "stlb_2m": (8, 4)}
TINY = Geometry(TINY_ARRAYS, stlb_cycles=7, walk_cycles=3)


@pytest.fixture(scope="module")
def walkers():
    return {
        name: (Walker(RAM_BYTES, geometry), Walker(RAM_BYTES, geometry))
        for name, geometry in {"none": NO_TLB, "skylake": SKYLAKE_SP, "tiny": TINY}.items()
    }


def one_by_one(walker, glas, access):
    hpas, outcomes = np.zeros_like(glas), np.zeros_like(glas)
    for i, gla in enumerate(glas):
        outcomes[i] = translate(walker.m, int(gla), int(access))
        hpas[i] = walker.m.walk.hpa if outcomes[i] == 0 else 0
    return hpas, outcomes


def check_equal(batch, single):
    for name in COUNTERS:
        assert getattr(batch.m.tlb, name) == getattr(single.m.tlb, name), name
    for name in CONTENTS:
        assert (getattr(batch.m.tlb, name).numpy == getattr(single.m.tlb, name).numpy).all(), name
    for name in ("tag", "space", "word", "gpa"):
        assert (batch.m.tlb.entries.column(name) == single.m.tlb.entries.column(name)).all(), name
    assert batch.m.walk.cycles_due == single.m.walk.cycles_due
    assert batch.ram.tobytes() == single.ram.tobytes()


def compare(batch, single, glas, access):
    hpas, outcomes = batch.translate_many(glas, int(access))
    expected_hpas, expected_outcomes = one_by_one(single, glas, access)
    assert (outcomes == expected_outcomes).all()
    assert (hpas == expected_hpas).all()
    check_equal(batch, single)
    return glas[outcomes == 0]


def compare_in_a_world(batch, single, seed, hostility):
    world = World(seed, hostility)
    accesses = world.accesses(150)
    for walker in (batch, single):
        world.load_into(walker)
        walker.reset_counters()
        walker.m.tlb.clock = walker.m.walk.cycles_due = 0
    glas = np.array([access.address for access in accesses], np.uint64)
    kind = seed % 3
    for _ in range(3):  # flags are set in the course of it; what does not fault is walked ahead
        glas = np.tile(compare(batch, single, glas, kind), 2)
        for walker in (batch, single):
            invalidate_all(walker.m)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**64 - 1), st.sampled_from((0.0, 0.0, 0.02, 0.1)), st.sampled_from(("none", "skylake", "tiny")))
def test_batch_equals_single_translations(walkers, seed, hostility, geometry):
    compare_in_a_world(*walkers[geometry], seed, hostility)


@pytest.mark.jit_off
def test_a_few_batches(walkers):
    for seed in range(3):
        compare_in_a_world(*walkers["tiny"], seed, 0.0)


SIZES = (PAGE_4K, PAGE_2M, PAGE_1G)


def mixed(geometry, guest_size, ept_size, with_ept, accessed_dirty):
    """Pages of one size under EPT pages of one size, all flags clear."""
    walker = Walker(16 << 20, geometry)
    ept = walker.new_ept() if with_ept else None
    if ept:
        ept.map(0, 0, ept_size, max(1, (16 << 20) // ept_size))
    guest = walker.new_guest_tables(ept)
    guest.map(1 << 39, 0, guest_size, max(1, (4 << 20) // guest_size))
    walker.use(guest, ept, accessed_dirty)
    return walker


@pytest.mark.parametrize("geometry", [NO_TLB, SKYLAKE_SP, TINY])
@pytest.mark.parametrize("guest_size", SIZES)
@pytest.mark.parametrize("ept_size", SIZES)
@pytest.mark.parametrize("with_ept", [True, False])
def test_page_sizes(geometry, guest_size, ept_size, with_ept):
    batch, single = (mixed(geometry, guest_size, ept_size, with_ept, True) for _ in range(2))
    offsets = np.random.default_rng(1).integers(0, 4 << 20, 200).astype(np.uint64)
    glas = np.uint64(1 << 39) + offsets
    for access in (READ, WRITE, FETCH, READ):
        compare(batch, single, glas, access)
        for walker in (batch, single):
            invalidate_all(walker.m)


def test_walks_ahead_are_used():
    """With flags set, no walk of a batch is left to the kernel for single ones (which leaves its address in m.walk)."""
    walker = mixed(NO_TLB, PAGE_4K, PAGE_4K, True, True)
    glas = np.uint64(1 << 39) + np.arange(64, dtype=np.uint64) * np.uint64(4096)
    walker.translate_many(glas)
    walker.m.walk.gla = 5
    walker.translate_many(glas)
    assert walker.m.walk.gla == 5


@pytest.mark.jit_off
def test_bytes_are_found():
    haystack = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3], np.uint8)
    from vmxemu.jit import kernel

    @kernel
    def search(address, byte):
        return lanes.matching_bytes(address, byte)

    assert search(haystack.ctypes.data, 3) == 1 | 1 << 9 | 1 << 15
    assert search(haystack.ctypes.data, 0) == 0

"""Kernel = twin on the structure of translation caches: each access's reference count and cycles, and every counter."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.translation.structure_world import RAM, StructureWorld
from vmxemu.translation.library import Walker

seeds = st.integers(0, 2**64 - 1)


@pytest.fixture(scope="module")
def walker():
    return Walker(RAM)


def compare(walker, seed, blocks, longest=24, **how):
    world = StructureWorld(walker, seed, **how)
    for number in range(blocks):
        world.event()
        access, glas, ours, theirs = world.block(world.chance.randrange(1, longest))
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert one == other, (world.mode, number, i, access, hex(glas[i]), world.geometry)
    ours, theirs = world.counters()
    assert ours == theirs
    assert walker.ram.tobytes() == bytes(world.twin.memory)
    return world


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_structure_equals_the_twin(walker, seed):
    compare(walker, seed, 40)


@pytest.mark.parametrize("profile", ["skylake-sp", "icelake-sp", "zen4-like", "ideal"])
def test_profiles_equal_the_twin(walker, profile):
    for seed in range(3):
        compare(walker, seed, 40, geometry=profile)


def test_the_worlds_reach_everything(walker):
    """Each counter moves, in every mode."""
    seen = Counter()
    for seed in range(40):
        world = compare(walker, seed, 30)
        ours, _ = world.counters()
        for name, value in ours.items():
            for level, count in enumerate(value if isinstance(value, list) else [value]):
                seen[name, level] += count
        seen["mode", world.mode] += 1
    for name in ("stlb_hits", "walks", "faults", "nested_hits", "misses", "uncached"):
        assert seen[name, 0] > 50, (name, seen)
    for level in range(2, 6):
        assert seen["table_hits", level] > 3 and seen["ept_table_hits", level] > 3, (level, seen)
    for level in range(3):
        assert seen["cache_hits", level] > 50, seen
    assert all(seen["mode", mode] for mode in ("4", "5", "pae", "32"))


@pytest.mark.jit_off
def test_a_few_structures(walker):
    for seed in range(8):
        compare(walker, seed, 8, longest=8)


@pytest.mark.campaign
def test_structure_equals_the_twin_at_length(walker):
    for seed in range(20_000):
        compare(walker, seed, 40)

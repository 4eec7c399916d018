"""Kernel = reference on random worlds: outcome, addresses, error code or qualification, flags in memory, references."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.translation.worlds import FRAMES, World, ask_kernel, ask_reference
from vmxemu.translation.geometry import NO_TLB, SKYLAKE_SP
from vmxemu.translation.library import Walker

seeds = st.integers(0, 2**64 - 1)
hostilities = st.sampled_from((0.0, 0.02, 0.1, 0.4))
ACCESSES = 24


@pytest.fixture(scope="module")
def bare():
    return Walker(FRAMES * 4096, NO_TLB)


@pytest.fixture(scope="module")
def cached():
    return Walker(FRAMES * 4096, SKYLAKE_SP)


def compare_without_tlb(walker, seed, hostility, seen=None):
    world = World(seed, hostility)
    processor = world.processor()
    world.load_into(walker)
    for number in range(ACCESSES):
        access = world.access()
        expected = ask_reference(processor, access)
        assert (*ask_kernel(walker, access), int(walker.m.walk.references)) == (*expected, processor.references), (
            number,
            access,
        )
        if seen is not None:
            seen[world.mode, expected[0]] += 1
    assert walker.ram.tobytes() == bytes(processor.memory)


def compare_with_tlb(walker, seed):
    """The memory of a friendly world changes by flags only, so that no cached translation may differ from a walk."""
    world = World(seed, 0.0)
    processor = world.processor()
    world.load_into(walker)
    repertoire = [world.access() for _ in range(12)]
    for _ in range(4 * ACCESSES):
        access = world.chance.choice(repertoire)
        assert ask_kernel(walker, access) == ask_reference(processor, access), access
    assert walker.ram.tobytes() == bytes(processor.memory)


@settings(max_examples=800, deadline=None)
@given(seeds, hostilities)
def test_walk_equals_reference(bare, seed, hostility):
    compare_without_tlb(bare, seed, hostility)


@settings(max_examples=200, deadline=None)
@given(seeds)
def test_cached_translations_equal_the_reference(cached, seed):
    compare_with_tlb(cached, seed)


def test_the_worlds_reach_every_outcome_in_every_mode(bare):
    seen = Counter()
    for seed in range(300):
        compare_without_tlb(bare, seed, (0.0, 0.02, 0.1, 0.4)[seed % 4], seen)
    for mode in ("legacy", "pae", "long", "la57"):
        for outcome in ("done", "#PF", "violation", "misconfiguration"):
            assert seen[mode, outcome] >= 5, (mode, outcome, seen)
    assert seen["long", "#GP"] and seen["off", "done"] and seen["off", "violation"]


@pytest.mark.jit_off
def test_a_few_worlds(bare, cached):
    for seed in range(4):
        compare_without_tlb(bare, seed, 0.02)
        compare_with_tlb(cached, seed)


@pytest.mark.campaign
def test_walk_equals_reference_at_length(bare, cached):
    for seed in range(40_000):
        compare_without_tlb(bare, seed, (0.0, 0.02, 0.1, 0.4)[seed % 4])
        if seed % 4 == 0:
            compare_with_tlb(cached, seed)

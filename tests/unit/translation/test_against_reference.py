"""Kernel = reference on random worlds: outcome, addresses, error code or qualification, references, memory type, key,
the log, and all of RAM with the flags in it.

One case is one access. A failure names the world's seed, hostility and mode, and the number of the access in it.
"""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.translation.asking import Subject, agree, ask_reference
from tests.unit.translation.worlds import HOSTILITIES, MODES, RAM_BYTES, World
from vmxemu.cpu.layout import HF_CS64
from vmxemu.translation import bits
from vmxemu.translation.geometry import NO_TLB, SKYLAKE_SP
from vmxemu.translation.layout import WRITE
from vmxemu.translation.library import Walker

seeds = st.integers(0, 2**64 - 1)
hostilities = st.sampled_from(HOSTILITIES)
modes = st.sampled_from((None, *MODES))
ACCESSES = 40
SUITE_WORLDS, SUITE_CACHED_WORLDS = 4600, 400  # 200,000 cases
CAMPAIGN_CASES = 10_000_000
PARTS = 2


@pytest.fixture(scope="module")
def bare():
    return Subject(Walker(RAM_BYTES, NO_TLB))


@pytest.fixture(scope="module")
def cached():
    return Subject(Walker(RAM_BYTES, SKYLAKE_SP))


def same_memory(subject, processor):
    return np.array_equal(subject.walker.ram.view(np.uint64), np.frombuffer(processor.memory, np.uint64))


def compare_without_tlb(subject, seed, hostility, mode=None):
    world = World(seed, hostility, mode)
    processor = world.processor()
    subject.load(world)
    accesses = world.accesses(ACCESSES)
    for number, access in enumerate(accesses):
        expected, said = ask_reference(processor, access), subject.ask(access)
        assert agree(expected, said), (number, access, expected, said)
        references, pml_index = subject.walk[subject.references], subject.paging[subject.pml_index]
        assert references == processor.references, (number, access, expected, references, processor.references)
        assert pml_index == processor.pml_index, (number, access, expected, pml_index, processor.pml_index)
    if not same_memory(subject, processor):
        raise AssertionError(first_difference_of_memory(subject, world, accesses))


def first_difference_of_memory(subject, world, accesses):
    """Once more, looking at memory after each access."""
    processor = world.processor()
    subject.load(world)
    for number, access in enumerate(accesses):
        expected = ask_reference(processor, access)
        subject.ask(access)
        if not same_memory(subject, processor):
            ours, theirs = subject.walker.ram.view(np.uint64), np.frombuffer(processor.memory, np.uint64)
            at = int(np.nonzero(ours != theirs)[0][0])
            return f"access {number} {access} {expected}: at {at * 8:#x} is {ours[at]:#x}, should be {theirs[at]:#x}"
    return "memory differs, but not when done again"


def compare_with_tlb(subject, seed, mode=None):
    """The memory of a friendly world changes by flags only, so that no cached translation may differ from a walk."""
    world = World(seed, 0.0, mode)
    processor = world.processor()
    subject.load(world)
    repertoire = world.accesses(12)
    for number in range(ACCESSES):
        access = world.chance.choice(repertoire)
        expected, said = ask_reference(processor, access), subject.ask(access)
        assert agree(expected, said), (number, access, expected, said)
    assert same_memory(subject, processor)
    assert subject.paging[subject.pml_index] == processor.pml_index


@settings(max_examples=SUITE_WORLDS, deadline=None)
@given(seeds, hostilities, modes)
def test_walk_equals_reference(bare, seed, hostility, mode):
    compare_without_tlb(bare, seed, hostility, mode)


@settings(max_examples=SUITE_CACHED_WORLDS, deadline=None)
@given(seeds, modes)
def test_cached_translations_equal_the_reference(cached, seed, mode):
    compare_with_tlb(cached, seed, mode)


@pytest.mark.jit_off
def test_a_few_worlds(bare, cached):
    for seed in range(4):
        compare_without_tlb(bare, seed, 0.02)
        compare_with_tlb(cached, seed)


def test_write_disable_of_a_supervisor_page_counts_with_wp_only():
    """SDM Vol. 3A, 'Protection Keys': WD of a supervisor-mode address has no effect if CR0.WP = 0, whoever writes."""
    walker = Walker(4 << 20, NO_TLB)
    guest = walker.new_guest_tables()
    guest.map(0x1000, 0x10_0000, flags=int(bits.P | bits.RW) | 5 << 59)
    walker.use(guest)
    m = walker.m
    m.r.cr[0], m.r.cr[4] = int(bits.CR0_PG), int(bits.CR4_PAE) | int(bits.CR4_PKS)
    m.r.mode, m.paging.pkrs = int(HF_CS64) | 3, 0b10 << 2 * 5
    assert walker.translate(0x1000, int(WRITE)).outcome >> 32 == 0b000111


# The number of cases of a campaign, and where its seeds start: another start, other worlds.
@pytest.mark.campaign
@pytest.mark.parametrize("part", range(PARTS))
def test_walk_equals_reference_at_length(bare, cached, capsys, part):
    cases = int(os.environ.get("VMXEMU_CAMPAIGN_CASES", CAMPAIGN_CASES)) // PARTS
    seed = int(os.environ.get("VMXEMU_CAMPAIGN_SEED", 0)) + part
    done = 0
    while done < cases:
        if seed // PARTS % 10 == 0:
            compare_with_tlb(cached, seed)
        else:
            compare_without_tlb(bare, seed, HOSTILITIES[seed // PARTS % len(HOSTILITIES)])
        done += ACCESSES
        seed += PARTS
    with capsys.disabled():
        print(f"\npart {part}: {done} accesses compared, kernel = reference")

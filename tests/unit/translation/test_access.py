"""Loads and stores at linear addresses, PDPTE registers, batches, and single facts of translation."""

import numpy as np
import pytest

from vmxemu.outcome import EPT_VIOLATION, FAULT
from vmxemu.translation import bits
from vmxemu.translation.access import read_linear, read_linear_bytes, write_linear
from vmxemu.translation.layout import FETCH, READ, WRITE
from vmxemu.translation.library import GUEST_DEFAULT, PAGE_2M, PAGE_4K, Walker
from vmxemu.translation.pdpte import load_pdptes
from vmxemu.translation.translate import translate_guest_physical

GLA = 0x7000_0000_0000


@pytest.fixture
def world():
    """Two neighbouring pages at GLA, far apart in memory; nothing after them."""
    walker = Walker(4 << 20)
    walker.guest = walker.new_guest_tables()
    walker.guest.map(GLA, 0x10_0000)
    walker.guest.map(GLA + PAGE_4K, 0x20_0000)
    walker.use(walker.guest)
    return walker


@pytest.mark.jit_off
@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("offset", [0, 3, 0xFF8, 0xFF9, 0xFFD, 0xFFF])
def test_what_is_written_is_read(world, size, offset):
    value = 0x1122334455667788 & ((1 << 8 * size) - 1)
    assert write_linear(world.m, GLA + offset, size, value, int(WRITE)) == 0
    assert read_linear(world.m, GLA + offset, size, int(READ)) == 0
    assert world.m.walk.value == value
    first = bytes(world.ram[0x10_0000 + offset : 0x10_1000])[:size]
    second = bytes(world.ram[0x20_0000:0x20_0008])[: size - len(first)]
    assert first + second == value.to_bytes(size, "little")


def test_a_store_that_cannot_be_finished_stores_nothing(world):
    outcome = write_linear(world.m, GLA + 0x1FFE, 4, 0xFFFFFFFF, int(WRITE))
    assert outcome & 0xFF == int(FAULT) and world.m.walk.gla == GLA + 0x2000
    assert not world.ram[0x20_0FFE:0x20_1000].any()


def test_bytes_across_pages(world):
    world.ram[0x10_0FF0:0x10_1000] = np.arange(16)
    world.ram[0x20_0000:0x20_0010] = np.arange(16, 32)
    target = np.zeros(32, np.uint8)
    assert read_linear_bytes(world.m, GLA + 0xFF0, 32, int(target.ctypes.data), int(FETCH)) == 0
    assert (target == np.arange(32)).all()
    outcome = read_linear_bytes(world.m, GLA + 0x1FF0, 32, int(target.ctypes.data), int(READ))
    assert outcome & 0xFF == int(FAULT) and world.m.walk.gla == GLA + 0x2000


def test_no_memory_reads_as_ones_and_swallows_stores(world):
    world.guest.map(GLA + 0x10_0000, 0xFEE0_0000)
    for size in (1, 2, 4, 8):
        assert write_linear(world.m, GLA + 0x10_0000, size, 0, int(WRITE)) == 0
        assert read_linear(world.m, GLA + 0x10_0000, size, int(READ)) == 0
        assert world.m.walk.value == (1 << 8 * size) - 1


def test_a_non_canonical_address_is_a_general_protection_fault(world):
    assert world.translate(1 << 47).outcome == 1 | 13 << 8 | 1 << 16
    assert world.translate((1 << 64) - (1 << 47)).outcome >> 8 & 0xFF == 14


def test_32_bit_code_sees_32_bits(world):
    world.guest.map(0x1000, 0x10_0000)
    world.m.r.mode = 0
    assert world.translate(0x5_0000_1004).hpa == 0x10_0004
    assert world.translate(GLA | 4).outcome >> 8 & 0xFF == 14
    assert (
        world.translate(GLA | 4, 4).hpa == 0x10_0004
    )  # descriptor tables have 64-bit addresses in compatibility mode too


def test_tables_outside_memory_end_in_a_reserved_bit_fault(world):
    world.m.r.cr[3] = 0x8_0000_0000
    assert world.translate(GLA).outcome >> 32 == 0b1001


def test_batch_and_single_agree():
    walker = Walker(64 << 20)
    ept = walker.new_ept()
    ept.map(0, 0, count=(64 << 20) // PAGE_4K)
    guest = walker.new_guest_tables(ept)
    guest.map(0, 0, count=3000)
    guest.map(0x4000_0000, 0, PAGE_2M, count=8)
    walker.use(guest, ept, accessed_dirty=True)
    chance = np.random.default_rng(5)
    glas = np.concatenate(
        [chance.integers(0, 3100 * 4096, 3000), 0x4000_0000 + chance.integers(0, 20 << 20, 3000)]
    ).astype(np.uint64)
    chance.shuffle(glas)
    for access in (READ, WRITE, FETCH):
        hpas, outcomes = walker.translate_many(glas, int(access))
        for gla, hpa, outcome in list(zip(glas, hpas, outcomes, strict=True))[::37]:
            single = walker.translate(int(gla), int(access))
            assert (single.outcome, single.hpa or 0) == (int(outcome), int(hpa))
        assert (outcomes == 0).any() and (outcomes != 0).any()


def test_batch_finds_the_place_within_a_large_page():
    walker = Walker(64 << 20)
    ept = walker.new_ept()
    ept.map(0, 0, PAGE_2M, count=32)
    guest = walker.new_guest_tables(ept)
    guest.map(0x4000_0000, 0, PAGE_2M, count=8)
    walker.use(guest, ept)
    offsets = np.arange(0, 16 << 20, 0x1234, dtype=np.uint64)
    for _ in range(2):
        hpas, outcomes = walker.translate_many(np.uint64(0x4000_0000) + offsets)
        assert (hpas == offsets).all() and not outcomes.any()
    assert int(walker.m.tlb.walks) == 8


# ---- PAE


def test_pdptes_are_loaded_all_or_none(world):
    for index in range(4):
        world.write64(0x3000 + 8 * index, (index + 4) << 12 | 1)
    assert load_pdptes(world.m, 0x3018 | 0x5_0000_0000) == 0
    assert [int(world.m.paging.pdpte0), int(world.m.paging.pdpte3)] == [0x4001, 0x7001]
    world.write64(0x3000, 0x9001)
    world.write64(0x3018, 0x7001 | 1 << 1)
    assert load_pdptes(world.m, 0x3000) == 1 | 13 << 8 | 1 << 16
    assert int(world.m.paging.pdpte0) == 0x4001
    world.write64(0x3018, 0x7000 | 1 << 1)  # not present: reserved bits do not matter
    assert load_pdptes(world.m, 0x3000) == 0


def test_loading_pdptes_under_ept_is_a_read_without_a_linear_address(world):
    ept = world.new_ept()
    ept.map(0, 0, count=3)
    world.use(world.guest, ept, accessed_dirty=True)
    assert load_pdptes(world.m, 0x3000) == int(EPT_VIOLATION)
    assert (int(world.m.walk.gpa), int(world.m.walk.qualification)) == (0x3000, 1)
    assert load_pdptes(world.m, 0x2000) == 0
    assert ept.find(0x2000) & int(bits.EPT_A | bits.EPT_D) == int(bits.EPT_A)


def test_guest_physical_translation(world):
    assert translate_guest_physical(world.m, 0x1234, int(READ)) == 0
    assert world.m.walk.hpa == 0x1234
    ept = world.new_ept()
    ept.map(0x1000, 0x5000, flags=1 | 6 << 3)
    world.use(None, ept)
    assert translate_guest_physical(world.m, 0x1234, int(READ)) == 0
    assert world.m.walk.hpa == 0x5234
    assert translate_guest_physical(world.m, 0x1234, int(WRITE)) == int(EPT_VIOLATION)
    assert world.m.walk.qualification == 0b1010


def test_execute_only_pages(world):
    ept = world.new_ept()
    ept.map(0x1000, 0x5000, flags=4 | 6 << 3)
    world.use(None, ept)
    assert world.translate(0x1000, int(FETCH)).permissions == 4
    assert world.translate(0x1000, int(READ)).qualification == 1 | 4 << 3 | 0x180
    assert world.translate(0x1000, int(FETCH)).outcome == 0


def test_cycles_accumulate_until_taken(world):
    world.m.walk.cycles_due = 0
    world.translate(GLA)
    cycles = int(world.m.walk.cycles)
    world.translate(GLA + PAGE_4K)
    assert int(world.m.walk.cycles_due) == 2 * cycles > 0


def test_default_flags_are_what_they_seem():
    assert GUEST_DEFAULT == 7


def test_tables_in_smram_are_seen_in_smm_only(world):
    memory, root = world.m.memory, world.guest.root
    memory.tseg_base, memory.tseg_bytes, memory.smram_locked = root, PAGE_4K, 1
    assert world.translate(GLA).outcome >> 32 == 0b1001
    world.m.cpu.in_smm = 1
    assert world.translate(GLA).hpa == 0x10_0000


def test_tables_above_4_gib(world):
    memory = world.m.memory
    shift = (1 << 32) - (2 << 20)
    memory.low_bytes, memory.high_bytes = 2 << 20, 2 << 20  # the tables are in the upper half of RAM
    for at in range(2 << 20, 4 << 20, 8):
        entry = world.read64(at)
        if entry & 1 and entry >> 12 << 12 >= 2 << 20:
            world.write64(at, entry + shift)
    world.m.r.cr[3] = world.guest.root + shift
    assert world.translate(GLA).hpa == 0x10_0000
    assert world.translate(GLA + PAGE_4K).hpa == (1 << 32)

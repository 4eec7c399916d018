"""Counting and migration: contents, frames, EPT01, derived entries; and what happens when there is no good way on."""

import numpy as np
import pytest

from tests.unit.outer.room import EPT01, REGION, REGION_BYTES, VMCS12, Room, words
from vmxemu.layout import u64
from vmxemu.memory import layout as states
from vmxemu.memory.frames import poison_line
from vmxemu.outer import ras
from vmxemu.outer.ept_tables import FROM_ARENA, map_page
from vmxemu.outer.pool import take_table
from vmxemu.trace import events

PAGE, GPA = 0x345000, 0x345000


@pytest.fixture
def room():
    return SHARED.reset()


SHARED = Room()


def page(room, hpa):
    return room.byte[hpa : hpa + 4096].copy()


def fill(room, hpa):
    room.byte[hpa : hpa + 4096] = np.random.default_rng(hpa).integers(0, 256, 4096, np.uint8)


def state(room, hpa):
    return room.frames[hpa >> 12] & 0x7F


def errors(room, hpa, count):
    return [int(ras.corrected(room.m, u64(hpa))) for _ in range(count)]


def test_the_threshold_moves_the_page(room):
    fill(room, PAGE)
    before = page(room, PAGE)
    assert errors(room, PAGE + 0x48, 3) == [0, 0, 1]
    ((status, gpa, old, new, _),) = room.events(events.MIGRATION)
    assert (status, gpa, old) == (0, GPA, PAGE)
    assert REGION <= new < REGION + REGION_BYTES
    assert (page(room, new) == before).all()
    assert state(room, PAGE) == states.RETIRED and state(room, new) == states.MAPPED_ON_BEHALF
    assert room.translation(EPT01, GPA) == new
    assert room.translation(EPT01, GPA + 0x1000) == PAGE + 0x1000, "the rest of the large page stays"
    assert int(ras.gpa1_of(room.m, u64(new + 5))) == GPA + 5
    assert not (page(room, PAGE) == before).all()


def test_errors_are_counted_by_frame(room):
    assert errors(room, PAGE, 2) == [0, 0]
    assert errors(room, PAGE + 0x1000, 2) == [0, 0]
    assert errors(room, PAGE + 0xFFF, 1) == [1]


def test_derived_entries_go_before_the_source_is_retired(room):
    m = room.m
    root = int(take_table(m))
    assert map_page(m, *words(root, 0x200000, 0x200000 | 0xB7, 2, int(FROM_ARENA)))
    assert map_page(m, *words(root, 0x40001000, PAGE | 0x37, 1, int(FROM_ARENA)))
    errors(room, PAGE, 3)
    assert room.leaf(root, 0x40001000) is None and room.leaf(root, GPA) is None
    kinds = [int(m.trace.events[index].kind) for index in range(int(m.trace.count))]
    assert kinds.index(int(events.INVALIDATION)) < len(kinds) - 1 - kinds[::-1].index(int(events.FRAME))


def test_a_migrated_page_moves_again(room):
    fill(room, PAGE)
    before = page(room, PAGE)
    errors(room, PAGE, 3)
    first = room.translation(EPT01, GPA)
    assert errors(room, first, 3) == [0, 0, 1]
    second = room.translation(EPT01, GPA)
    assert second not in (PAGE, first) and (page(room, second) == before).all()
    assert state(room, first) == states.RETIRED


def test_already_retired(room):
    errors(room, PAGE, 3)
    assert errors(room, PAGE, 5) == [0] * 5
    assert int(ras.migrate(room.m, u64(PAGE))) == ras.ALREADY_RETIRED
    assert len(room.events(events.MIGRATION)) == 2


def test_pool_exhausted(room):
    m = room.m
    room.frames[int(m.outer.pool_end) >> 12 : int(m.outer.pool_next) >> 12] = int(states.VMM1_OWN)
    fill(room, PAGE)
    before = page(room, PAGE)
    map_before = room.translation(EPT01, GPA)
    assert errors(room, PAGE, 4) == [0] * 4
    assert [row[0] for row in room.events(events.MIGRATION)] == [int(ras.NO_TABLE)] * 2, "no page to split the large one"
    assert room.translation(EPT01, GPA) == map_before and (page(room, PAGE) == before).all()
    assert state(room, PAGE) == states.FAILING


def test_no_frame_is_lost_when_only_a_table_page_is_left(room):
    m = room.m
    last = int(m.outer.pool_next) - 4096
    room.frames[int(m.outer.pool_end) >> 12 : last >> 12] = int(states.VMM1_OWN)
    errors(room, PAGE, 3)
    assert [row[0] for row in room.events(events.MIGRATION)] == [int(ras.POOL_EMPTY)]
    assert room.translation(EPT01, GPA) == PAGE
    assert not (room.frames == int(states.MAPPED_ON_BEHALF)).any()


def test_a_poisoned_source_is_never_copied(room):
    poison_line(room.m, u64(PAGE + 0x80))
    assert errors(room, PAGE, 3) == [0, 0, 0]
    assert [row[0] for row in room.events(events.MIGRATION)] == [int(ras.SOURCE_POISONED)]
    assert room.translation(EPT01, GPA) == PAGE


def test_a_poisoned_frame_is_never_handed_out(room):
    m = room.m
    bad = int(m.outer.pool_next) - 4096
    poison_line(m, u64(bad))
    errors(room, PAGE, 3)
    errors(room, PAGE + 0x1000, 3)
    assert bad not in (room.translation(EPT01, GPA), room.translation(EPT01, GPA + 0x1000))


def test_memory_that_is_not_vm1s_stays(room):
    assert errors(room, REGION + 0x5000, 3) == [0, 0, 0]
    assert [row[0] for row in room.events(events.MIGRATION)] == [int(ras.NOT_VM1_MEMORY)]


def test_containment_poisons_the_line(room):
    ras.contain(room.m, u64(PAGE + 0x41))
    assert state(room, PAGE) == states.POISONED
    assert room.m.memory.poison_count == 1 and room.poison[0] == PAGE + 0x40


def test_vmm1_follows_its_pointers_into_a_page_that_moves(room):
    m = room.m
    v12 = room.vmcs(VMCS12)
    v12.io_bitmap_a, v12.io_bitmap_b = PAGE, PAGE + 0x1000
    errors(room, VMCS12, 3)
    errors(room, PAGE, 3)
    assert m.outer.nested.host_address == room.host(room.translation(EPT01, VMCS12))
    v02 = room.vmcs(int(m.outer.vmcs02))
    assert (v02.io_bitmap_a, v02.io_bitmap_b) == (room.translation(EPT01, PAGE), PAGE + 0x1000)

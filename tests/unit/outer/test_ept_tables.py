"""Mapping, splitting and unmapping against a dictionary of 4-KiB pages."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.outer.room import REGION, Room, words
from vmxemu.outer import ept_tables
from vmxemu.outer.pool import take_table

ARENA = int(ept_tables.FROM_ARENA)
PAGES = (0x0, 0x1000, 0x1FF000, 0x200000, 0x3FF000, 0x4000_0000, 0x4000_1000, 0x80_0000_0000)


@pytest.fixture(scope="module")
def room():
    return Room()


WHAT = st.sampled_from(("map", "large", "split", "unmap"))
STEP = st.tuples(WHAT, st.sampled_from(PAGES), st.integers(0, 40), st.sampled_from((1, 3, 7)))


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=15))
def test_tables_equal_a_dictionary(room, steps):
    room.reset()
    m = room.m
    root = int(take_table(m))
    twin: dict[int, tuple[int, int]] = {}
    for what, gpa, frame, rights in steps:
        hpa = 0x100000 + (frame << 12)
        if what == "map":
            assert ept_tables.map_page(m, *words(root, gpa, hpa | rights | 0x30, 1, ARENA))
            twin[gpa] = hpa, rights
        elif what == "large":
            base, hpa = gpa & ~0x1FFFFF, frame << 21
            assert ept_tables.map_page(m, *words(root, base, hpa | rights | 0xB0, 2, ARENA))
            twin |= {base + offset: (hpa + offset, rights) for offset in range(0, 1 << 21, 4096)}
        elif what == "split":
            got = int(ept_tables.leaf_4k(m, *words(root, gpa, ARENA)))
            assert (got != int(ept_tables.NOT_MAPPED)) == (gpa in twin)
            if gpa in twin:
                assert room.leaf(root, gpa)[1] == 1
        else:
            ept_tables.unmap_frame(m, m.outer.arena_base, m.outer.arena_next, *words(hpa))
            gone = [address for address in twin if room.leaf(root, address) is None]
            assert {address for address, (frame_hpa, _) in twin.items() if frame_hpa == hpa} <= set(gone)
            for address in gone:  # a large page goes as a whole
                assert twin.pop(address)[0] >> 21 == hpa >> 21
    for gpa in {*PAGES, *list(twin)[:64]}:
        expected = twin.get(gpa)
        got = int(ept_tables.translate_software(m, *words(root, gpa | 0x123)))
        assert got == (int(ept_tables.NOT_MAPPED) if expected is None else expected[0] | 0x123)
        assert room.translation(root, gpa) == (None if expected is None else expected[0])
        if expected is not None:
            assert room.leaf(root, gpa)[0] & 7 == expected[1]


def test_a_full_arena_is_reported(room):
    room.reset()
    m = room.m
    root = int(take_table(m))
    m.outer.arena_next = int(m.outer.arena_end) - 0x1000
    assert not ept_tables.map_page(m, *words(root, 0, 0x100037, 1, ARENA))
    assert REGION < root

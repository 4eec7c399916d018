"""Filling EPT02 against a walk of EPT12 and EPT01 in plain Python."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.outer.room import ADDRESS, EPT01, REGION, Room, words
from vmxemu.layout import u64
from vmxemu.outer import ept02

TABLES = (0x100000, 0x101000, 0x102000, 0x103000)
ACCESSED, DIRTY, AD = 1 << 8, 1 << 9, 1 << 6
GPA2 = 0x12_3456_7000 & ~0x1FF000 | 0x5000


@pytest.fixture(scope="module")
def room():
    return Room()


def misconfigured(entry, level):
    read, write = entry & 1, entry & 2
    if write and not read or entry & ADDRESS >= 1 << 46:
        return True
    if level > 1 and not entry & 0x80:
        return bool(entry & 0x78)
    if level == 4 and entry & 0x80:
        return True
    size = 1 << (3 + 9 * level)
    return entry >> 3 & 7 in (2, 3, 7) or bool(level > 1 and entry & ADDRESS & (size - 1))


def twin(room, entries, flags, access):
    """(result, rights told, {address: new entry})."""
    rights, marks = 7, {}
    for level, table in zip((4, 3, 2, 1), TABLES, strict=True):
        at = table + ((GPA2 >> (3 + 9 * level) & 0x1FF) << 3)
        entry = entries[4 - level]
        if entry & 7 == 0:
            return "violation", 0, marks
        if misconfigured(entry, level):
            return "misconfiguration", None, marks
        rights &= entry
        if level == 1 or entry & 0x80:
            if access & ~rights:
                return "violation", rights, marks
            if flags:
                marks[at] = entry | ACCESSED | (DIRTY if access & 2 else 0)
                if not marks[at] & DIRTY:
                    rights &= ~2
            size = 1 << (3 + 9 * level)
            return entry & ADDRESS & ~(size - 1) | GPA2 & (size - 1), rights, marks
        if flags:
            marks[at] = entry | ACCESSED
    raise AssertionError


RIGHTS = st.sampled_from((7, 7, 7, 3, 1, 5, 4, 2, 0, 6))
TYPE = st.sampled_from((0x30, 0x30, 0, 0x10, 0x38, 0x08))
MARKS = st.sampled_from((0, ACCESSED, ACCESSED | DIRTY))


@st.composite
def walks(draw):
    depth = draw(st.sampled_from((1, 1, 1, 2, 3, 4)))
    entries = [TABLES[5 - level] | draw(RIGHTS) | draw(MARKS) | draw(st.sampled_from((0, 0, 0, 0, 8))) for level in (4, 3, 2)] + [0]
    frame = draw(st.sampled_from((0x200000, 0x400000, 0x0, 0x345000, 0x4000_0000, 1 << 47)))
    entries[4 - depth] = frame | draw(RIGHTS) | draw(TYPE) | draw(MARKS) | (0x80 if depth > 1 else 0)
    return entries


@settings(max_examples=300, deadline=None)
@given(walks(), st.sampled_from((0, AD)), st.sampled_from((1, 2, 3, 4)))
def test_fill_equals_the_twin(room, entries, flags, access):
    room.reset()
    m = room.m
    for level, table, entry in zip((4, 3, 2, 1), TABLES, entries, strict=True):
        room.word[table + ((GPA2 >> (3 + 9 * level) & 0x1FF) << 3) >> 3] = entry
    eptp12 = TABLES[0] | 0x1E | flags
    before = room.word[: REGION >> 3].copy()
    got = int(ept02.fill(m, *words(eptp12, GPA2, access)))
    expected, rights, marks = twin(room, entries, flags, access)
    root = int(m.outer.roots[0].hpa) if m.outer.root_count else None
    leaf = room.leaf(root, GPA2) if root else None
    if expected == "misconfiguration":
        assert got == ept02.MISCONFIGURED and leaf is None
    elif expected == "violation":
        assert got == ept02.VIOLATION and int(m.outer.error_detail) == rights and leaf is None
    else:
        assert got == ept02.MAPPED
        hpa = room.translation(EPT01, expected)
        assert (leaf is None) == (hpa is None)
        if leaf is not None:
            assert room.translation(root, GPA2) == hpa
            assert leaf[0] & 7 == rights and leaf[1] <= 2
            assert int(ept02.eptp02(m, u64(eptp12))) == root | 0x1E | flags
    for at, entry in marks.items():
        before[at >> 3] = entry
    assert (room.word[: REGION >> 3] == before).all(), "nothing of VM1's changes but the flags"


def test_a_large_page_never_reaches_over_a_migrated_one(room):
    """EPT12 maps 2 MiB, EPT01 has a hole in it by a migration: EPT02 must map 4 KiB pages."""
    from vmxemu.outer import ras

    m = room.reset().m
    m.outer.threshold = 1
    ras.corrected(m, u64(0x345000))
    room.word[TABLES[0] >> 3], room.word[TABLES[1] >> 3] = TABLES[1] | 7, TABLES[2] | 7
    room.word[(TABLES[2] >> 3) + 1] = 0x200000 | 0xB7
    for gpa2, hpa in ((0x344000, 0x344000), (0x345000, room.translation(EPT01, 0x345000))):
        assert int(ept02.fill(m, *words(TABLES[0] | 0x1E, gpa2, 1))) == ept02.MAPPED
        root = int(m.outer.roots[0].hpa)
        assert room.translation(root, gpa2) == hpa and room.leaf(root, gpa2)[1] == 1


def test_many_roots_and_a_full_arena(room):
    m = room.reset().m
    room.word[TABLES[0] >> 3], room.word[TABLES[1] >> 3] = TABLES[1] | 7, TABLES[2] | 7
    room.word[TABLES[2] >> 3] = 0xB7
    for flag in range(200):
        eptp12 = TABLES[0] | 0x1E | (flag & 1) << 6 | flag << 40
        assert int(ept02.eptp02(m, u64(eptp12))) >> 12 << 12 >= int(m.outer.arena_base)
        m.outer.arena_next = int(m.outer.arena_end) - 0x1000 * (flag % 4)
        assert int(ept02.fill(m, *words(TABLES[0] | 0x1E, 0x1000, 1))) == ept02.MAPPED
        root = int(ept02.root_for(m, u64(TABLES[0] | 0x1E)))
        assert room.translation(root, 0x1000) == 0x1000
        assert m.outer.root_count <= 8

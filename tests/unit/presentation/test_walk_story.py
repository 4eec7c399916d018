"""What the rows of a translation's story say."""

from dataclasses import replace

import pytest

from tests.unit.presentation import handmade
from vmxemu.presentation.walk_story import tell
from vmxemu.translation.account import (
    EPT,
    EPT_CACHE,
    FLAGS,
    GUEST,
    NESTED_TLB,
    PAGE,
    TLB,
    WALK_CACHE,
    Account,
    Processor,
    Reference,
)
from vmxemu.translation.layout import EPT_MODE_BASED_EXECUTE


def story_of(*references: Reference, **changes: object):
    return tell(Account(handmade.GLA, 0, handmade.processor(**changes), references))


@pytest.mark.parametrize(("guest", "ept"), [(4, 4), (5, 5), (4, 5), (0, 4), (2, 4), (4, 0)])
def test_references_are_numbered_in_order(guest: int, ept: int) -> None:
    rows = tell(handmade.walk(guest, ept)).rows
    assert [row.number for row in rows] == list(range(1, (guest + 1) * (ept + 1)))


def test_who_needed_a_reference() -> None:
    story = tell(handmade.walk())
    assert [row.target for row in story.rows] == [4] * 5 + [3] * 5 + [2] * 5 + [1] * 5 + [PAGE] * 4
    assert [row.title for row in story.of(EPT, PAGE)] == ["EPT PML4E", "EPT PDPTE", "EPT PDE", "EPT PTE"]
    assert story.of(GUEST, 2)[0].title == "guest PDE"


@pytest.mark.parametrize(
    ("entry", "level", "flags"),
    [
        (0x27, 4, "P RW US A"),
        (0x67, 1, "P RW US A D WB"),
        (0x1 | 1 << 63, 1, "P XD WB"),
        (0x1E7, 2, "P RW US A D PS G WB"),
        (0x10E7 | 1 << 3, 2, "P RW US A D PS WT"),
        (0x7F, 1, "P RW US A D UC"),
        (0x27 | 1 << 3, 3, "P RW US A PWT"),
        (0x26, 3, "not present"),
        (0x27 | 1 << 50, 4, "P RW US A reserved 50!"),
        (0x67 | 3 << 59, 1, "P RW US A D WB key=3"),
    ],
)
def test_flags_of_guest_entries(entry: int, level: int, flags: str) -> None:
    assert " ".join(story_of(Reference(GUEST, level, level, entry=entry)).rows[0].flags) == flags


@pytest.mark.parametrize(
    ("entry", "level", "flags"),
    [
        (0x7, 4, "RWX"),
        (0x35, 1, "R-X WB"),
        (0xF7, 2, "RWX IPAT PS WB"),
        (0x337, 1, "RWX A D WB"),
        (0x407, 1, "RWX UC"),
        (1 << 63, 3, "not present SVE"),
        (0x17, 1, "RWX reserved type 2"),
        (0x2000_0000_0000_0031, 1, "R-- SPP WB"),
    ],
)
def test_flags_of_ept_entries(entry: int, level: int, flags: str) -> None:
    assert " ".join(story_of(Reference(EPT, level, PAGE, entry=entry)).rows[0].flags) == flags


def test_with_mode_based_execute_control_xu_is_told_apart_and_makes_an_entry_present() -> None:
    mbe = {"ept_extensions": int(EPT_MODE_BASED_EXECUTE)}
    rows = story_of(Reference(EPT, 2, PAGE, entry=0x407), Reference(EPT, 1, PAGE, entry=0x431), **mbe).rows
    assert [row.so_far for row in rows] == ["RWX+XU", "R--+XU"]
    assert story_of(Reference(EPT, 1, PAGE, entry=0x430), **mbe).rows[0].present
    assert not story_of(Reference(EPT, 1, PAGE, entry=0x430)).rows[0].present


def test_rights_add_up_along_the_guests_tables_and_along_each_ept_walk() -> None:
    references = list(handmade.walk().references)
    references[9] = replace(references[9], entry=0x10_2025)  # PDPTE: read-only
    references[14] = replace(references[14], entry=0x10_3023)  # PDE: supervisor
    references[11] = replace(references[11], entry=0x200_2005)  # EPT for the PDE: read-only
    rows = story_of(*references).rows
    assert [row.so_far for row in rows if row.kind == GUEST] == ["RWX U", "R-X U", "R-X S", "R-X S"]
    assert [row.so_far for row in rows[10:14]] == ["RWX", "R-X", "R-X", "R-X"]
    assert rows[15].so_far == "RWX"


@pytest.mark.parametrize(
    ("cr4", "level", "entry", "structure"),
    [
        (0, 1, 0x67, "PTE_32"), (0x10, 2, 0xE7, "PDE_4M"), (0, 2, 0xE7, "PDE_32"),
        (0x20, 2, 0xE7, "PAE_PDE_2M"), (0x20, 2, 0x67, "PAE_PDE"), (0x20, 1, 0x67, "PAE_PTE"),
    ],
)  # fmt: skip
def test_formats_of_the_32_bit_modes(cr4: int, level: int, entry: int, structure: str) -> None:
    row = story_of(Reference(GUEST, level, level, entry=entry), cr4=cr4, efer=0).rows[0]
    assert row.structure == structure


def test_a_cached_table_brings_its_rights_and_spares_what_is_above() -> None:
    story = story_of(Reference(WALK_CACHE, 2, 2, hpa=0x3000, entry=0x3002), Reference(GUEST, 1, 1, entry=0x67))
    assert [row.so_far for row in story.rows] == ["RWX S", "RWX S"]
    assert [story.spared_by(target) for target in (4, 3, 2, 1, PAGE)] == ["walk cache"] * 4 + [""]
    assert story.rows[0].number is None and story.rows[1].number == 1


def test_a_nested_tlb_spares_one_ept_walk() -> None:
    story = story_of(Reference(NESTED_TLB, 0, 4, hpa=0x1000), Reference(GUEST, 4, 4, entry=0x27))
    assert story.spared_by(4) == "nested TLB" and story.spared_by(3) == ""


def test_a_walk_cache_of_ept_spares_the_upper_entries_of_one_walk() -> None:
    cached = Reference(EPT_CACHE, 2, PAGE, hpa=0x3000, entry=0x3005)
    story = story_of(Reference(GUEST, 1, 1, entry=0x67), cached, Reference(EPT, 1, PAGE, entry=0x37))
    assert story.ept_spared_from(PAGE) == 2 and story.ept_spared_from(1) is None
    assert [row.so_far for row in story.rows] == ["RWX U", "R-X", "R-X"]
    assert [row.attempt for row in story.rows] == [0, 0, 0]


def test_a_tlb_hit_spares_all_and_tells_the_rights_it_keeps() -> None:
    story = story_of(Reference(TLB, entry=0b1101))
    assert story.rows[0].so_far == "R-X U"
    assert all(story.spared_by(target) == "L1 TLB" for target in range(5))


def test_a_walk_that_begins_again_is_told_apart() -> None:
    once = handmade.walk(4, 0).references
    story = story_of(*once, *once, ept_levels=0)
    assert [row.attempt for row in story.rows] == [0] * 4 + [1] * 4
    assert [row.number for row in story.of(GUEST)] == [5, 6, 7, 8]
    assert story.rows[4].so_far == "RWX U"


def test_stores_of_flags_and_their_ept_walks_have_no_number() -> None:
    flags = [Reference(EPT, level, 7, entry=7) for level in (4, 3, 2, 1)]
    references = handmade.walk().references
    rows = story_of(*references[:20], *flags, Reference(FLAGS, 1, 1, hpa=1), *references[20:]).rows
    assert [row.number for row in rows[20:25]] == [None] * 5
    assert rows[-1].number == 24 and rows[-1].attempt == 0


def test_modes() -> None:
    assert Processor().mode == "off" and Processor().guest_levels == 0
    assert handmade.processor(5).mode == "5-level"
    assert handmade.processor(4, efer=0).mode == "PAE"
    assert handmade.processor(4, efer=0, cr4=0).mode == "32-bit"
    assert handmade.processor(4, 5).ept_levels == 5

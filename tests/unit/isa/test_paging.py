"""Laws of the paging-entry table, and what is read out of entries."""

import pytest

from vmxemu.isa import paging
from vmxemu.translation import bits

WIDTHS = {"PDE_32": 32, "PDE_4M": 32, "PTE_32": 32, "PAGE_FAULT": 32}


@pytest.mark.parametrize("structure", paging.STRUCTURES)
def test_fields_cover_every_bit_once(structure: str) -> None:
    position = 0
    for field in paging.STRUCTURES[structure]:
        assert field.low == position and field.high >= field.low
        assert field.kind in ("flag", "field", "address", "ignored", "reserved")
        assert field.kind != "flag" or field.low == field.high
        position = field.high + 1
    assert position == WIDTHS.get(structure, 64)


@pytest.mark.parametrize("structure", paging.STRUCTURES)
def test_names_are_unique_in_their_structure(structure: str) -> None:
    names = [f.name for f in paging.STRUCTURES[structure] if f.kind in ("flag", "field", "address")]
    assert len(set(names)) == len(names)
    assert all(f.name == f.kind.upper() for f in paging.STRUCTURES[structure] if f.kind in ("ignored", "reserved"))


@pytest.mark.parametrize("structure", ("PAGE_FAULT", "EPT_VIOLATION"))
def test_every_bit_that_explains_a_failure_says_what_0_means(structure: str) -> None:
    assert all(field.when_clear for field in paging.STRUCTURES[structure] if field.kind == "flag")


@pytest.mark.parametrize(
    ("structure", "name", "mask"),
    [
        ("PTE", "P", bits.P), ("PTE", "RW", bits.RW), ("PTE", "US", bits.US), ("PTE", "A", bits.A), ("PTE", "D", bits.D),
        ("PDE", "PS", bits.PS), ("PTE", "G", bits.G), ("PTE", "XD", bits.XD), ("PML4E", "ADDRESS", bits.FRAME_MASK),
        ("EPT_PTE", "R", bits.EPT_READ), ("EPT_PTE", "W", bits.EPT_WRITE), ("EPT_PTE", "X", bits.EPT_EXECUTE),
        ("EPT_PTE", "A", bits.EPT_A), ("EPT_PTE", "D", bits.EPT_D), ("EPT_PDE_2M", "PS", bits.EPT_LARGE),
        ("EPTP", "LENGTH", bits.EPTP_LENGTH), ("EPTP", "AD", bits.EPTP_AD), ("EPT_VIOLATION", "GLA_VALID", bits.GLA_VALID),
        ("EPT_VIOLATION", "TRANSLATION", bits.IS_TRANSLATION), ("PAGE_FAULT", "P", bits.PF_PRESENT),
        ("PAGE_FAULT", "W", bits.PF_WRITE), ("PAGE_FAULT", "U", bits.PF_USER), ("PAGE_FAULT", "RSVD", bits.PF_RESERVED),
        ("PAGE_FAULT", "I", bits.PF_FETCH),
    ],
)  # fmt: skip
def test_the_table_and_the_walks_agree(structure: str, name: str, mask: int) -> None:
    assert paging.bits_of(structure, name) == int(mask)


def test_the_format_of_a_pae_pdpte_is_the_one_that_loads_check() -> None:
    reserved = sum(f.mask for f in paging.STRUCTURES["PAE_PDPTE"] if f.kind == "reserved")
    assert reserved & 0xFFF == int(bits.PDPTE_RESERVED)


def test_an_entry_is_decoded() -> None:
    entry = paging.decode("PDE_2M", 0x8000_0000_4020_0087 | 5 << 59)
    assert entry | {"P": 1, "RW": 1, "US": 1, "A": 0, "D": 0, "PS": 1, "KEY": 5, "XD": 1, "ADDRESS": 0x4020_0000} == entry
    assert "IGNORED" not in entry and "RESERVED" not in entry


def test_reserved_bits_are_found() -> None:
    assert paging.reserved_bits_set("PDE_2M", 1 << 13 | 1 << 20 | 1 << 21 | 1 << 51) == [13, 20]
    assert paging.reserved_bits_set("PDE_2M", 1 << 21 | 1 << 51, physical_bits=46) == [51]
    assert paging.reserved_bits_set("EPT_PML4E", 0x88) == [3, 7]
    assert paging.reserved_bits_set("PDE_4M", 1 << 21 | 1 << 20) == [21]


def test_memory_types_have_names() -> None:
    assert [paging.memory_type(number) for number in (0, 6, 7)] == ["UC", "WB", "UC-"]
    assert paging.memory_type(2) == "reserved type 2"


def test_a_field_that_is_not_there_is_named() -> None:
    with pytest.raises(KeyError, match="PML4E has no D"):
        paging.bits_of("PML4E", "D")

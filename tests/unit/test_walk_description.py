"""Descriptions of translations: the schema, its complaints, and the tables that are built."""

from pathlib import Path

import pytest

from vmxemu.configuration import InputError, examples
from vmxemu.configuration.walk_description import WalkDescription
from vmxemu.translation.account import GUEST as GUEST_ENTRY
from vmxemu.translation.account import account, processor_of
from vmxemu.translation.scene import build

OK = "address = 0x1000\n"
GUEST = OK + "[[guest.page]]\nat = 0x1000\nto = 0x40_0000\n"
EPT = GUEST + "[ept]\n[[ept.page]]\nat = 0x40_0000\nto = 0x90_0000\n"
EVERY_PROCESSOR_TELLS = 0x1FF  # bits of the qualification that need no "advanced information"
ACCESSES = {"read": 0, "write": 1, "fetch": 2}

BAD = [
    ("", "address: this key is missing"),
    ("adress = 1\naddress = 2", "adress: unknown key; expected one of description, address, access"),
    ("address = -1", "address: expected an address such as 0x1f3000, got -1"),
    (OK + 'access = "look"', "access: expected 'read', 'write' or 'fetch', got 'look'"),
    (OK + "repeat = 17", "repeat: expected at most 16, got 17"),
    (OK + 'access = "fetch"\nshadow_stack = true', "shadow_stack: expected false for a fetch, got true"),
    (OK + '[processor]\ncpu = "z80"', "processor.cpu: expected a CPU profile ("),
    (OK + "[processor]\ncpl = 4", "processor.cpl: expected 0, 1, 2 or 3, got 4"),
    (OK + '[processor]\nmode = "6-level"', "processor.mode: expected 'off', '32-bit', 'pae', '4-level' or '5-level'"),
    (OK + '[processor]\ncontrols = "WP XYZ"', "processor.controls: expected controls out of WP PSE PGE"),
    (OK + "[processor]\ncontrols = 3", "processor.controls: expected controls as text, such as 'WP PSE PGE', got 3"),
    (OK + "[processor]\npkru = 0x1_0000_0000", "processor.pkru: expected less than 4294967296"),
    (GUEST.replace("0x1000\nto", "0x1004\nto"), "guest.page[0]: at: expected a multiple of 4K, got 0x1004"),
    (GUEST + 'size = "2M"', "guest.page[0]: at: expected a multiple of 2M, got 0x1000"),
    (GUEST + 'size = "8K"', "guest.page[0].size: expected '4K', '2M', '4M' or '1G', got '8K'"),
    (GUEST + 'flags = "P Q"', "guest.page[0].flags: expected flags out of P RW US"),
    (GUEST + "key = 16", "guest.page[0].key: expected at most 15, got 16"),
    (GUEST + "count = 0", "guest.page[0].count: expected at least 1, got 0"),
    (GUEST + "colour = 1", "guest.page[0].colour: unknown key; expected one of at, to, size"),
    (GUEST.replace("0x1000\nto", "0x8000_0000_0000\nto"), "guest.page[0].at: expected a canonical address of 48 bits"),
    (GUEST.replace("0x40_0000", "0x10_0000_0000_0000"), "guest.page[0]: to: expected an address of at most 52 bits"),
    (GUEST.replace("0x1000\nto", "0x1_0000_0000\nto") + '[processor]\nmode = "pae"', "expected a linear address of 32 bits"),
    (GUEST.replace("0x40_0000", "0x1_0000_0000") + '[processor]\nmode = "32-bit"', "a guest-physical address of 32 bits"),
    (GUEST + '[processor]\nmode = "off"', "guest.page[0].size: expected no pages, because paging is off in mode off"),
    (EPT + 'size = "4M"', "ept.page[0].size: expected '4K', '2M' or '1G', got '4M'"),
    (EPT.replace("at = 0x40_0000", "at = 0x1_0000_0000_0000"), "ept.page[0].at: expected a guest-physical address of 48 bits"),
    (EPT + 'memory_type = "WX"', "ept.page[0].memory_type: expected 'UC', 'WC', 'WT', 'WP' or 'WB', got 'WX'"),
    (EPT + "sub_pages = [32]", "ept.page[0].sub_pages[0]: expected at most 31, got 32"),
    (EPT.replace("[ept]\n", "[ept]\nlevels = 3\n"), "ept.levels: expected 4 or 5, got 3"),
    ("address = [", "malformed TOML"),
]


def written(folder: Path, text: str) -> Path:
    path = folder / "walk.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(("text", "problem"), BAD, ids=[problem[:50] for _, problem in BAD])
def test_a_bad_description_is_named_by_file_and_key(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        WalkDescription.from_toml(written(tmp_path, text))
    assert str(caught.value).startswith(f"{tmp_path}/walk.toml: ")
    assert problem.replace("guest.page[0]: ", "") in str(caught.value).replace("guest.page[0]: ", "")
    assert "\n" not in str(caught.value)


UNBUILDABLE = [
    (GUEST + "[[guest.page]]\nat = 0x1000\nto = 0", "guest.page[1]: 0x1000 is mapped already"),
    (GUEST + '[[guest.page]]\nat = 0\nto = 0\nsize = "2M"', "guest.page[1]: 0x0 is mapped already"),
    (OK + '[[guest.page]]\nat = 0\nto = 0\nsize = "2M"\n[[guest.page]]\nat = 0x1000\nto = 0', "a large page maps 0x1000 already"),
    (GUEST + "[[guest.entry]]\nat = 0x4000_0000\nlevel = 1", "guest.entry[0]: nothing is mapped at 0x40000000"),
    (GUEST + "[[guest.entry]]\nat = 0x1000\nlevel = 5", "guest.entry[0]: there are only 4 levels, not 5"),
    (GUEST + '[[guest.entry]]\nat = 0x1000\nlevel = 1\nset = ["Q"]', "guest.entry[0]: expected bits by name (P RW US"),
    (GUEST + "[[guest.entry]]\nat = 0x1000\nlevel = 1\nclear = [64]", "or number (0 to 63), got 64"),
    (EPT.replace("[ept]\n", "[ept]\ntables = 0x10\n"), "ept.tables: expected a multiple of 4K, got 0x10"),
    (EPT.replace("[ept]\n", "[ept]\ntables = 0x100_0000\n"), "guest.tables: expected room for tables at host-physical 0x1000000"),
    (OK + '[processor]\nmode = "off"\n[[guest.entry]]\nat = 0\nlevel = 1', "guest.entry[0]: there are no such tables"),
    (EPT + '[[ept.page]]\nat = 0\nto = 0x1_0000_0000\nsize = "2M"', "expected the guest's tables below 4 GiB"),
]


@pytest.mark.parametrize(("text", "problem"), UNBUILDABLE)
def test_tables_that_cannot_be_built(tmp_path: Path, text: str, problem: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        build(WalkDescription.from_toml(path), str(path))
    assert problem in str(caught.value) and str(caught.value).startswith(str(path))


def result_of(path: Path):
    described = WalkDescription.from_toml(path)
    walker = build(described, str(path))
    word = ACCESSES[described.access] | 4 * described.implicit | 8 * described.shadow_stack
    return account(walker.m, described.address, word)


EXPECTED = {  # kind, references where the walk succeeds
    "4x4": (0, 24), "5x5": (0, 35), "2m-2m": (0, 15), "1g-1g": (0, 8), "native": (0, 4), "pae": (0, 14), "32-bit-4m": (0, 1),
    "walk-caches": (0, 13), "tlb-hit": (0, 24), "ept-dirty": (0, 24), "sub-page": (0, 24), "shadow-stack": (0, 24),
    "not-present": (1, 4), "write-protect": (1, 3), "smap": (1, 1), "protection-key": (1, 0x27), "reserved-bit": (1, 0xD),
    "non-canonical": (1, 0), "ept-violation": (2, 0x19C), "ept-table-write": (2, 0xAB), "mode-based-execute": (2, 0x1BC),
    "ept-misconfiguration": (3, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", examples.names())
def test_an_example_ends_as_it_says(name: str) -> None:
    told = result_of(examples.find(name))
    kind, detail = EXPECTED[name]
    assert told.kind == kind
    assert {0: told.count, 1: told.error_code, 2: told.qualification & EVERY_PROCESSOR_TELLS, 3: 0}[kind] == detail


def test_every_example_is_described() -> None:
    assert set(EXPECTED) == set(examples.names())
    assert all(text.endswith(".") for _, text in examples.shipped())
    with pytest.raises(InputError, match="expected one of 1g-1g"):
        examples.find("6x6")


def test_the_processor_is_the_described_one(tmp_path: Path) -> None:
    text = EPT.replace("[ept]\n", '[ept]\nlevels = 5\ncontrols = "AD MBE"\n')
    text += '[processor]\nmode = "5-level"\ncpl = 0\ncontrols = "WP SMEP AC"\npkru = 0x5\ncpu = "ideal"\n'
    path = written(tmp_path, text)
    processor = processor_of(build(WalkDescription.from_toml(path), "").m)
    assert (processor.mode, processor.cpl, processor.ac, processor.pkru, processor.ept_levels) == ("5-level", 0, True, 5, 5)
    assert processor.eptp & 1 << 6 and processor.ept_extensions == 1 and not processor.efer >> 11 & 1


def test_guest_tables_stand_in_pages_of_the_ept_where_there_are_any(tmp_path: Path) -> None:
    large = EPT + '[[ept.page]]\nat = 0\nto = 0x80_0000\nsize = "2M"\n'
    assert frames_of_guest_entries(written(tmp_path, large)) == [0x900, 0x901, 0x902, 0x903]
    assert frames_of_guest_entries(written(tmp_path, EPT)) == [0x1000, 0x1001, 0x1002, 0x1003]


def frames_of_guest_entries(path: Path) -> list[int]:
    return [row.hpa >> 12 for row in result_of(path).references if row.kind == GUEST_ENTRY]

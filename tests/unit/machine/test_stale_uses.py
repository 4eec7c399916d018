"""The search for stale translations keeps the engine from keeping: what an instruction does must not depend on that."""

import struct
from pathlib import Path

import pytest

from tests.unit.machine.rom import GDT, PT, UNEXPECTED, code, events, long_mode, map_page, place, status
from tests.unit.machine.test_processor_accesses import (
    LOAD_FS,
    LOAD_FS_FROM_SECRET,
    LOAD_SECRET,
    NEXT,
    PF,
    SECRET,
    STOP,
    SUPERVISOR_RW,
    TO_USER,
    UD,
)

pytestmark = pytest.mark.usefixtures("kernels")

PAGE, OLD, NEW = 0x40000, 0x40000, 0x41000


@pytest.mark.parametrize("tlb", ["exact", "lazy", "eager"])
@pytest.mark.parametrize(
    ("instructions", "wanted"),
    [
        (LOAD_FS + STOP, (UD, 0, 0)),
        (LOAD_FS + LOAD_SECRET + STOP, (PF, 5, SECRET)),
        (LOAD_FS + NEXT + LOAD_SECRET + STOP, (PF, 5, SECRET)),
        (LOAD_FS_FROM_SECRET + STOP, (PF, 5, SECRET)),
    ],
)
def test_supervisor_pages_at_cpl_3(tmp_path: Path, instructions: bytes, wanted: tuple[int, int, int], tlb: str) -> None:
    machine = long_mode(tmp_path, TO_USER + instructions, tlb=tlb, check_translations=True)
    map_page(machine, GDT, GDT, SUPERVISOR_RW)
    map_page(machine, SECRET, SECRET, SUPERVISOR_RW)
    assert status(machine) == UNEXPECTED
    assert [event[:3] for event in events(machine)] == [wanted]
    assert machine.statistics()["stale_translations"]["uses"] == 0


@pytest.mark.parametrize(
    ("invlpg", "tlb", "read", "uses"),
    [
        ("0f013c2500000400", "lazy", 2, 0),  # invlpg [0x40000]
        ("0f013c2500100400", "lazy", 1, 1),  # invlpg [0x41000]
        ("0f013c2500100400", "eager", 2, 0),
    ],
    ids=["right", "wrong page, lazy", "wrong page, eager"],
)
def test_a_page_that_is_mapped_anew(tmp_path: Path, invlpg: str, tlb: str, read: int, uses: int) -> None:
    program = code(
        "8a042500000400",  # mov al, [0x40000]
        "c704250042000007100400",  # mov dword [0x4200], 0x41007
        invlpg,
        "8a042500000400",  # mov al, [0x40000]
        "e6f4",  # out 0xF4, al
    )
    machine = long_mode(tmp_path, program, tlb=tlb, check_translations=True)
    assert PT + (PAGE >> 12) * 8 == 0x4200
    place(machine, OLD, b"\x01")
    place(machine, NEW, b"\x02")
    assert status(machine) == read
    found = machine.statistics()["stale_translations"]
    assert found["uses"] == uses
    if uses:
        (kind,) = found["kinds"]
        assert (kind["gla"], kind["owed"].split(",")[0], kind["now"]) == (PAGE, "INVLPG", f"{NEW:#x}")


def test_a_table_entry_without_its_dirty_flag(tmp_path: Path) -> None:
    """Written, cleaned without INVLPG, written again: the flag stays 0, and that is told."""
    program = code(
        "880c2500000400",  # mov [0x40000], cl
        "80242500420000bf",  # and byte [0x4200], 0xBF
        "eb00",  # jmp to the next instruction
        "880c2500000400",  # mov [0x40000], cl
        "8a042500420000",  # mov al, [0x4200]
        "e6f4",  # out 0xF4, al
    )
    machine = long_mode(tmp_path, program, tlb="lazy", check_translations=True)
    assert status(machine) == 0x27
    assert [kind["changed"] for kind in machine.statistics()["stale_translations"]["kinds"]] == ["guest dirty flag cleared"]
    assert struct.unpack("<Q", machine.read_hpa(0x4200, 8))[0] & 0xFFF == 0x27

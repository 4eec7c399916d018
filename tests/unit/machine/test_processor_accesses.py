"""The processor reads descriptors for itself, at CPL 3 too; what software reads by the same instruction goes by its own rights."""

from pathlib import Path

import pytest

from tests.unit.machine.rom import GDT, UNEXPECTED, code, events, long_mode, map_page, status

pytestmark = pytest.mark.usefixtures("kernels")

SUPERVISOR_RW, SECRET = 3, 0x30000
PF, UD = 14, 6

TO_USER = code(
    "6a2b",  # push 0x2B
    "6800a00000",  # push 0xA000
    "6a02",  # push 2
    "6a33",  # push 0x33
    "488d0503000000",  # lea rax, [rel user]
    "50",  # push rax
    "48cf",  # iretq
    "be00000300",  # user: mov esi, 0x30000
    "b82b000000",  # mov eax, 0x2B
)
LOAD_FS, LOAD_SECRET = code("8ee0"), code("488b1e")  # mov fs, eax; mov rbx, [rsi]
LOAD_FS_FROM_SECRET, STOP = code("8e26"), code("0f0b")  # mov fs, [rsi]; ud2
NEXT = code("eb00")  # jmp to the next instruction: a new block


@pytest.mark.parametrize(
    ("instructions", "wanted"),
    [
        (LOAD_FS + STOP, (UD, 0, 0)),
        (LOAD_SECRET + STOP, (PF, 5, SECRET)),
        (LOAD_FS + LOAD_SECRET + STOP, (PF, 5, SECRET)),
        (LOAD_FS + NEXT + LOAD_SECRET + STOP, (PF, 5, SECRET)),
        (LOAD_FS_FROM_SECRET + STOP, (PF, 5, SECRET)),
    ],
    ids=["descriptor", "secret", "secret behind a descriptor", "in a new block", "selector in a supervisor page"],
)
def test_supervisor_pages_at_cpl_3(tmp_path: Path, instructions: bytes, wanted: tuple[int, int, int]) -> None:
    machine = long_mode(tmp_path, TO_USER + instructions)
    map_page(machine, GDT, GDT, SUPERVISOR_RW)
    map_page(machine, SECRET, SECRET, SUPERVISOR_RW)
    assert status(machine) == UNEXPECTED
    assert [event[:3] for event in events(machine)] == [wanted]

"""SMAP and the processor's own reads: descriptors in a user page are refused whatever CPL and AC; software's reads are not."""

import struct
from pathlib import Path

import pytest

from tests.unit.machine.rom import GDT, IDT, LOG, TSS, UNEXPECTED, code, events, long_mode, map_page, place, status
from vmxemu.machine import Machine

pytestmark = pytest.mark.usefixtures("kernels")

PF, UD, PRESENT = 14, 6, 1
USER, SUPERVISOR = 7, 3
STACK_PAGE, LDT, DATA, POINTER = 0x9000, 0x30000, 0x31000, 0x32000
LDT_SELECTOR, AC = 56, 1 << 18
SUPERVISOR_PAGES = (GDT, IDT, TSS, STACK_PAGE, LOG)
SELECTOR = 0xF  # of LDT entry 1, RPL 3
USER_DATA = 0x2B  # in the GDT
FAULT = (PF, PRESENT, LDT + 8)

LOAD_LDT = code("0f011425") + struct.pack("<I", POINTER) + code("b838000000", "0f00d0")  # lgdt [POINTER]; mov eax, 56; lldt ax
SET_AC = code("9c", "810c2400000400", "9d")  # pushfq; or dword [rsp], 1 << 18; popfq
SMAP_ON = code("0f20e0", "480fbae815", "0f22e0")  # mov rax, cr4; bts rax, 21; mov cr4, rax
PREPARE = b"\xb9" + struct.pack("<I", SELECTOR) + b"\xbe" + struct.pack("<I", DATA)  # mov ecx, SELECTOR; mov esi, DATA
STOP = code("0f0b")  # ud2
READERS = {
    "lar": "0f02c1",  # lar eax, ecx
    "lsl": "0f03c1",  # lsl eax, ecx
    "verr": "0f00e1",  # verr cx
    "verw": "0f00e9",  # verw cx
    "mov": "8ee1",  # mov fs, ecx
    "pop": "51" + "0fa1",  # push rcx; pop fs
    "lfs": "0fb426",  # lfs esp, [rsi]
}
each_reader = pytest.mark.parametrize("name", READERS)


def to_user(flags: int) -> bytes:
    frame = b"".join(b"\x68" + struct.pack("<I", value) for value in (USER_DATA, 0xA800, flags, 0x33))  # push ...
    return frame + code("488d0503000000", "50", "48cf")  # lea rax, [rel user]; push rax; iretq; user:


def machine_for(folder: Path, program: bytes, ldt_flags: int) -> Machine:
    """The program runs with an LDT whose entry 1 is a user data segment, in a page of its own."""
    machine = long_mode(folder, LOAD_LDT + program)
    place(machine, POINTER, struct.pack("<HQ", LDT_SELECTOR + 15, GDT))
    place(machine, GDT + LDT_SELECTOR, struct.pack("<QQ", 0x0000_8200_0000_00FF | LDT << 16, 0))
    place(machine, LDT + 8, struct.pack("<Q", 0x00CF_F300_0000_FFFF))
    place(machine, DATA, struct.pack("<IH", 0x9F00, SELECTOR))
    map_page(machine, LDT, LDT, ldt_flags)
    for page in SUPERVISOR_PAGES:
        map_page(machine, page, page, SUPERVISOR)
    return machine


def first_event(machine: Machine) -> tuple[int, ...]:
    assert status(machine) == UNEXPECTED
    return events(machine)[0][:3]


@each_reader
def test_cpl_0_with_ac(tmp_path: Path, name: str) -> None:
    program = SET_AC + SMAP_ON + PREPARE + code(READERS[name]) + STOP
    assert first_event(machine_for(tmp_path, program, USER)) == FAULT


@pytest.mark.parametrize("flags", [2, 2 | AC], ids=["AC = 0", "AC = 1"])
@each_reader
def test_cpl_3(tmp_path: Path, name: str, flags: int) -> None:
    program = SMAP_ON + to_user(flags) + PREPARE + code(READERS[name]) + STOP
    assert first_event(machine_for(tmp_path, program, USER)) == FAULT


@each_reader
def test_supervisor_pages_are_as_before(tmp_path: Path, name: str) -> None:
    """Descriptors in a supervisor page, operand and stack in user pages."""
    program = SMAP_ON + to_user(2) + PREPARE + code(READERS[name]) + STOP
    assert first_event(machine_for(tmp_path, program, SUPERVISOR))[0] == UD


@each_reader
def test_without_smap(tmp_path: Path, name: str) -> None:
    program = to_user(2) + PREPARE + code(READERS[name]) + STOP
    assert first_event(machine_for(tmp_path, program, USER))[0] == UD


def test_what_software_reads_itself(tmp_path: Path) -> None:
    """The same page, at CPL 0 with RFLAGS.AC = 1, in one block with an instruction that would read descriptors."""
    read = code("488b0425") + struct.pack("<I", LDT + 8)  # mov rax, [LDT + 8]
    program = SET_AC + SMAP_ON + PREPARE + read + code("31c9", "0f02c1")  # xor ecx, ecx; lar eax, ecx (null selector: ZF = 0)
    assert first_event(machine_for(tmp_path, program + STOP, USER))[0] == UD

"""An instruction that reads and writes its memory operand accesses it as a write from the start: faults and flags show it."""

import struct
from pathlib import Path

import pytest

from tests.unit.machine.rom import PT, UNEXPECTED, code, events, long_mode, map_page, status, word
from vmxemu.machine import Machine

pytestmark = pytest.mark.usefixtures("kernels")

PF, PRESENT, WRITE = 14, 1, 2
FIRST_PAGE = 0x80000  # a page for each instruction
READ_ONLY, READ_WRITE, ABSENT = 5, 7, 0
ACCESSED, DIRTY = 0x20, 0x40
OFFSET = 0x10
WRITE_PROTECT = code("0f20c0", "0d00000100", "0f22c0")  # mov rax, cr0; or eax, 0x10000; mov cr0, rax
STOP = code("0f0b")  # ud2
PREPARE = code("31c0", "31d2", "b901000000", "31db")  # xor eax, eax; xor edx, edx; mov ecx, 1; xor ebx, ebx

READ_MODIFY_WRITE = {
    "add [rsi], eax": "0106",
    "lock add [rsi], eax": "f00106",
    "add [rsi], al": "0006",
    "or [rsi], rax": "480906",
    "adc word [rsi], 1": "66831601",
    "sbb dword [rsi], 1": "811e01000000",
    "and byte [rsi], 1": "802601",
    "sub [rsi+disp32], r8": "4c298600000000",
    "xor [esi], eax": "673106",
    "xor fs:[rsi], eax": "643106",
    "inc dword [rsi]": "ff06",
    "dec byte [rsi]": "fe0e",
    "not dword [rsi]": "f716",
    "lock neg qword [rsi]": "f048f71e",
    "rol dword [rsi], 1": "d106",
    "rcr byte [rsi], cl": "d21e",
    "shl dword [rsi], 3": "c12603",
    "sar qword [rsi], 3": "48c13e03",
    "xchg [rsi], eax": "8706",
    "xadd [rsi], eax": "0fc106",
    "cmpxchg [rsi], ecx": "0fb10e",
    "lock cmpxchg8b [rsi]": "f00fc70e",
    "cmpxchg16b [rsi]": "480fc70e",
    "bts dword [rsi], 3": "0fba2e03",
    "lock btr [rsi], eax": "f00fb306",
    "btc [rsi], eax": "0fbb06",
    "shld [rsi], eax, 3": "0fa40603",
    "shrd [rsi], eax, cl": "0fad06",
}
READ = {
    "add eax, [rsi]": "0306",
    "cmp [rsi], eax": "3906",
    "cmp dword [rsi], 1": "833e01",
    "test [rsi], eax": "8506",
    "test dword [rsi], 1": "f70601000000",
    "mul dword [rsi]": "f726",
    "bt [rsi], eax": "0fa306",
    "bt dword [rsi], 3": "0fba2603",
    "movsxd rax, [rsi]": "486306",
    "imul eax, [rsi]": "0faf06",
    "movups xmm0, [rsi]": "0f1006",
    "lodsd": "ad",
    "push qword [rsi]": "ff36",
}


def page_of(number: int) -> int:
    return FIRST_PAGE + number * 0x1000


def attempt(folder: Path, instructions: dict[str, str], flags: int) -> tuple[list[tuple[int, ...]], list[int]]:
    """Run all instructions, each on a page of its own, and go on behind those that fault: the faults, the pages' flags."""
    program = WRITE_PROTECT
    for number, text in enumerate(instructions.values()):
        instruction = code(text)
        program += PREPARE + b"\xbe" + struct.pack("<I", page_of(number) + OFFSET)  # mov esi, ...
        program += code("4c8d3d") + struct.pack("<i", len(instruction)) + instruction  # lea r15, [rel next]; ...; next:
    machine = long_mode(folder, program + code("4531ff") + STOP)  # xor r15d, r15d
    for number in range(len(instructions)):
        map_page(machine, page_of(number), page_of(number) if flags else 0, flags)
    assert status(machine) == UNEXPECTED
    return [event[:3] for event in events(machine)[:-1]], [flags_of(machine, page_of(i)) for i in range(len(instructions))]


def flags_of(machine: Machine, page: int) -> int:
    return word(machine, PT + (page >> 12) * 8) & (ACCESSED | DIRTY)


@pytest.mark.parametrize(("flags", "present"), [(ABSENT, 0), (READ_ONLY, PRESENT)], ids=["absent", "read-only"])
def test_the_fault_is_a_writes_and_no_flag_is_set(tmp_path: Path, flags: int, present: int) -> None:
    faults, set_flags = attempt(tmp_path, READ_MODIFY_WRITE, flags)
    assert faults == [(PF, WRITE | present, page_of(i) + OFFSET) for i in range(len(READ_MODIFY_WRITE))]
    assert set_flags == [0] * len(READ_MODIFY_WRITE)


def test_a_clean_page_becomes_dirty(tmp_path: Path) -> None:
    assert attempt(tmp_path, READ_MODIFY_WRITE, READ_WRITE) == ([], [ACCESSED | DIRTY] * len(READ_MODIFY_WRITE))


def test_reads_beside_them_are_reads(tmp_path: Path) -> None:
    """In blocks that have both: what only reads may do so, and leaves pages clean."""
    mixed = {**READ, "add [rsi], eax": "0106"}
    faults, flags = attempt(tmp_path, mixed, READ_ONLY)
    assert faults == [(PF, PRESENT | WRITE, page_of(len(READ)) + OFFSET)]
    assert flags == [ACCESSED] * len(READ) + [0]
    faults, flags = attempt(tmp_path, mixed, READ_WRITE)
    assert (faults, flags) == ([], [ACCESSED] * len(READ) + [ACCESSED | DIRTY])
    faults, flags = attempt(tmp_path, mixed, ABSENT)
    assert [event[1] for event in faults] == [0] * len(READ) + [WRITE]


def test_one_that_crosses_into_a_read_only_page(tmp_path: Path) -> None:
    second = FIRST_PAGE + 0x1000
    program = WRITE_PROTECT + b"\xbe" + struct.pack("<I", second - 4) + code("480106")  # mov esi, ...; add [rsi], rax
    machine = long_mode(tmp_path, program)
    map_page(machine, FIRST_PAGE, FIRST_PAGE, READ_WRITE)
    map_page(machine, second, second, READ_ONLY)
    assert status(machine) == UNEXPECTED
    assert [event[:3] for event in events(machine)] == [(PF, PRESENT | WRITE, second)]
    assert flags_of(machine, second) == 0 and word(machine, second - 8) == 0


def test_code_that_takes_the_place_of_other_code(tmp_path: Path) -> None:
    """Two frames are executed at the same linear address; one of them only reads. The pages accessed are new each time."""
    at, load, add = 0x90000, 0x91000, 0x92000
    swap = "48c7042580440000"  # mov qword [PT + 8 * 0x90], ...
    run = "0f013c25"  # invlpg [at]
    program = b""
    for number, frame in enumerate((add, load, add, load)):
        program += code(swap) + struct.pack("<I", frame | READ_WRITE) + code(run) + struct.pack("<I", at)
        program += b"\xbe" + struct.pack("<I", page_of(number)) + b"\xb8" + struct.pack("<I", at) + code("ffd0")  # call rax
    machine = long_mode(tmp_path, WRITE_PROTECT + program + STOP)
    for frame, instruction in ((load, "8b06c3"), (add, "0106c3")):  # mov eax, [rsi]; add [rsi], eax; ret
        machine.memory_map.ram[frame : frame + 3] = list(code(instruction))
    for number in range(4):
        map_page(machine, page_of(number), page_of(number), READ_WRITE if number < 2 else READ_ONLY)
    assert status(machine) == UNEXPECTED
    assert [event[:3] for event in events(machine)] == [(PF, PRESENT | WRITE, page_of(2))]
    assert [flags_of(machine, page_of(i)) for i in range(3)] == [ACCESSED | DIRTY, ACCESSED, 0]

"""IN, OUT, INS and OUTS: Unicorn does not intercept them, so the engine finds them when code is first translated."""

import struct
from pathlib import Path

import pytest

from tests.unit.machine.rom import IDT, TSS, UNEXPECTED, code, events, long_mode, map_page, place, power_on, real_mode, rom, status

pytestmark = pytest.mark.usefixtures("kernels")

FUNCTION, DATA, ABSENT = 0x20000, 0x30000, 0x31000
GP, PF, UD = 13, 14, 6


def test_first_instruction_of_all(tmp_path: Path) -> None:
    machine = power_on(tmp_path, rom({}, code("e6f4")))  # out 0xF4, al
    assert status(machine) == 0


def test_real_mode(tmp_path: Path) -> None:
    program = code(
        "b05a",  # mov al, 0x5A
        "e6b3",  # out 0xB3, al
        "b000",  # mov al, 0
        "e4b3",  # in al, 0xB3
        "e6f4",  # out 0xF4, al
    )
    assert status(real_mode(tmp_path, program)) == 0x5A


def test_address_that_holds_io_then_other_code_then_io(tmp_path: Path) -> None:
    program = code(
        "bb00000200",  # mov ebx, 0x20000
        "b021",  # mov al, 0x21
        "e6b3",  # out 0xB3, al
        "31c0",  # xor eax, eax
        "ffd3",  # call rbx
        "0fb6c8",  # movzx ecx, al
        "66c703b007",  # mov word [rbx], 0x07B0
        "ffd3",  # call rbx
        "00c1",  # add cl, al
        "66c703e4b3",  # mov word [rbx], 0xB3E4
        "ffd3",  # call rbx
        "00c8",  # add al, cl
        "e6f4",  # out 0xF4, al
    )
    machine = long_mode(tmp_path, program)
    place(machine, FUNCTION, code("e4b3", "c3"))  # in al, 0xB3; ret
    assert status(machine) == 0x21 + 7 + 0x21


def test_io_within_another_instruction_at_a_known_site(tmp_path: Path) -> None:
    """The byte after a site's address changes meaning: E4h becomes the operand of the instruction before it."""
    program = code(
        "bb01000200",  # mov ebx, 0x20001
        "ffd3",  # call rbx
        "ffcb",  # dec ebx
        "ffd3",  # call rbx
        "e6f4",  # out 0xF4, al
    )
    machine = long_mode(tmp_path, program)
    place(
        machine, FUNCTION, code("b0", "e4b3", "c3", "909090", "c3")
    )  # from 1: in al, 0xB3; ret. From 0: mov al, 0xE4; mov bl, 0xC3; ret
    assert status(machine) == 0xE4


def test_same_linear_address_in_two_address_spaces(tmp_path: Path) -> None:
    """I/O in one mapping, none in the other: the site's hook must look at what is there now."""
    program = code(
        "bb00000300",  # mov ebx, 0x30000
        "b003",  # mov al, 3
        "e6b3",  # out 0xB3, al
        "ffd3",  # call rbx
        "0fb6c8",  # movzx ecx, al
        "c704258041000007000400",  # mov dword [0x4180], 0x40007
        "0f013b",  # invlpg [rbx]
        "ffd3",  # call rbx
        "00c8",  # add al, cl
        "e6f4",  # out 0xF4, al
    )
    machine = long_mode(tmp_path, program)
    place(machine, 0x30000, code("e4b3", "c3"))  # in al, 0xB3; ret
    place(machine, 0x40000, code("b004", "c3"))  # mov al, 4; ret
    assert status(machine) == 7


def test_rep_outsb_meets_an_absent_page(tmp_path: Path) -> None:
    program = code(
        "befc0f0300",  # mov esi, 0x30FFC
        "b90a000000",  # mov ecx, 10
        "bae9000000",  # mov edx, 0xE9
        "4c8d3d02000000",  # lea r15, [rel on]
        "f36e",  # rep outsb
        "88c8",  # on: mov al, cl
        "e6f4",  # out 0xF4, al
    )
    machine = long_mode(tmp_path, program)
    printed: list[bytes] = []
    machine.on_output(lambda channel, data: printed.append(data) if channel == "debug" else None)
    place(machine, ABSENT - 4, b"abcd")
    map_page(machine, ABSENT, 0, 0)
    assert status(machine) == 6
    assert b"".join(printed) == b"abcd"
    assert int(machine.registers.gpr[6]) == ABSENT
    assert [event[:3] for event in events(machine)] == [(PF, 0, ABSENT)]


def test_rep_insw_meets_an_absent_page(tmp_path: Path) -> None:
    """The element that crosses into the absent page is not stored, and the port is not read for it."""
    program = code(
        "bffb0f0300",  # mov edi, 0x30FFB
        "b90a000000",  # mov ecx, 10
        "ba78020000",  # mov edx, 0x278
        "4c8d3d03000000",  # lea r15, [rel on]
        "f3666d",  # rep insw
        "88c8",  # on: mov al, cl
        "e6f4",  # out 0xF4, al
    )
    machine = long_mode(tmp_path, program)
    map_page(machine, ABSENT, 0, 0)
    assert status(machine) == 8
    assert machine.read_hpa(0x30FFA, 6) == b"\0\xff\xff\xff\xff\0"
    assert int(machine.registers.gpr[7]) == 0x30FFF
    assert [event[:3] for event in events(machine)] == [(PF, 2, ABSENT)]


def test_string_io_goes_on_after_the_page_has_come(tmp_path: Path) -> None:
    program = code(
        "befc0f0300",  # mov esi, 0x30FFC
        "b908000000",  # mov ecx, 8
        "bae9000000",  # mov edx, 0xE9
        "4c8d3d06000000",  # lea r15, [rel on]
        "f36e",  # again: rep outsb
        "88c8",  # mov al, cl
        "e6f4",  # out 0xF4, al
        "c704258841000007100300",  # on: mov dword [0x4188], 0x31007
        "ebed",  # jmp again
    )
    machine = long_mode(tmp_path, program)
    printed: list[bytes] = []
    machine.on_output(lambda channel, data: printed.append(data) if channel == "debug" else None)
    place(machine, ABSENT - 4, b"abcdefgh")
    map_page(machine, ABSENT, 0, 0)
    assert status(machine) == 0
    assert b"".join(printed) == b"abcdefgh"


TO_USER = code(
    "4c8d3d28000000",  # lea r15, [rel refused]
    "6a2b",  # push 0x2B
    "6800a00000",  # push 0xA000
    "6a02",  # push 2
    "6a33",  # push 0x33
    "488d0503000000",  # lea rax, [rel user]
    "50",  # push rax
    "48cf",  # iretq
    "bb01000000",  # user: mov ebx, 1
    "e6b3",  # out 0xB3, al
    "bb02000000",  # mov ebx, 2
    "e6e9",  # out 0xE9, al
    "bb03000000",  # mov ebx, 3
    "4531ff",  # refused: xor r15d, r15d
    "0f0b",  # ud2
)


@pytest.mark.parametrize(
    ("bitmap", "refused_at"), [(None, 1), ({}, 0), ({0xB3}, 1), ({0xE9}, 2)], ids=["no bitmap", "all allowed", "B3", "E9"]
)
def test_user_mode_goes_by_the_bitmap(tmp_path: Path, bitmap: set[int] | None, refused_at: int) -> None:
    machine = long_mode(tmp_path, TO_USER)
    if bitmap is not None:
        bits = bytearray(0x22)
        bits[0x20] = bits[0x21] = 0xFF  # the bitmap ends with a byte of ones
        for port in bitmap:
            bits[port >> 3] |= 1 << (port & 7)
        place(machine, TSS + 102, struct.pack("<H", 104) + bytes(bits))
    assert status(machine) == UNEXPECTED
    assert int(machine.registers.gpr[3]) == (refused_at or 3)
    assert [event[:2] for event in events(machine)] == ([(GP, 0), (UD, 0)] if refused_at else [(UD, 0)])


IN_ANSWERS = code("e4b3", "e6f4")  # in al, 0xB3; out 0xF4, al


@pytest.mark.parametrize("way", ["0f0b", "8b042500100300", "f4", "cd40"], ids=["ud2", "page fault", "hlt and nmi", "int"])
def test_handler_that_begins_with_io(tmp_path: Path, way: str) -> None:
    """The first block after an exception is translated like any other: its I/O instruction must not slip through."""
    start = code("b077", "e6b3")  # mov al, 0x77; out 0xB3, al
    machine = long_mode(tmp_path, start + code(way), inject=["nmi@cycle=200k"])
    map_page(machine, ABSENT, 0, 0)
    place(machine, FUNCTION, IN_ANSWERS)
    for vector in (2, 6, 14, 0x40):
        place(machine, IDT + 16 * vector, struct.pack("<HHHHQ", FUNCTION & 0xFFFF, 8, 0xEE00, FUNCTION >> 16, 0))
    assert status(machine) == 0x77


def test_io_written_into_the_running_block(tmp_path: Path) -> None:
    program = code(
        "b042",  # mov al, 0x42
        "e6b3",  # out 0xB3, al
        "b902000000",  # mov ecx, 2
        "83f902",  # again: cmp ecx, 2
        "7502",  # jne now
        "eb0b",  # jmp next
        "66c70500000000e4b3",  # now: mov word [rel target], 0xB3E4
        "b001",  # target: mov al, 1
        "e2ec",  # next: loop again
        "e6f4",  # out 0xF4, al
    )
    assert status(long_mode(tmp_path, program)) == 0x42


def test_io_in_a_block_of_the_same_place_and_size(tmp_path: Path) -> None:
    """Entered by an exception both times: first without I/O, then with."""
    program = code(
        "bb00100200",  # mov ebx, 0x21000
        "b042",  # mov al, 0x42
        "e6b3",  # out 0xB3, al
        "4c8d3d02000000",  # lea r15, [rel next]
        "0f0b",  # ud2
        "66c7042500000200e4b3",  # next: mov word [0x20000], 0xB3E4
        "41bf00000200",  # mov r15d, 0x20000
        "0f0b",  # ud2
    )
    machine = long_mode(tmp_path, program)
    place(machine, FUNCTION, code("b001", "ffe3"))  # mov al, 1; jmp rbx
    place(machine, IDT + 16 * 6, struct.pack("<HHHHQ", FUNCTION & 0xFFFF, 8, 0xEE00, FUNCTION >> 16, 0))
    place(machine, 0x21000, code("3c01", "7502", "eb02", "e6f4", "4c893c24", "48cf"))
    # cmp al, 1; jne out; jmp on; out: out 0xF4, al; on: mov [rsp], r15; iretq
    assert status(machine) == 0x42

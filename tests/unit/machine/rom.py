"""Tiny machines: a 4-KiB ROM with code at its start (4 GiB - 4 KiB) and a reset vector that jumps there.

`real_mode` runs 16-bit code from the ROM. `long_mode` runs 64-bit code in RAM, with page tables, GDT, IDT, TSS and fault handlers
that this file puts into RAM before power-on is over:

    0x1000 PML4, 0x2000 PDPT, 0x3000 PD of the first GiB, 0x4000 PT of the first 2 MiB, 0x5000 PD of the fourth GiB (all user, RWX)
    0x6000 GDT (8 code, 16 data, 24 TSS, 43 user data, 51 user code), 0x7000 IDT, 0x8000 TSS, 0x9FF0 RSP, 0xB000 log of events
    0xC000 handlers, 0x10000 code

Every vector's handler notes (vector, error code, CR2, RIP) in the log. Then, by R15: 0 ends the run with status EEh, 1 returns to
where the event came from, anything else is the address to go on at.
"""

import struct
from pathlib import Path
from typing import Any

from vmxemu.configuration import Configuration
from vmxemu.machine import Machine

ROM_BASE = 0xFFFF_F000
PML4, PDPT, PD, PT, PD3, GDT, IDT, TSS, LOG, HANDLERS, CODE = (
    0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000, 0x7000, 0x8000, 0xB000, 0xC000, 0x10000,
)  # fmt: skip
STACK, STACK_CPL0 = 0x9FF0, 0x9800
UNEXPECTED = 0xEE
USER_RWX, LARGE = 7, 0x87
PUSH_ERROR_CODE = frozenset((8, 10, 11, 12, 13, 14, 17, 21))


def code(*pieces: str) -> bytes:
    """Machine code from one hexadecimal string per instruction."""
    return bytes.fromhex("".join(pieces))


TO_LONG_MODE = code(
    "2e660f0116e0ff",  # o32 lgdt [cs:0xFFE0]
    "66b820060000",  # mov eax, 0x620
    "0f22e0",  # mov cr4, eax
    "66b800100000",  # mov eax, 0x1000
    "0f22d8",  # mov cr3, eax
    "66b9800000c0",  # mov ecx, 0xC0000080
    "0f32",  # rdmsr
    "660d01090000",  # or eax, 0x901
    "0f30",  # wrmsr
    "66b831000080",  # mov eax, 0x80000031
    "0f22c0",  # mov cr0, eax
    "66ea40f8ffff0800",  # jmp dword 8:0xFFFFF840
    "90",  # nop
    "90",  # nop
    "90",  # nop
    "90",  # nop
    "90",  # nop
    "90",  # nop
    "b8e6ffffff",  # mov eax, 0xFFFFFFE6
    "0f0118",  # lidt [rax]
    "b810000000",  # mov eax, 16
    "8ed8",  # mov ds, eax
    "8ec0",  # mov es, eax
    "8ed0",  # mov ss, eax
    "bcf09f0000",  # mov esp, 0x9FF0
    "b818000000",  # mov eax, 24
    "0f00d8",  # ltr ax
    "4531ff",  # xor r15d, r15d
    "b800000100",  # mov eax, 0x10000
    "ffe0",  # jmp rax
)

COMMON_HANDLER = code(
    "50",  # push rax
    "53",  # push rbx
    "8b1c2500b00000",  # mov ebx, [0xB000]
    "ff042500b00000",  # inc dword [0xB000]
    "83e33f",  # and ebx, 63
    "c1e305",  # shl ebx, 5
    "488b442410",  # mov rax, [rsp+16]
    "48898320b00000",  # mov [rbx+0xB020], rax
    "488b442418",  # mov rax, [rsp+24]
    "48898328b00000",  # mov [rbx+0xB028], rax
    "0f20d0",  # mov rax, cr2
    "48898330b00000",  # mov [rbx+0xB030], rax
    "488b442420",  # mov rax, [rsp+32]
    "48898338b00000",  # mov [rbx+0xB038], rax
    "5b",  # pop rbx
    "58",  # pop rax
    "4883c410",  # add rsp, 16
    "4983ff01",  # cmp r15, 1
    "7409",  # je back
    "4d85ff",  # test r15, r15
    "7406",  # je quit
    "4c893c24",  # mov [rsp], r15
    "48cf",  # back: iretq
    "b0ee",  # quit: mov al, 0xEE
    "e6f4",  # out 0xF4, al
)


def rom(pieces: dict[int, bytes], reset: bytes) -> bytes:
    """4 KiB: `pieces` by offset, and what stands at the reset vector."""
    image = bytearray(b"\xcc" * 4096)
    for offset, piece in pieces.items():
        image[offset : offset + len(piece)] = piece
    image[0xFF0 : 0xFF0 + len(reset)] = reset
    return bytes(image)


def power_on(folder: Path, image: bytes, **options: Any) -> Machine:
    """A machine with this ROM."""
    path = folder / "rom.bin"
    path.write_bytes(image)
    return Machine(Configuration.from_image(path, **{"memory_size": "64M", "max_cycles": 5_000_000, **options}))


def real_mode(folder: Path, program: bytes, **options: Any) -> Machine:
    """16-bit code at F000:F000, the ROM's start."""
    return power_on(folder, rom({0: program}, code("e90df0")), **options)


def long_mode(folder: Path, program: bytes, at: int = CODE, in_rom: bytes = b"", **options: Any) -> Machine:
    """64-bit code, supervisor mode; `program` stands in RAM at `at`, where it is started. `in_rom` stands at the ROM's start."""
    pointers = struct.pack("<HIHQ", 0x3F, GDT, 0xFFF, IDT)
    stub = bytearray(TO_LONG_MODE)
    image = bytearray(rom({0: in_rom, 0x800: bytes(stub)}, code("e90df8")))
    image[0xFE0 : 0xFE0 + len(pointers)] = pointers
    machine = power_on(folder, bytes(image), **options)
    _tables(machine)
    _events(machine)
    place(machine, at, program)
    if at != CODE:
        place(machine, CODE, b"\xb8" + struct.pack("<I", at) + b"\xff\xe0")  # mov eax, at; jmp rax
    return machine


def place(machine: Machine, hpa: int, data: bytes) -> None:
    """Put bytes into RAM before the machine runs."""
    machine.memory_map.ram[hpa : hpa + len(data)] = list(data)


def map_page(machine: Machine, page: int, hpa: int, flags: int = USER_RWX) -> None:
    """Change the mapping of a page of the first 2 MiB; `flags` 0 unmaps it. Before the machine runs."""
    place(machine, PT + (page >> 12) * 8, struct.pack("<Q", hpa | flags if flags else 0))


def _tables(machine: Machine) -> None:
    place(machine, PML4, struct.pack("<Q", PDPT | USER_RWX))
    place(machine, PDPT, struct.pack("<QQQQ", PD | USER_RWX, 0, 0, PD3 | USER_RWX))
    place(machine, PD, struct.pack("<512Q", PT | USER_RWX, *(index << 21 | LARGE for index in range(1, 512))))
    place(machine, PT, struct.pack("<512Q", *(index << 12 | USER_RWX for index in range(512))))
    place(machine, PD3, struct.pack("<512Q", *(0xC000_0000 + (index << 21) | LARGE for index in range(512))))
    tss = (0x0000_8900_0000_00FF | TSS << 16, 0)
    place(
        machine,
        GDT,
        struct.pack("<8Q", 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, *tss, 0x00CF_F300_0000_FFFF, 0x00AF_FB00_0000_FFFF, 0),
    )
    place(machine, TSS, b"\0\0\0\0" + struct.pack("<Q", STACK_CPL0))
    place(machine, TSS + 102, struct.pack("<H", 0x100))  # no I/O permission bitmap


def _events(machine: Machine) -> None:
    for vector in range(256):
        at = HANDLERS + 16 * vector
        place(machine, IDT + 16 * vector, struct.pack("<HHHHQ", at, 8, 0xEE00, 0, 0))
        push = b"" if vector in PUSH_ERROR_CODE else b"\x6a\x00"
        stub = push + b"\x68" + struct.pack("<I", vector) + b"\xe9"
        place(machine, at, stub + struct.pack("<i", HANDLERS + 0x1000 - (at + len(stub) + 4)))
    place(machine, HANDLERS + 0x1000, COMMON_HANDLER)


def events(machine: Machine) -> list[tuple[int, int, int, int]]:
    """What the handlers have noted: (vector, error code, CR2, RIP)."""
    count = struct.unpack("<I", machine.read_hpa(LOG, 4))[0]
    return [struct.unpack("<4Q", machine.read_hpa(LOG + 0x20 + 32 * number, 32)) for number in range(min(count, 64))]


def word(machine: Machine, hpa: int) -> int:
    """Eight bytes of RAM."""
    return int.from_bytes(machine.read_hpa(hpa, 8), "little")


def status(machine: Machine) -> int:
    """Run to the end; the exit status that the guest wrote. Anything else than an exit is an error."""
    result = machine.run()
    assert result.reason == "EXIT_PORT", (result.reason, result.message, result.details, events(machine))
    return int(machine.state.report.status)

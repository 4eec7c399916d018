"""Interrupts, NMIs, SMIs and single steps on the real machine: where they are taken, and what they find."""

import struct
from pathlib import Path

import pytest

from tests.unit.machine.rom import IDT, UNEXPECTED, code, events, long_mode, place, status, word
from vmxemu.machine import Machine

pytestmark = pytest.mark.usefixtures("kernels")

DB, NMI, UD = 1, 2, 6
TIMER = 0x41

# The local APIC's timer, one-shot, vector 41h; EBX is its initial count. It starts at once.
TIMER_ON = code(
    "be0000e0fe",  # mov esi, 0xFEE00000
    "c786f0000000ff010000",  # mov dword [rsi+0xF0], 0x1FF
    "c786e00300000b000000",  # mov dword [rsi+0x3E0], 0xB
    "c7862003000041000000",  # mov dword [rsi+0x320], 0x41
    "899e80030000",  # mov dword [rsi+0x380], ebx
)
# mov dword [0xFEE000B0], 0 by way of a register; then as every handler
END_OF_INTERRUPT = code(
    "50",  # push rax
    "b8b000e0fe",  # mov eax, 0xFEE000B0
    "c70000000000",  # mov dword [rax], 0
    "58",  # pop rax
    "6a00",  # push 0
    "6a41",  # push 0x41
    "6800d00000",  # push 0xD000
    "c3",  # ret
)
SOON = code("bb01000000") + TIMER_ON  # mov ebx, 1


def vectors(machine: Machine) -> list[int]:
    return [event[0] for event in events(machine)]


def test_sti_shadow(tmp_path: Path) -> None:
    """The interrupt waits while IF is clear, and for one more instruction after STI."""
    rest = code(
        "41bf01000000",  # mov r15d, 1
        "b9d0070000",  # mov ecx, 2000
        "e2fe",  # spin: loop spin
        "fb",  # sti
        "ffc1",  # inc ecx
        "ffc1",  # inc ecx
        "fa",  # cli
        "88c8",  # mov al, cl
        "e6f4",  # out 0xF4, al
    )
    machine = long_mode(tmp_path, SOON + rest)
    assert status(machine) == 2
    assert vectors(machine) == [TIMER]
    at = events(machine)[0][3]
    assert machine.read_hpa(at - 2, 2) == code("ffc1")  # the first INC has run


def test_sti_then_cli_lets_nothing_in(tmp_path: Path) -> None:
    rest = code(
        "41bf01000000",  # mov r15d, 1
        "b9d0070000",  # mov ecx, 2000
        "e2fe",  # spin: loop spin
        "fb",  # sti
        "fa",  # cli
        "90",  # nop
        "e6f4",  # out 0xF4, al
    )
    machine = long_mode(tmp_path, SOON + rest)
    status(machine)
    assert vectors(machine) == []


def test_mov_ss_shadow(tmp_path: Path) -> None:
    """A periodic timer never interrupts between MOV SS and the instruction behind it."""
    rest = code(
        "c7862003000041000200",  # mov dword [rsi+0x320], 0x20041
        "c7868003000019000000",  # mov dword [rsi+0x380], 25
        "41bf01000000",  # mov r15d, 1
        "b810000000",  # mov eax, 16
        "b930750000",  # mov ecx, 30000
        "fb",  # sti
        "8ed0",  # again: mov ss, eax
        "90",  # nop
        "8ed0",  # mov ss, eax
        "90",  # nop
        "e2f8",  # loop again
        "fa",  # cli
        "e6f4",  # out 0xF4, al
    )
    machine = long_mode(tmp_path, SOON + rest)
    place(machine, IDT + 16 * TIMER, struct.pack("<HHHHQ", 0, 8, 0xEE00, 2, 0))
    place(machine, 0x20000, END_OF_INTERRUPT)
    status(machine)
    found = vectors(machine)
    assert len(found) > 5 and set(found) == {TIMER}
    assert all(machine.read_hpa(event[3], 1) != b"\x90" for event in events(machine))


def test_hlt_is_left_by_an_interrupt(tmp_path: Path) -> None:
    rest = code(
        "41bf01000000",  # mov r15d, 1
        "fb",  # sti
        "f4",  # hlt
        "fa",  # after: cli
        "e6f4",  # out 0xF4, al
    )
    machine = long_mode(tmp_path, code("bb00100000") + TIMER_ON + rest)  # mov ebx, 0x1000
    status(machine)
    assert vectors(machine) == [TIMER]
    assert machine.read_hpa(events(machine)[0][3] - 1, 1) == b"\xf4"


def test_hlt_with_if_clear_is_left_by_nmi_only(tmp_path: Path) -> None:
    machine = long_mode(
        tmp_path, SOON + code("41bf01000000", "fa", "f4", "e6f4"), inject=["nmi@cycle=400k"]
    )  # mov r15d, 1; cli; hlt; out
    status(machine)
    assert vectors(machine) == [NMI]
    assert machine.cycles >= 400_000


def test_hlt_for_ever(tmp_path: Path) -> None:
    assert long_mode(tmp_path, code("fa", "f4")).run().reason in ("HALTED_FOREVER", "CYCLE_LIMIT")  # cli; hlt


def test_nmi_is_blocked_until_iret(tmp_path: Path) -> None:
    """The handler stays for 300,000 cycles while two more NMIs come: they wait for IRET."""
    program = code(
        "833c250000030002",  # wait_for_it: cmp dword [0x30000], 2
        "72f6",  # jb wait_for_it
        "b001",  # mov al, 1
        "e6f4",  # out 0xF4, al
    )
    handler = code(
        "51",  # push rcx
        "8b0c2504000300",  # mov ecx, [0x30004]
        "890c2508000300",  # mov [0x30008], ecx
        "c704250400030001000000",  # mov dword [0x30004], 1
        "b960ea0000",  # mov ecx, 60000
        "e2fe",  # stay: loop stay
        "c704250400030000000000",  # mov dword [0x30004], 0
        "ff042500000300",  # inc dword [0x30000]
        "59",  # pop rcx
        "48cf",  # iretq
    )
    machine = long_mode(tmp_path, program, inject=["nmi@cycle=100k", "nmi@cycle=110k", "nmi@cycle=112k"])
    place(machine, 0x20000, handler)
    place(machine, IDT + 16 * NMI, struct.pack("<HHHHQ", 0, 8, 0xEE00, 2, 0))
    assert status(machine) == 1
    assert word(machine, 0x30008) & 0xFFFFFFFF == 0  # never entered while it was busy
    assert word(machine, 0x30000) & 0xFFFFFFFF in (2, 3)


def test_smi_at_hlt(tmp_path: Path) -> None:
    """The SMI handler (RSM) returns into HLT; only the NMI ends that."""
    machine = long_mode(tmp_path, code("41bf01000000", "fa", "f4", "e6f4"), inject=["smi@cycle=100k", "nmi@cycle=200k"])
    place(machine, 0x38000, code("66ff0e0060", "0faa"))  # dec dword [0x6000], the null descriptor; rsm
    before = word(machine, 0x6000) & 0xFFFFFFFF
    status(machine)
    assert word(machine, 0x6000) & 0xFFFFFFFF == before - 1 & 0xFFFFFFFF
    assert vectors(machine) == [NMI]
    assert machine.cycles >= 200_000


def test_single_step(tmp_path: Path) -> None:
    """TF set by POPF: #DB after each instruction that follows, trapped ones included, with BS in DR6; DR6 is sticky."""
    program = code(
        "41bf01000000",  # mov r15d, 1
        "9c",  # pushfq
        "810c2400010000",  # or dword [rsp], 0x100
        "9d",  # popfq
        "90",  # first: nop
        "0fa2",  # second: cpuid
        "b801000000",  # third: mov eax, 1
        "9c",  # fourth: pushfq
        "812424fffeffff",  # fifth: and dword [rsp], 0xFFFFFEFF
        "9d",  # sixth: popfq
        "90",  # seventh: nop
        "e6f4",  # out 0xF4, al
    )
    machine = long_mode(tmp_path, program)
    status(machine)
    found = events(machine)
    assert [event[0] for event in found] == [DB] * 6
    steps = [event[3] for event in found]
    opcodes = [machine.read_hpa(at, 1) for at in steps]
    assert opcodes == [code(one) for one in ("0f", "b8", "9c", "81", "9d", "90")]


def test_unexpected_exception_ends_the_run(tmp_path: Path) -> None:
    machine = long_mode(tmp_path, code("0f0b"))  # ud2
    assert status(machine) == UNEXPECTED
    assert vectors(machine) == [UD]

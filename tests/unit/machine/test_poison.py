"""A poisoned line: consuming it raises #MC; the rest of its frame stays usable."""

from pathlib import Path

import pytest

from tests.unit.machine.rom import code, events, long_mode, place, status, word
from vmxemu.isa import mca
from vmxemu.machine import Machine
from vmxemu.memory.frames import poison_line

pytestmark = pytest.mark.usefixtures("kernels")

FRAME, LINE = 0x30000, 0x30100
MC = 18


MCE_ON = code(
    "0f20e0",  # mov rax, cr4
    "83c840",  # or eax, 0x40
    "0f22e0",  # mov cr4, rax
    "b904040000",  # mov ecx, 0x404
    "b8ffffffff",  # mov eax, -1
    "baffffffff",  # mov edx, -1
    "0f30",  # wrmsr
    "be00000300",  # mov esi, 0x30000
)


def banks(machine: Machine) -> list[tuple[int, int]]:
    """(status, address) of the banks with a valid record."""
    found = [machine.state.platform.mca.bank[number] for number in range(int(machine.state.platform.mca.capabilities) & 0xFF)]
    return [(int(bank.status), int(bank.addr)) for bank in found if int(bank.status) & int(mca.STATUS_VAL)]


def run_with_poison(folder: Path, program: bytes) -> tuple[Machine, int]:
    machine = long_mode(folder, MCE_ON + code("4d31ff") + program + code("b001", "e6f4"))  # xor r15, r15; ...; mov al, 1; out
    for at in range(0, 4096, 8):
        place(machine, FRAME + at, at.to_bytes(8, "little"))
    assert poison_line(machine.state, LINE)
    return machine, status(machine)


@pytest.mark.parametrize("load", ["488b8600010000", "8a863f010000", "48038638010000"], ids=["first", "last byte", "other"])
def test_load_of_the_line(tmp_path: Path, load: str) -> None:
    """mov rax, [rsi+0x100]; mov al, [rsi+0x13f]; add rax, [rsi+0x138]."""
    machine, ended = run_with_poison(tmp_path, code(load))
    assert ended == 0xEE
    assert [event[0] for event in events(machine)] == [MC]
    found = banks(machine)
    assert len(found) == 1
    assert found[0][1] & ~63 == LINE
    wanted = int(mca.STATUS_UC) | int(mca.STATUS_S) | int(mca.STATUS_AR) | int(mca.STATUS_ADDRV)
    assert found[0][0] & wanted == wanted and found[0][0] & int(mca.STATUS_PCC) == 0


def test_other_lines_can_be_used(tmp_path: Path) -> None:
    program = code(
        "488b86f8000000",  # mov rax, [rsi+0xF8]
        "4889042500000400",  # mov [0x40000], rax
        "488b8640010000",  # mov rax, [rsi+0x140]
        "4889042508000400",  # mov [0x40008], rax
        "48c7864001000005000000",  # mov qword [rsi+0x140], 5
        "eb00",  # jmp next
        "488b8640010000",  # next: mov rax, [rsi+0x140]
        "4889042510000400",  # mov [0x40010], rax
    )
    machine, ended = run_with_poison(tmp_path, program)
    assert ended == 1
    assert events(machine) == []
    assert [word(machine, 0x40000 + at) for at in (0, 8, 16)] == [0xF8, 0x140, 5]


def test_line_after_another_of_its_frame_in_a_new_block(tmp_path: Path) -> None:
    program = code(
        "488b06",  # mov rax, [rsi]
        "eb00",  # jmp next
        "488b8600010000",  # next: mov rax, [rsi+0x100]
    )
    machine, ended = run_with_poison(tmp_path, program)
    assert ended == 0xEE
    assert [event[0] for event in events(machine)] == [MC]


def test_load_that_crosses_into_the_line(tmp_path: Path) -> None:
    _, ended = run_with_poison(tmp_path, code("488b86fc000000"))  # mov rax, [rsi+0xfc]
    assert ended == 0xEE


def test_line_after_another_of_its_frame_in_the_same_block(tmp_path: Path) -> None:
    machine, ended = run_with_poison(tmp_path, code("488b06", "488b8600010000"))  # mov rax, [rsi]; mov rax, [rsi+0x100]
    assert ended == 0xEE
    assert [event[0] for event in events(machine)] == [MC]


def test_without_mce_the_processor_shuts_down(tmp_path: Path) -> None:
    machine = long_mode(tmp_path, code("be00010300", "8b06"))  # mov esi, 0x30100; mov eax, [rsi]
    poison_line(machine.state, LINE)
    result = machine.run()
    assert result.reason == "TRIPLE_FAULT" and "machine check" in result.message


def test_fetch_from_the_line(tmp_path: Path) -> None:
    machine, ended = run_with_poison(tmp_path, code("488d8600010000", "ffe0"))  # lea rax, [rsi+0x100]; jmp rax
    assert ended == 0xEE
    assert [event[0] for event in events(machine)] == [MC]
    assert banks(machine)[0][1] & ~63 == LINE

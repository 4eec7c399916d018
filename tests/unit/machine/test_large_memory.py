"""64 GiB of RAM: what is not touched costs nothing, and all of it is there."""

import struct
from pathlib import Path

import pytest

from tests.unit.machine.rom import PD, PT, USER_RWX, code, long_mode, place, status, word
from vmxemu.memory.layout import HOLDS_CODE

pytestmark = pytest.mark.usefixtures("kernels")

MIB, GIB = 1 << 20, 1 << 30
TOP = 63 * GIB + 0x5000  # guest-physical; RAM goes on behind the hole below 4 GiB


def resident_bytes() -> int:
    """What this process takes of the host's memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def test_pages_near_63_gib(tmp_path: Path) -> None:
    program = code(
        "b800002000",  # mov eax, 0x200000
        "bb00102000",  # mov ebx, 0x201000
        "488900",  # mov [rax], rax
        "488b0b",  # mov rcx, [rbx]
        "48890c2500a00000",  # mov [0xA000], rcx
        "c60090",  # mov byte [rax], 0x90 (nop)
        "66c74001b007",  # mov word [rax+1], 0x07B0 (mov al, 7)
        "c64003c3",  # mov byte [rax+3], 0xC3 (ret)
        "ffd3",  # call rbx
        "e6f4",  # out 0xF4, al
    )
    before = resident_bytes()
    machine = long_mode(tmp_path, program, memory_size="64G")
    place(machine, PD + 8, struct.pack("<Q", PT + 0x9000 | USER_RWX))  # 2 MiB: two linear pages, one frame
    place(machine, PT + 0x9000, struct.pack("<QQ", TOP | USER_RWX, TOP | USER_RWX))
    assert status(machine) == 7
    assert word(machine, 0xA000) == 0x200000
    assert machine.read_hpa(TOP, 4) == code("90b007c3")
    low = int(machine.state.memory.low_bytes)
    assert machine.memory_map.frames[low + TOP - 4 * GIB >> 12] == int(HOLDS_CODE)
    assert resident_bytes() - before < 300 * MIB

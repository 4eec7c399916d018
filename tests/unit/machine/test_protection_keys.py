"""Protection keys in the whole machine: the instructions, which Unicorn would execute on its own register, and their effect."""

from pathlib import Path

import pytest

from tests.unit.machine.rom import UNEXPECTED, code, events, long_mode, map_page, place, status, word

pytestmark = pytest.mark.usefixtures("kernels")

GP, UD, PF = 13, 6, 14
RESULT, PAGE = 0x30000, 0x40000
ENABLE = code("0f20e0", "0d00004000", "0f22e0")  # mov rax, cr4; or eax, 1 << 22; mov cr4, rax
END = code("b000", "e6f4")  # mov al, 0; out 0xF4, al


def test_there_is_one_pkru(tmp_path: Path) -> None:
    program = ENABLE + code(
        "31c9",  # xor ecx, ecx
        "31d2",  # xor edx, edx
        "b878563412",  # mov eax, 0x12345678
        "bf03000000",  # mov edi, 3
        "0f01ef",  # again: wrpkru
        "31c0",  # xor eax, eax
        "0f01ee",  # rdpkru
        "ffc0",  # inc eax
        "ffcf",  # dec edi
        "75f2",  # jnz again
        "48890425" "00000300",  # mov [RESULT], rax
    )  # fmt: skip
    machine = long_mode(tmp_path, program + END)
    assert status(machine) == 0
    assert word(machine, RESULT) == 0x1234_567B and int(machine.state.paging.pkru) == 0x1234_567A


@pytest.mark.parametrize(
    ("prologue", "instruction", "vector"),
    [
        (code("31c9", "31d2"), "0f01ee", UD),  # CR4.PKE = 0
        (code("31c9", "31d2"), "0f01ef", UD),
        (ENABLE + code("b901000000"), "0f01ee", GP),  # ECX = 1
        (ENABLE + code("31c9", "ba01000000"), "0f01ef", GP),  # EDX = 1
        (ENABLE + code("31c9", "31d2"), "660f01ee", UD),
    ],
)
def test_faults(tmp_path: Path, prologue: bytes, instruction: str, vector: int) -> None:
    machine = long_mode(tmp_path, prologue + code(instruction) + END)
    assert status(machine) == UNEXPECTED
    assert [event[0] for event in events(machine)] == [vector]


def test_a_key_denies_at_once_and_permits_again(tmp_path: Path) -> None:
    """Supervisor code touches a user page of key 1: access, then "access disable", then "write disable" with CR0.WP."""
    touch = "8b0425" "00000400"  # mov eax, [PAGE]
    store = "890425" "00000400"  # mov [PAGE], eax
    first = ENABLE + code("0f20c0", "0d00000100", "0f22c0", touch, store, "31c9", "31d2")

    def deny(rights: int, access: str) -> bytes:
        body = code(f"b8{rights:02x}000000", "0f01ef", access)
        return code("4c8d3d" + (len(body)).to_bytes(4, "little").hex()) + body

    body = first + deny(4, touch) + deny(4, store) + deny(8, store) + deny(8, touch) + deny(0, store)
    machine = long_mode(tmp_path, body + END)
    map_page(machine, PAGE, PAGE | 1 << 59)
    place(machine, PAGE, bytes(8))
    assert status(machine) == 0
    noted = events(machine)
    assert [(vector, error, address) for vector, error, address, _ in noted] == [
        (PF, 0x21, PAGE), (PF, 0x23, PAGE), (PF, 0x23, PAGE)
    ]  # fmt: skip

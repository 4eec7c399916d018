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


USER_KEYS = ENABLE + code("31c9", "31d2"), "0f01ef", 7
PKS = code("0f20e0", "0d00000001", "0f22e0")  # CR4.PKS
SUPERVISOR_KEYS = PKS + code("b9e1060000", "31d2"), "0f30", 3  # IA32_PKRS by WRMSR


@pytest.mark.parametrize(("enable", "write", "flags"), (USER_KEYS, SUPERVISOR_KEYS), ids=("PKRU", "PKRS"))
def test_a_key_denies_at_once_and_permits_again(tmp_path: Path, enable: bytes, write: str, flags: int) -> None:
    """Supervisor code touches a page of key 1: free, then "access disable", then "write disable" with CR0.WP, then free again."""
    touch = "8b0425" "00000400"  # mov eax, [PAGE]
    store = "890425" "00000400"  # mov [PAGE], eax

    def set_rights(rights: int, access: str) -> bytes:
        """lea r15, [behind all this]; mov eax, rights; the write; the access."""
        body = code(f"b8{rights:02x}000000", write, access)
        return code("4c8d3d" + len(body).to_bytes(4, "little").hex()) + body

    program = enable + code("0f20c0", "0d00000100", "0f22c0", touch, store)  # CR0.WP = 1
    program += b"".join(set_rights(*step) for step in ((4, touch), (4, store), (8, store), (8, touch), (0, store)))
    machine = long_mode(tmp_path, program + END, cpu="ideal")
    map_page(machine, PAGE, PAGE | 1 << 59, flags)
    place(machine, PAGE, bytes(8))
    assert status(machine) == 0
    noted = [event[:3] for event in events(machine)]
    assert noted == [(PF, 0x21, PAGE), (PF, 0x23, PAGE), (PF, 0x23, PAGE)]

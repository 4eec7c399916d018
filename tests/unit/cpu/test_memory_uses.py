"""The table of memory uses against the disassembler's own knowledge, opcode by opcode."""

import capstone
import numpy as np
import pytest
from capstone import x86

from vmxemu.cpu.layout import HF_CS64
from vmxemu.cpu.memory_uses import DESCRIPTOR, READ_MODIFY_WRITE, STACK, memory_uses

PREFIXES = {0x0F, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3}
VECTOR_PREFIXES = {0x62, 0xC4, 0xC5}
STRING_MOVES = {"movsb", "movsd"}  # the two sides are different pieces of memory
# Capstone says that these only read
WRONG_IN_CAPSTONE = {"rol", "ror", "rcl", "rcr", "cmpxchg", "cmpxchg8b", "arpl"}


def uses_of(opcode: int, modrm: int, mode: int) -> int:
    return int(memory_uses(mode, np.uint64(opcode), np.uint64(modrm)))


def disassembled(mode: int) -> list[tuple[int, int, capstone.CsInsn]]:
    """Every instruction of the one- and two-byte maps with a memory operand at [EBX] or [RBX]: opcode, ModRM, itself."""
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64 if mode else capstone.CS_MODE_32)
    disassembler.detail = True
    found = []
    for opcode in [*set(range(256)) - PREFIXES - VECTOR_PREFIXES, *range(0x0F00, 0x1000)]:
        for register in range(8):
            modrm = 3 | register << 3
            prefix = b"\x0f" if opcode > 0xFF else b""
            text = prefix + bytes([opcode & 0xFF, modrm]) + bytes([0x10] * 8)
            instruction = next(disassembler.disasm(text, 0x1000), None)
            if instruction is not None and not (mode and opcode & 0xF0 == 0x40 and opcode < 0x100):
                found.append((opcode, modrm, instruction))
    return found


@pytest.mark.parametrize("mode", [int(HF_CS64), 0], ids=["64-bit", "32-bit"])
def test_read_modify_write_against_the_disassembler(mode: int) -> None:
    compared = 0
    for opcode, modrm, instruction in disassembled(mode):
        if instruction.id == 0 or instruction.mnemonic in STRING_MOVES:
            continue
        access = 0
        for operand in instruction.operands:
            if operand.type == x86.X86_OP_MEM and operand.mem.base:
                access |= operand.access
        expected = access == capstone.CS_AC_READ | capstone.CS_AC_WRITE
        if instruction.mnemonic in WRONG_IN_CAPSTONE and access:
            expected = True
        found = uses_of(opcode, modrm, mode) & int(READ_MODIFY_WRITE) != 0
        assert found == expected, (hex(opcode), instruction.mnemonic, instruction.op_str)
        compared += expected
    assert compared > 100


def test_no_memory_operand_no_read_modify_write() -> None:
    for opcode in (*range(256), *range(0x0F00, 0x1000)):
        for modrm in range(0xC0, 0x100):
            assert uses_of(opcode, modrm, 0) & int(READ_MODIFY_WRITE) == 0


@pytest.mark.parametrize(
    ("opcode", "modrm", "expected"),
    [
        (0x0F02, 0xC0, DESCRIPTOR),  # lar eax, eax
        (0x0F00, 0x23, DESCRIPTOR),  # verr [ebx]
        (0x0F00, 0x03, 0),  # sldt [ebx]
        (0x8E, 0xE0, DESCRIPTOR),  # mov fs, ax
        (0xFF, 0x1B, DESCRIPTOR | STACK),  # call far [ebx]
        (0xFF, 0x2B, DESCRIPTOR),  # jmp far [ebx]
        (0xFF, 0x13, STACK),  # call [ebx]
        (0xFF, 0x03, READ_MODIFY_WRITE),  # inc [ebx]
        (0x55, 0, STACK),  # push ebp
        (0xCB, 0, DESCRIPTOR | STACK),  # retf
        (0x0F3801, 0x03, 0),  # phaddw mm0, [ebx]
    ],
)
def test_some(opcode: int, modrm: int, expected: int) -> None:
    assert uses_of(opcode, modrm, 0) == int(expected)

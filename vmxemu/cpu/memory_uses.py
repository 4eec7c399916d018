"""What instructions do with memory that an engine which loads, then stores, does not show. SDM Vol. 2.

READ_MODIFY_WRITE: the memory operand is read and written. The processor checks such an access as a write from the start.
DESCRIPTOR: descriptors, or the TSS, are read: supervisor accesses of the processor's own, whatever the CPL.
STACK: the stack is accessed besides the operand.
"""

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np

from vmxemu.cpu.layout import HF_CS64
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U

READ_MODIFY_WRITE, DESCRIPTOR, STACK = U(1), U(2), U(4)
REGISTER_FORM = U(0xC0)  # ModRM bytes from here on name no memory
MOVSXD = U(0x63)  # in 64-bit mode; else ARPL
TWO_BYTES = U(0x0F)
ANY = range(8)

Table: TypeAlias = "np.ndarray[Any, np.dtype[np.uint64]]"


def _note(table: Table, use: int, opcodes: Iterable[int], registers: Iterable[int] = ANY) -> None:
    """A row has eight bits for each use: one per value of ModRM.reg; opcodes without ModRM are looked up with 0."""
    first = {READ_MODIFY_WRITE: 0, DESCRIPTOR: 8, STACK: 16}[U(use)]
    for opcode in opcodes:
        for register in registers:
            table[opcode] |= U(1 << first + register)


def _one_byte() -> Table:
    table = np.zeros(256, np.uint64)
    # ADD, OR, ADC, SBB, AND, SUB, XOR, but not CMP; by register and by immediate
    _note(table, READ_MODIFY_WRITE, (row + width for row in range(0, 0x38, 8) for width in (0, 1)))
    _note(table, READ_MODIFY_WRITE, range(0x80, 0x84), range(7))
    _note(table, READ_MODIFY_WRITE, (0x63, 0x86, 0x87))  # ARPL, XCHG
    _note(table, READ_MODIFY_WRITE, (0xC0, 0xC1, *range(0xD0, 0xD4)))  # rotations, shifts
    _note(table, READ_MODIFY_WRITE, (0xF6, 0xF7), (2, 3))  # NOT, NEG
    _note(table, READ_MODIFY_WRITE, (0xFE, 0xFF), (0, 1))  # INC, DEC
    _note(table, DESCRIPTOR, (0x8E, 0x07, 0x17, 0x1F, 0xC4, 0xC5))  # MOV and POP to segment registers, LES, LDS
    _note(table, DESCRIPTOR, (0x9A, 0xEA, 0xCA, 0xCB, 0xCF))  # far CALL, JMP and RET, IRET
    _note(table, DESCRIPTOR, (0xFF,), (3, 5))  # far CALL and JMP through memory
    _note(table, STACK, (0x06, 0x0E, 0x16, 0x1E, 0x07, 0x17, 0x1F))  # PUSH and POP of segment registers
    # PUSH, POP, PUSHA, POPA, PUSHF, POPF, ENTER, LEAVE
    _note(table, STACK, (*range(0x50, 0x62), 0x68, 0x6A, 0x8F, 0x9C, 0x9D, 0xC8, 0xC9))
    _note(table, STACK, (0x9A, 0xE8, 0xC2, 0xC3, 0xCA, 0xCB, 0xCF))  # CALL, RET, IRET
    _note(table, STACK, (0xFF,), (2, 3, 6))  # CALL, far CALL, PUSH
    return table


def _two_byte() -> Table:
    table = np.zeros(256, np.uint64)
    _note(table, READ_MODIFY_WRITE, (0xA4, 0xA5, 0xAC, 0xAD))  # SHLD, SHRD
    _note(table, READ_MODIFY_WRITE, (0xAB, 0xB3, 0xBB))  # BTS, BTR, BTC
    _note(table, READ_MODIFY_WRITE, (0xBA,), (5, 6, 7))  # the same by immediate
    _note(table, READ_MODIFY_WRITE, (0xB0, 0xB1, 0xC0, 0xC1))  # CMPXCHG, XADD
    _note(table, READ_MODIFY_WRITE, (0xC7,), (1,))  # CMPXCHG8B, CMPXCHG16B
    _note(table, DESCRIPTOR, (0x00,), (2, 3, 4, 5))  # LLDT, LTR, VERR, VERW
    _note(table, DESCRIPTOR, (0x02, 0x03))  # LAR, LSL
    _note(table, DESCRIPTOR, (0xA1, 0xA9, 0xB2, 0xB4, 0xB5))  # POP FS, POP GS, LSS, LFS, LGS
    _note(table, STACK, (0xA0, 0xA1, 0xA8, 0xA9))  # PUSH and POP of FS and GS
    return table


ONE_BYTE_USES = _one_byte()
TWO_BYTE_USES = _two_byte()


@kernel
def memory_uses(mode: int, opcode: int, modrm: int) -> int:
    """READ_MODIFY_WRITE and so on of an instruction as `cpu.decode` names it (ModRM 0 if it has none). `mode`: `m.r.mode`."""
    row = U(0)
    if opcode >> 8 == 0:
        row = ONE_BYTE_USES[opcode]
    elif opcode >> 8 == TWO_BYTES:
        row = TWO_BYTE_USES[opcode & 0xFF]
    if opcode == MOVSXD and mode & HF_CS64 != 0:
        return U(0)
    row = row >> (modrm >> 3 & 7)
    uses = row & READ_MODIFY_WRITE if modrm < REGISTER_FORM else U(0)
    return uses | row >> 7 & DESCRIPTOR | row >> 14 & STACK

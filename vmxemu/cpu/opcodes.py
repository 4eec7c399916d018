"""The shape of instructions by opcode: which have a ModRM byte, and which immediate follows. SDM Vol. 2D, App. A.

VEX and EVEX encodings have no shape here: the processor that is modelled has no AVX.
"""

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np

from vmxemu.layout import u64

U = u64
(
    NO_IMMEDIATE,
    IMM8,
    IMM16,
    IMM_OPERAND,
    IMM_FULL,
    MEMORY_OFFSET,
    FAR_POINTER,
    ENTER_FRAME,
    BRANCH,
    TEST8,
    TEST_OPERAND,
) = (U(i) for i in range(11))
SHAPE = U(15)  # mask of the above
MODRM = U(16)

Table: TypeAlias = "np.ndarray[Any, np.dtype[np.uint64]]"


def _set(table: Table, opcodes: Iterable[int], value: int) -> None:
    for opcode in opcodes:
        table[opcode] = value


def _one_byte() -> Table:
    table = np.zeros(256, np.uint64)
    for row in range(0, 0x40, 8):
        _set(table, range(row, row + 4), MODRM)
        table[row + 4], table[row + 5] = IMM8, IMM_OPERAND
    _set(table, (0x62, 0x63, *range(0x84, 0x90), 0xC4, 0xC5, *range(0xD0, 0xD4), *range(0xD8, 0xE0), 0xFE, 0xFF), MODRM)
    _set(table, (0x68, 0xA9), IMM_OPERAND)
    _set(table, (0x6A, *range(0x70, 0x80), 0xA8, *range(0xB0, 0xB8), 0xCD, 0xD4, 0xD5, *range(0xE0, 0xE8), 0xEB), IMM8)
    _set(table, (0x69, 0x81, 0xC7), MODRM | IMM_OPERAND)
    _set(table, (0x6B, 0x80, 0x82, 0x83, 0xC0, 0xC1, 0xC6), MODRM | IMM8)
    _set(table, range(0xB8, 0xC0), IMM_FULL)
    _set(table, range(0xA0, 0xA4), MEMORY_OFFSET)
    _set(table, (0x9A, 0xEA), FAR_POINTER)
    _set(table, (0xC2, 0xCA), IMM16)
    _set(table, (0xE8, 0xE9), BRANCH)
    table[0xC8], table[0xF6], table[0xF7] = ENTER_FRAME, MODRM | TEST8, MODRM | TEST_OPERAND
    return table


def _two_byte() -> Table:
    table = np.full(256, MODRM)
    bare = (
        0x04,
        0x05,
        0x06,
        0x07,
        0x08,
        0x09,
        0x0A,
        0x0B,
        0x0C,
        0x0E,
        *range(0x30, 0x38),
        0x77,
        0xA0,
        0xA1,
        0xA2,
        0xA8,
        0xA9,
        0xAA,
    )
    _set(table, (*bare, *range(0xC8, 0xD0)), NO_IMMEDIATE)
    _set(table, range(0x80, 0x90), BRANCH)
    _set(table, (0x0F, *range(0x70, 0x74), 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6), MODRM | IMM8)
    return table


ONE_BYTE = _one_byte()
TWO_BYTE = _two_byte()

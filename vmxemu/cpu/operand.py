"""ModRM, SIB and displacement, and the linear address that they name. SDM Vol. 2A, 'ModR/M and SIB Bytes'."""

from typing import TYPE_CHECKING

import numpy as np

from vmxemu.cpu.fetch import next_byte, next_bytes
from vmxemu.cpu.layout import DS, FS, HF_CS64, RBP, RBX, RDI, RSI, RSP, SS
from vmxemu.jit import kernel
from vmxemu.layout import u64

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
NO_REGISTER = U(16)
LOW_HALF = U(0xFFFFFFFF)
ALL_ONES = U(0xFFFFFFFFFFFFFFFF)
# 16-bit addressing by ModRM.rm: base and index register
BASE_16 = np.array([RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX], np.uint64)
INDEX_16 = np.array([RSI, RDI, RSI, RDI, NO_REGISTER, NO_REGISTER, NO_REGISTER, NO_REGISTER], np.uint64)


@kernel
def sign_extend(value: int, size: int) -> int:
    """`value` of `size` bytes as 64 bits."""
    if size == 8:
        return value
    sign = 1 << 8 * size - 1
    return ((value & (sign << 1) - 1) ^ sign) - sign


@kernel
def _moves_control_register(opcode: int) -> bool:
    """MOV to and from CR and DR: ModRM.mod is ignored."""
    return opcode >= 0x0F20 and opcode <= 0x0F23


@kernel
def _read_displacement(m: "State", size: int) -> None:
    m.cpu.insn.displacement = sign_extend(next_bytes(m, size), size)


@kernel
def _address_16(m: "State", mod: int, rm: int) -> None:
    insn = m.cpu.insn
    if mod == 0 and rm == 6:
        _read_displacement(m, 2)
        return
    insn.base = BASE_16[rm]
    insn.index = INDEX_16[rm]
    if mod != 0:
        _read_displacement(m, mod)


@kernel
def _address_32(m: "State", mod: int, rm: int) -> None:
    """32- and 64-bit addressing."""
    insn = m.cpu.insn
    base = rm
    if rm == 4:
        sib = next_byte(m)
        insn.scale = sib >> 6
        index = sib >> 3 & 7 | (insn.rex & 2) << 2
        if index != RSP:
            insn.index = index
        base = sib & 7
    if mod == 0 and base == 5:
        _read_displacement(m, 4)
        insn.rip_relative = 1 if rm == 5 and m.r.mode & HF_CS64 != 0 else 0
        return
    insn.base = base | (insn.rex & 1) << 3
    if mod != 0:
        _read_displacement(m, 1 if mod == 1 else 4)


@kernel
def read_modrm(m: "State") -> None:
    """Take ModRM, SIB and displacement from the instruction's bytes."""
    insn = m.cpu.insn
    modrm = next_byte(m)
    mod = modrm >> 6
    insn.modrm = modrm
    insn.has_modrm = 1
    insn.register = modrm >> 3 & 7 | (insn.rex & 4) << 1
    insn.rm = modrm & 7 | (insn.rex & 1) << 3
    if mod == 3 or _moves_control_register(insn.opcode):
        return
    insn.is_memory = 1
    insn.base = NO_REGISTER
    insn.index = NO_REGISTER
    insn.scale = 0
    insn.displacement = 0
    insn.rip_relative = 0
    if insn.address_bytes == 2:
        _address_16(m, mod, modrm & 7)
    else:
        _address_32(m, mod, modrm & 7)


@kernel
def mask_of(size: int) -> int:
    """All ones in `size` bytes."""
    return ALL_ONES if size == 8 else (1 << 8 * size) - 1


@kernel
def linear_of(m: "State", segment: int, offset: int) -> int:
    """Linear address of `offset` in a segment register: in 64-bit mode only FS and GS have a base."""
    if m.r.mode & HF_CS64 != 0:
        return m.r.seg[segment].base + offset if segment >= FS else offset
    return m.r.seg[segment].base + offset & LOW_HALF


@kernel
def resolve_operand(m: "State") -> None:
    """Segment, offset and linear address of the memory operand; the segment alone for instructions without ModRM."""
    insn = m.cpu.insn
    segment = DS
    if insn.is_memory != 0:
        if insn.base == RSP or insn.base == RBP:
            segment = SS
        if insn.rip_relative != 0:
            insn.displacement = insn.displacement + m.r.rip + insn.length
        offset = insn.displacement
        if insn.base != NO_REGISTER:
            offset = offset + m.r.gpr[insn.base]
        if insn.index != NO_REGISTER:
            offset = offset + (m.r.gpr[insn.index] << insn.scale)
        insn.offset = offset & mask_of(insn.address_bytes)
    if insn.override != NO_REGISTER:
        segment = insn.override
    insn.segment = segment
    if insn.is_memory != 0:
        insn.linear = linear_of(m, segment, insn.offset)

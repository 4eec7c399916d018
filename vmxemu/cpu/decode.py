"""The instruction at CS:RIP, as far as a trap handler must know it. SDM Vol. 2A, 'Instruction Format'."""

from typing import TYPE_CHECKING

from vmxemu.cpu.fetch import begin_fetch, next_byte, next_bytes
from vmxemu.cpu.flags import RF, TF
from vmxemu.cpu.layout import FS, GS, HF_CS32, HF_CS64
from vmxemu.cpu.mode import end_interrupt_shadow
from vmxemu.cpu.opcodes import (
    BRANCH,
    ENTER_FRAME,
    FAR_POINTER,
    IMM8,
    IMM16,
    IMM_FULL,
    IMM_OPERAND,
    MEMORY_OFFSET,
    MODRM,
    NO_IMMEDIATE,
    ONE_BYTE,
    SHAPE,
    TEST8,
    TEST_OPERAND,
    TWO_BYTE,
)
from vmxemu.cpu.operand import read_modrm, resolve_operand
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
OPERAND_SIZE, ADDRESS_SIZE, LOCK, REPNE, REP = U(1), U(2), U(4), U(8), U(16)  # bits of insn.prefixes
NO_REGISTER = U(16)
REX_W = U(8)
PENDING_SINGLE_STEP = U(1 << 14)


@kernel
def _take_prefix(m: "State", byte: int) -> bool:
    """Note a legacy prefix; False if `byte` is none."""
    insn = m.cpu.insn
    if byte == 0x66:
        insn.prefixes = insn.prefixes | OPERAND_SIZE
    elif byte == 0x67:
        insn.prefixes = insn.prefixes | ADDRESS_SIZE
    elif byte == 0xF0:
        insn.prefixes = insn.prefixes | LOCK
    elif byte == 0xF2:
        insn.prefixes = insn.prefixes & ~REP | REPNE
    elif byte == 0xF3:
        insn.prefixes = insn.prefixes & ~REPNE | REP
    elif byte == 0x64:
        insn.override = FS
    elif byte == 0x65:
        insn.override = GS
    elif byte & 0xE7 == 0x26:  # 26h ES, 2Eh CS, 36h SS, 3Eh DS: null prefixes in 64-bit mode
        if m.r.mode & HF_CS64 == 0:
            insn.override = byte >> 3 & 3
    else:
        return False
    return True


@kernel
def _read_opcode(m: "State") -> int:
    """Prefixes and opcode into `insn`; returns the opcode's shape."""
    insn = m.cpu.insn
    byte = next_byte(m)
    while insn.failure == 0:
        if _take_prefix(m, byte):
            insn.rex = 0  # REX counts only right before the opcode
        elif byte & 0xF0 == 0x40 and m.r.mode & HF_CS64 != 0:
            insn.rex = byte
        else:
            break
        byte = next_byte(m)
    if byte != 0x0F:
        insn.opcode = byte
        return U(ONE_BYTE[byte])
    byte = next_byte(m)
    insn.opcode = 0x0F00 | byte
    if byte == 0x38:
        insn.opcode = 0x0F3800 | next_byte(m)
        return MODRM
    if byte == 0x3A:
        insn.opcode = 0x0F3A00 | next_byte(m)
        return MODRM | IMM8
    return U(TWO_BYTE[byte])


@kernel
def _set_sizes(m: "State") -> None:
    insn = m.cpu.insn
    small_operand = insn.prefixes & OPERAND_SIZE != 0
    small_address = insn.prefixes & ADDRESS_SIZE != 0
    if m.r.mode & HF_CS64 != 0:
        insn.operand_bytes = 2 if small_operand else 4
        if insn.rex & REX_W != 0:
            insn.operand_bytes = 8
        insn.address_bytes = 4 if small_address else 8
    elif m.r.mode & HF_CS32 != 0:
        insn.operand_bytes = 2 if small_operand else 4
        insn.address_bytes = 2 if small_address else 4
    else:
        insn.operand_bytes = 4 if small_operand else 2
        insn.address_bytes = 4 if small_address else 2


@kernel
def _immediate_bytes(m: "State", shape: int) -> int:
    insn = m.cpu.insn
    operand = 4 if insn.operand_bytes == 8 else insn.operand_bytes
    if shape == IMM8:
        return 1
    if shape == IMM16:
        return 2
    if shape == IMM_OPERAND:
        return operand
    if shape == IMM_FULL:
        return insn.operand_bytes
    if shape == MEMORY_OFFSET:
        return insn.address_bytes
    if shape == FAR_POINTER:
        return operand + 2
    if shape == ENTER_FRAME:
        return 3
    if shape == BRANCH:
        return 4 if m.r.mode & HF_CS64 != 0 else operand
    if shape == TEST8:
        return 1 if insn.modrm & 0x30 == 0 else 0
    if shape == TEST_OPERAND:
        return operand if insn.modrm & 0x30 == 0 else 0
    return 0


@kernel
def decode(m: "State") -> int:
    """Decode the instruction at CS:RIP into `m.cpu.insn`. DONE, what the fetch met, or #GP(0) beyond 15 bytes."""
    insn = m.cpu.insn
    insn.prefixes = 0
    insn.rex = 0
    insn.override = NO_REGISTER
    insn.modrm = 0
    insn.has_modrm = 0
    insn.is_memory = 0
    insn.register = 0
    insn.rm = 0
    insn.immediate = 0
    begin_fetch(m)
    shape = _read_opcode(m)
    _set_sizes(m)
    if shape & MODRM != 0:
        read_modrm(m)
    if shape & SHAPE != NO_IMMEDIATE:
        insn.immediate = next_bytes(m, _immediate_bytes(m, shape & SHAPE))
    insn.length = insn.cursor
    if insn.failure != 0:
        return insn.failure
    resolve_operand(m)
    return DONE


@kernel
def truncate_rip(m: "State", rip: int) -> int:
    """`rip` in the width of the code segment."""
    if m.r.mode & HF_CS64 != 0:
        return rip
    return rip & 0xFFFFFFFF if m.r.mode & HF_CS32 != 0 else rip & 0xFFFF


@kernel
def next_rip(m: "State") -> int:
    """RIP after the decoded instruction."""
    return truncate_rip(m, m.r.rip + m.cpu.insn.length)


@kernel
def advance(m: "State") -> None:
    """Retire the decoded instruction: RIP moves on, RF and the interrupt shadow end, a single step becomes pending."""
    m.r.rip = next_rip(m)
    if m.r.eflags & TF != 0:
        m.cpu.pending_debug = m.cpu.pending_debug | PENDING_SINGLE_STEP
    m.r.eflags = m.r.eflags & ~RF
    end_interrupt_shadow(m)

"""MOV to and from CR, CLTS, LMSW and SMSW as instructions, for when they stop before they take effect."""

from typing import TYPE_CHECKING

from vmxemu.cpu.control_registers import merge_lmsw, protection_fault, read_cr, write_cr
from vmxemu.cpu.decode import LOCK, advance, decode
from vmxemu.cpu.layout import HF_CPL, HF_CS64
from vmxemu.isa import exceptions
from vmxemu.isa.bits import CR0_TS, CR4_UMIP
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, fault
from vmxemu.translation.access import read_linear, write_linear
from vmxemu.translation.layout import READ, WRITE

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
MOV_FROM_CR, MOV_TO_CR, CLTS, GROUP_7 = U(0x0F20), U(0x0F22), U(0x0F06), U(0x0F01)
SMSW, LMSW = U(4), U(6)  # ModRM.reg in group 7
LOW_WORD, LOW_HALF = U(0xFFFF), U(0xFFFFFFFF)


@kernel
def write_gpr(m: "State", register: int, size: int, value: int) -> None:
    """Write a general register as an instruction of that operand size does."""
    if size == 8:
        m.r.gpr[register] = value
    elif size == 4:
        m.r.gpr[register] = value & LOW_HALF
    else:
        m.r.gpr[register] = m.r.gpr[register] & ~LOW_WORD | value & 0xFFFF


@kernel
def _control_register_exists(n: int) -> bool:
    return n == 0 or n == 2 or n == 3 or n == 4 or n == 8


@kernel
def _mov_cr(m: "State") -> int:
    insn = m.cpu.insn
    n = insn.register
    if not _control_register_exists(n) or insn.prefixes & LOCK != 0:
        return fault(exceptions.UD)
    if m.r.mode & HF_CPL != 0:
        return protection_fault()
    size = 8 if m.r.mode & HF_CS64 != 0 else 4
    if insn.opcode == MOV_FROM_CR:
        write_gpr(m, insn.rm, size, read_cr(m, n))
        return DONE
    value = m.r.gpr[insn.rm]
    return write_cr(m, n, value if size == 8 else value & LOW_HALF)


@kernel
def read_operand_16(m: "State") -> int:
    """The 16-bit register or memory operand of the decoded instruction, into m.walk.value."""
    insn = m.cpu.insn
    if insn.is_memory != 0:
        return read_linear(m, insn.linear, 2, READ)
    m.walk.value = m.r.gpr[insn.rm] & 0xFFFF
    return DONE


@kernel
def write_operand_16(m: "State", value: int) -> int:
    """Store as SMSW, SLDT and STR do: 16 bits to memory, the operand size to a register."""
    insn = m.cpu.insn
    if insn.is_memory != 0:
        return write_linear(m, insn.linear, 2, value & 0xFFFF, WRITE)
    write_gpr(m, insn.rm, insn.operand_bytes, value)
    return DONE


@kernel
def _group_7(m: "State") -> int:
    which = m.cpu.insn.register & 7
    if which == SMSW:
        if m.r.cr[4] & CR4_UMIP != 0 and m.r.mode & HF_CPL != 0:
            return protection_fault()
        return write_operand_16(m, m.r.cr[0])
    if which != LMSW:
        return fault(exceptions.UD)
    if m.r.mode & HF_CPL != 0:
        return protection_fault()
    outcome = read_operand_16(m)
    if outcome != DONE:
        return outcome
    return write_cr(m, 0, merge_lmsw(m, m.walk.value))


@kernel
def execute_mov_cr(m: "State") -> int:
    """The decoded MOV CR, CLTS, LMSW or SMSW; RIP moves on only if it succeeds."""
    opcode = m.cpu.insn.opcode
    if opcode == MOV_FROM_CR or opcode == MOV_TO_CR:
        outcome = _mov_cr(m)
    elif opcode == GROUP_7:
        outcome = _group_7(m)
    elif opcode != CLTS:
        outcome = fault(exceptions.UD)
    elif m.r.mode & HF_CPL != 0:
        outcome = protection_fault()
    else:
        outcome = write_cr(m, 0, m.r.cr[0] & ~CR0_TS)
    if outcome == DONE:
        advance(m)
    return outcome


@kernel
def emulate_mov_cr(m: "State") -> int:
    """Decode and execute MOV CR, CLTS, LMSW or SMSW at RIP."""
    outcome = decode(m)
    return outcome if outcome != DONE else execute_mov_cr(m)

"""SYSCALL and SYSENTER, which Unicorn only announces. SDM Vol. 2B, 'SYSCALL', 'SYSENTER'. (SYSRET and SYSEXIT run natively.)"""

from typing import TYPE_CHECKING

from vmxemu.cpu.flags import read_flags, write_flags
from vmxemu.cpu.layout import CS, HF_CS64, HF_LMA, R11, RCX, RSP, SEG_DB, SEG_G, SEG_L, SEG_P, SEG_S, SS
from vmxemu.cpu.mode import refresh_mode
from vmxemu.isa import bits, exceptions
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.outcome import DONE, NOT_MINE, fault, fault_with

if TYPE_CHECKING:
    from vmxemu.state import State

SYSCALL, SYSENTER = U(0x0F05), U(0x0F34)
CODE, DATA = U(11 << 8) | SEG_S | SEG_P | SEG_G, U(3 << 8) | SEG_S | SEG_P | SEG_G | SEG_DB
SELECTOR_MASK = U(0xFFFC)
LOW_HALF = U(0xFFFFFFFF)


@kernel
def execute_system_call(m: "State") -> int:
    """The decoded SYSCALL or SYSENTER; NOT_MINE if it is neither."""
    if m.cpu.insn.opcode == SYSCALL:
        return _syscall(m)
    return _sysenter(m) if m.cpu.insn.opcode == SYSENTER else NOT_MINE


@kernel
def _enter_kernel(m: "State", selector: int, width: int) -> None:
    """Flat CS and SS with DPL 0."""
    code, stack = m.r.seg[CS], m.r.seg[SS]
    code.selector = selector & SELECTOR_MASK
    code.base = 0
    code.limit = LOW_HALF
    code.flags = CODE | width
    stack.selector = (selector & SELECTOR_MASK) + 8
    stack.base = 0
    stack.limit = LOW_HALF
    stack.flags = DATA
    refresh_mode(m)


@kernel
def _syscall(m: "State") -> int:
    if m.r.mode & HF_CS64 == 0 or m.r.efer & bits.EFER_SCE == 0:
        return fault(exceptions.UD)
    flags = read_flags(m)
    m.r.gpr[RCX] = m.r.rip + m.cpu.insn.length
    m.r.gpr[R11] = flags & ~bits.RFLAGS_RF
    m.r.rip = m.r.lstar
    write_flags(m, flags & ~(m.r.fmask & LOW_HALF) & ~bits.RFLAGS_RF)
    _enter_kernel(m, m.r.star >> 32, SEG_L)
    return DONE


@kernel
def _sysenter(m: "State") -> int:
    if m.r.cr[0] & bits.CR0_PE == 0 or m.r.sysenter_cs & SELECTOR_MASK == 0:
        return fault_with(exceptions.GP, 0)
    long = m.r.mode & HF_LMA != 0
    write_flags(m, read_flags(m) & ~(bits.RFLAGS_VM | bits.RFLAGS_IF | bits.RFLAGS_RF))
    m.r.gpr[RSP] = m.r.sysenter_esp if long else m.r.sysenter_esp & LOW_HALF
    m.r.rip = m.r.sysenter_eip if long else m.r.sysenter_eip & LOW_HALF
    _enter_kernel(m, m.r.sysenter_cs, SEG_L if long else SEG_DB)
    return DONE

"""Opcode group 7 (0F 01): descriptor tables, LMSW, SMSW, INVLPG, MONITOR, MWAIT, CLAC, STAC, XSETBV, RDPKRU, WRPKRU, RDTSCP.

SDM Vol. 2D, App. A.
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.cpuid import BIT, has_feature_ebx, has_feature_ecx, has_feature_edx
from vmxemu.cpu.decode import advance
from vmxemu.cpu.flags import AC, IF
from vmxemu.cpu.layout import HALTED, HF_CPL, RAX, RCX
from vmxemu.cpu.mov_cr import LMSW, SMSW, execute_mov_cr
from vmxemu.cpu.msr import msr_operand
from vmxemu.cpu.operand import linear_of, mask_of
from vmxemu.cpu.protection_keys import RDPKRU, WRPKRU, execute_pkru
from vmxemu.cpu.segments import LIDT, descriptor_table
from vmxemu.cpu.time_stamp import read_time_stamp
from vmxemu.cpu.translation_control import invalidate_page
from vmxemu.isa import exceptions
from vmxemu.isa.bits import CR4_OSXSAVE, CR4_SMAP
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, NOT_MINE, fault, fault_with
from vmxemu.timing import costs
from vmxemu.timing.clock import charge_event
from vmxemu.translation.access import read_linear
from vmxemu.translation.layout import READ

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
INVLPG = U(7)  # ModRM.reg, memory form
MONITOR, MWAIT, CLAC, STAC, XSETBV, RDTSCP = U(0xC8), U(0xC9), U(0xCA), U(0xCB), U(0xD1), U(0xF9)  # ModRM
HAS_MONITOR, HAS_RDTSCP, HAS_SMAP = BIT["MONITOR"], BIT["RDTSCP"], BIT["SMAP"]
EXTENDED_FEATURES = U(0x80000001)
LOW_HALF = U(0xFFFFFFFF)
BREAK_ON_INTERRUPT = U(1)  # MWAIT's extension in ECX
X87, SSE, AVX = U(1), U(2), U(4)  # XCR0


@kernel
def _monitor(m: "State") -> int:
    """MONITOR: only interrupts wake the one processor that there is, so the range itself is just checked."""
    if m.r.gpr[RCX] & LOW_HALF != 0:
        return fault_with(exceptions.GP, 0)
    insn = m.cpu.insn
    gla = linear_of(m, insn.segment, m.r.gpr[RAX] & mask_of(insn.address_bytes))
    outcome = read_linear(m, gla, 1, READ)
    if outcome != DONE:
        return outcome
    m.cpu.monitor_armed = 1
    m.cpu.monitor_gla = gla
    advance(m)
    return DONE


@kernel
def _mwait(m: "State") -> int:
    """MWAIT waits like HLT. With interrupts off it would wait for a store that nobody makes: it goes on at once."""
    if m.r.gpr[RCX] & LOW_HALF & ~BREAK_ON_INTERRUPT != 0:
        return fault_with(exceptions.GP, 0)
    armed = m.cpu.monitor_armed
    m.cpu.monitor_armed = 0
    advance(m)
    if armed != 0 and m.r.eflags & IF != 0:
        m.cpu.activity = HALTED
    return DONE


@kernel
def _set_alignment_check(m: "State", put: int) -> int:
    """CLAC and STAC."""
    if m.r.mode & HF_CPL != 0 or not has_feature_ebx(m, 7, 0, HAS_SMAP):
        return NOT_MINE
    m.r.eflags = m.r.eflags & ~AC | put
    if m.r.cr[4] & CR4_SMAP != 0:
        m.engine.flush = 1
    advance(m)
    return DONE


@kernel
def _set_extended_control(m: "State") -> int:
    """XSETBV."""
    if m.r.cr[4] & CR4_OSXSAVE == 0:
        return NOT_MINE
    value = msr_operand(m)
    bad = value & X87 == 0 or value & ~m.cpu.xcr0_allowed != 0 or value & (SSE | AVX) == AVX
    if m.r.mode & HF_CPL != 0 or m.r.gpr[RCX] & LOW_HALF != 0 or bad:
        return fault_with(exceptions.GP, 0)
    m.cpu.xcr0 = value
    advance(m)
    return DONE


@kernel
def _register_form(m: "State", modrm: int) -> int:
    if modrm == RDTSCP:
        return read_time_stamp(m, True) if has_feature_edx(m, EXTENDED_FEATURES, 0, HAS_RDTSCP) else NOT_MINE
    if modrm == MONITOR or modrm == MWAIT:
        if m.r.mode & HF_CPL != 0 or not has_feature_ecx(m, 1, 0, HAS_MONITOR):
            return fault(exceptions.UD)
        return _monitor(m) if modrm == MONITOR else _mwait(m)
    if modrm == RDPKRU or modrm == WRPKRU:
        return execute_pkru(m)
    if modrm == STAC:
        return _set_alignment_check(m, AC)
    if modrm == CLAC:
        return _set_alignment_check(m, 0)
    return _set_extended_control(m) if modrm == XSETBV else NOT_MINE


@kernel
def execute_group_7(m: "State") -> int:
    """The decoded instruction of group 7; NOT_MINE for VMX instructions and unknown ones."""
    insn = m.cpu.insn
    which = insn.register & 7
    if which == SMSW or which == LMSW:
        charge_event(m, costs.CR_WRITE)
        return execute_mov_cr(m)
    if insn.is_memory == 0:
        return _register_form(m, insn.modrm)
    if which == INVLPG:
        return invalidate_page(m)
    if which > LIDT:
        return NOT_MINE
    charge_event(m, costs.DESCRIPTOR_TABLE)
    outcome = descriptor_table(m)
    if outcome == DONE:
        advance(m)
    return outcome

"""Sensitive instructions that stopped before they took effect: what they do when no VM exit takes them. SDM Vol. 2.

`emulate` goes by the decoded opcode, so that it does not matter whether Unicorn stopped at an interception or at #UD.
Each instruction checks its own conditions: the interception may come before Unicorn's checks.
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.cpuid import execute_cpuid
from vmxemu.cpu.debug import execute_mov_dr
from vmxemu.cpu.decode import LOCK, REP, advance
from vmxemu.cpu.group_7 import execute_group_7
from vmxemu.cpu.layout import HALTED, HF_CPL
from vmxemu.cpu.mov_cr import execute_mov_cr
from vmxemu.cpu.nmi import unblock_nmi
from vmxemu.cpu.push_flags import pop_flags, push_flags
from vmxemu.cpu.random import execute_random
from vmxemu.cpu.segments import group_6
from vmxemu.cpu.software_event import emulate_int
from vmxemu.cpu.time_stamp import read_performance_counter, read_time_stamp
from vmxemu.cpu.translation_control import invalidate_pcid
from vmxemu.isa import exceptions
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, NOT_MINE, RETRY, fault_with
from vmxemu.timing import costs
from vmxemu.timing.clock import charge_event

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
HLT, PUSHF, POPF, IRET, NOP = U(0xF4), U(0x9C), U(0x9D), U(0xCF), U(0x90)
GROUP_6, GROUP_7, CLTS, INVD, WBINVD, RDTSC, RDPMC, CPUID, GROUP_9, INVPCID = (
    U(opcode) for opcode in (0x0F00, 0x0F01, 0x0F06, 0x0F08, 0x0F09, 0x0F31, 0x0F33, 0x0FA2, 0x0FC7, 0x0F3882)
)
MOV_FROM_CR, MOV_FROM_DR, MOV_TO_CR, MOV_TO_DR = U(0x0F20), U(0x0F21), U(0x0F22), U(0x0F23)


@kernel
def _halt(m: "State") -> int:
    if m.r.mode & HF_CPL != 0:
        return fault_with(exceptions.GP, 0)
    advance(m)
    m.cpu.activity = HALTED
    return DONE


@kernel
def _write_back(m: "State") -> int:
    """INVD and WBINVD: there are no caches to lose data in."""
    if m.r.mode & HF_CPL != 0:
        return fault_with(exceptions.GP, 0)
    charge_event(m, costs.WBINVD)
    advance(m)
    return DONE


@kernel
def _one_byte(m: "State", opcode: int) -> int:
    if opcode == HLT:
        return _halt(m)
    if opcode == PUSHF:
        return push_flags(m)
    if opcode == POPF:
        return pop_flags(m)
    if opcode == IRET:
        unblock_nmi(m)
        return RETRY
    if opcode == NOP and m.cpu.insn.prefixes & REP != 0:
        charge_event(m, costs.PAUSE)
        advance(m)
        return DONE
    return emulate_int(m)


@kernel
def _registers(m: "State", opcode: int) -> int:
    """MOV CR, MOV DR, CLTS, and group 6."""
    if opcode == MOV_FROM_DR or opcode == MOV_TO_DR:
        charge_event(m, costs.DR_ACCESS)
        return execute_mov_dr(m)
    if opcode != GROUP_6:
        charge_event(m, costs.CR_WRITE)
        return execute_mov_cr(m)
    charge_event(m, costs.DESCRIPTOR_TABLE)
    outcome = group_6(m)
    if outcome == DONE:
        advance(m)
    return outcome


@kernel
def _two_byte(m: "State", opcode: int) -> int:
    if opcode == CPUID:
        charge_event(m, costs.CPUID)
        execute_cpuid(m)
        advance(m)
        return DONE
    if opcode == GROUP_7:
        return execute_group_7(m)
    if opcode == GROUP_6 or opcode == CLTS or (opcode >= MOV_FROM_CR and opcode <= MOV_TO_DR):
        return _registers(m, opcode)
    if opcode == RDTSC:
        return read_time_stamp(m, False)
    if opcode == RDPMC:
        return read_performance_counter(m)
    if opcode == INVD or opcode == WBINVD:
        return _write_back(m)
    if opcode == GROUP_9:
        return execute_random(m)
    return invalidate_pcid(m) if opcode == INVPCID else NOT_MINE


@kernel
def emulate(m: "State", trap: int) -> int:
    """Execute the decoded instruction. DONE: it has retired. RETRY: an event waits in m.cpu.event_*, or IRET shall run.

    NOT_MINE: unknown here, thus #UD unless another room knows it (VMX instructions, RSM, RDMSR, WRMSR, IN, OUT).
    """
    opcode = m.cpu.insn.opcode
    if m.cpu.insn.prefixes & LOCK != 0:
        return NOT_MINE
    return _one_byte(m, opcode) if opcode < 0x100 else _two_byte(m, opcode)

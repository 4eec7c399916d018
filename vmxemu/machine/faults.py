"""Fills that failed: page faults, what EPT refuses, sub-pages, poisoned lines, and the processor's own accesses at CPL 3."""

from typing import TYPE_CHECKING

import numpy as np

from vmxemu import report
from vmxemu.cpu.decode import decode
from vmxemu.cpu.layout import CS, HF_CS64, HF_SS32, RSP, SS
from vmxemu.isa import exceptions
from vmxemu.jit import kernel, load64
from vmxemu.layout import u64 as U
from vmxemu.machine.subpages import store_to_subpage
from vmxemu.memory.frames import is_poisoned
from vmxemu.memory.physical import host_address
from vmxemu.outcome import DONE, FAULT, POISON, RETRY, STOPPED, fault_with, kind_of, vector_of
from vmxemu.platform.mca import log_consumption
from vmxemu.translation.access import read_linear
from vmxemu.translation.layout import FETCH, IMPLICIT_SUPERVISOR, PERMIT_WRITE, WRITE
from vmxemu.translation.translate import translate

if TYPE_CHECKING:
    from vmxemu.state import State

FILL_TRANSLATION, FILL_POISON, FILL_NOWHERE = U(1), U(2), U(3)
CPL3 = U(3)
LARGEST_OPERAND = U(512)  # FXSAVE's
LARGEST_FAR_POINTER, STACK_REACH = U(10), U(64)
# PUSH, POP, PUSHF, POPF, RET, ENTER, LEAVE, far RET, IRET, CALL, group 5, PUSH and POP of FS and GS; 50h to 5Fh besides
STACK_OPCODES = np.array(
    [0x68, 0x6A, 0x8F, 0x9C, 0x9D, 0xC2, 0xC3, 0xC8, 0xC9, 0xCA, 0xCB, 0xCF, 0xE8, 0xFF, 0x0FA0, 0x0FA1, 0x0FA8, 0x0FA9],
    dtype=np.uint64,
)
STACK_OPCODE_COUNT = U(len(STACK_OPCODES))


@kernel
def failed_fill(m: "State") -> int:
    """Repeat the translation that failed, now with the exact address, and say what it means."""
    engine = m.engine
    why = engine.fill_failed
    engine.fill_failed = 0
    gla = load64(engine.invalid_address)
    access = engine.fill_access
    outcome = translate(m, gla, access)
    if outcome == DONE:
        if why == FILL_POISON and is_poisoned(m, m.walk.hpa, 1):
            return POISON
        if why == FILL_POISON:
            engine.system_access = engine.system_access | 2  # let this one access to the frame's other lines through
        if access == WRITE and m.walk.permissions & PERMIT_WRITE == 0:
            return store_to_subpage(m, gla)
        if why == FILL_POISON:
            return RETRY
        if access == FETCH and host_address(m, m.walk.hpa) == 0:
            m.report.reason = report.UNMODELLED_FEATURE
            m.report.feature = report.FETCH_OUTSIDE_MEMORY
            m.report.where = m.walk.hpa
            return STOPPED
        return RETRY
    if (
        kind_of(outcome) == FAULT
        and vector_of(outcome) == exceptions.PF
        and m.r.mode & CPL3 == CPL3
        and access != FETCH
        and engine.system_access & 1 == 0
    ):
        if loads_descriptor(m, gla):
            repeated = translate(m, gla, access | IMPLICIT_SUPERVISOR)
            if repeated == DONE:
                engine.system_access = 1
                return RETRY
            outcome = repeated
        else:
            outcome = translate(m, gla, access)
    if kind_of(outcome) == FAULT and vector_of(outcome) == exceptions.GP and access != FETCH and is_stack_access(m, gla):
        return fault_with(exceptions.SS, 0)
    return outcome


@kernel
def is_stack_access(m: "State", gla: int) -> bool:
    """Whether the instruction at CS:RIP reaches this non-canonical address through SS."""
    if decode(m) != DONE:
        return False
    insn = m.cpu.insn
    if insn.is_memory != 0 and gla - insn.linear < LARGEST_OPERAND:
        return insn.segment == SS
    opcode = insn.opcode
    for i in range(STACK_OPCODE_COUNT):
        if STACK_OPCODES[i] == opcode:
            return True
    return opcode & U(0xFFF0) == 0x50 or insn.is_memory != 0 and insn.segment == SS


@kernel
def stack_top(m: "State") -> int:
    """Linear address of the top of the stack."""
    if m.r.mode & HF_CS64 != 0:
        return m.r.gpr[RSP]
    return m.r.seg[SS].base + (m.r.gpr[RSP] & 0xFFFFFFFF if m.r.mode & HF_SS32 != 0 else m.r.gpr[RSP] & 0xFFFF) & 0xFFFFFFFF


@kernel
def loads_descriptor(m: "State", gla: int) -> bool:
    """Whether the instruction at CS:RIP may read a descriptor table or the TSS: Unicorn does these reads as the processor's own.

    Its memory operand and its stack are not: there the software's own rights count.
    """
    if decode(m) == DONE and m.cpu.insn.is_memory != 0 and gla - m.cpu.insn.linear < LARGEST_FAR_POINTER:
        return False
    if gla - (stack_top(m) - STACK_REACH) < 2 * STACK_REACH:
        return False
    at = m.r.seg[CS].base + m.r.rip
    for i in range(14):
        if read_linear(m, at + i, 1, FETCH) != DONE:
            return False
        byte = m.walk.value
        prefix = byte == 0x66 or byte == 0x67 or byte == 0xF2 or byte == 0xF3 or byte & 0xE7 == 0x26 or byte & 0xFE == 0x64
        if m.r.mode & 0x8000 != 0 and byte & 0xF0 == 0x40:
            prefix = True
        if prefix:
            continue
        if byte == 0x0F:
            if read_linear(m, at + i + 1, 1, FETCH) != DONE:
                return False
            second = m.walk.value
            return (
                second <= 3
                or second == 0xA1
                or second == 0xA9
                or second == 0xB2
                or second == 0xB4
                or second == 0xB5
                or second == 0x35
                or second == 0x07
            )
        far = byte == 0x9A or byte == 0xEA or byte == 0xCA or byte == 0xCB or byte == 0xCF or byte == 0xFF
        return far or byte == 0x8E or byte == 0x07 or byte == 0x17 or byte == 0x1F or byte == 0xC4 or byte == 0xC5
    return False


@kernel
def consume_poison(m: "State") -> int:
    """An access would have consumed a poisoned line: log it as software-recoverable, action required, and let the #MC arrive."""
    log_consumption(m, m.walk.hpa)
    return RETRY

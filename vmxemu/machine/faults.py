"""Fills that failed: page faults, what EPT refuses, sub-pages, poisoned lines, and the processor's own accesses at CPL 3."""

from typing import TYPE_CHECKING

from vmxemu import report
from vmxemu.cpu.decode import decode
from vmxemu.cpu.layout import SS
from vmxemu.cpu.memory_uses import STACK, memory_uses
from vmxemu.isa import exceptions
from vmxemu.jit import kernel, load64
from vmxemu.layout import u64 as U
from vmxemu.machine.intent import reads_descriptor
from vmxemu.machine.subpages import store_to_subpage
from vmxemu.memory.frames import is_poisoned
from vmxemu.memory.physical import host_address
from vmxemu.outcome import DONE, FAULT, POISON, RETRY, STOPPED, fault_with, kind_of, vector_of
from vmxemu.platform.mca import log_consumption
from vmxemu.translation.layout import FETCH, IMPLICIT_SUPERVISOR, PERMIT_WRITE, WRITE
from vmxemu.translation.translate import translate

if TYPE_CHECKING:
    from vmxemu.state import State

FILL_TRANSLATION, FILL_POISON, FILL_NOWHERE = U(1), U(2), U(3)
CPL3 = U(3)
LARGEST_OPERAND = U(512)  # FXSAVE's


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
        and access & (FETCH | IMPLICIT_SUPERVISOR) == 0
        and engine.system_access & 1 == 0
    ):
        if reads_descriptor(m, gla):
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
    if memory_uses(m.r.mode, insn.opcode, insn.modrm) & STACK != 0:
        return True
    return insn.is_memory != 0 and insn.segment == SS


@kernel
def consume_poison(m: "State") -> int:
    """An access would have consumed a poisoned line: log it as software-recoverable, action required, and let the #MC arrive."""
    log_consumption(m, m.walk.hpa)
    return RETRY

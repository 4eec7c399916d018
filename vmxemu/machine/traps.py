"""From a trap to its architectural outcome. A trap is why Unicorn stopped: an interception (0x100 + SVM exit code), or one of ours.

`take` says what a trap means; `settle` carries that through to a state in which the guest can go on: faults are delivered
through the
IDT or cause VM exits, VM exits load the host state, and a host RIP at the door enters VMM1.
"""

from typing import TYPE_CHECKING

from vmxemu import report
from vmxemu.cpu import system
from vmxemu.cpu.decode import LOCK, decode
from vmxemu.cpu.delivery import deliver_once, escalate
from vmxemu.cpu.layout import ACTIVE, HF_INHIBIT_IRQ
from vmxemu.cpu.mov_cr import CLTS, GROUP_7, LMSW, MOV_FROM_CR, MOV_TO_CR, SMSW
from vmxemu.cpu.system_calls import execute_system_call
from vmxemu.engine.layout import NO_TRAP
from vmxemu.isa import exceptions, exits
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.machine import faults, io, msr
from vmxemu.machine.subpages import end_step
from vmxemu.outcome import (
    DONE,
    EPT_MISCONFIG,
    EPT_VIOLATION,
    FAULT,
    NOT_MINE,
    PML_FULL,
    POISON,
    RETRY,
    SPP_EVENT,
    STOPPED,
    TRIPLE_FAULT,
    VM_EXIT,
    detail_of,
    fault,
    fault_with,
    has_error_code,
    kind_of,
    vector_of,
    vm_exit,
)
from vmxemu.outer.dispatch import handle_exit
from vmxemu.outer.door import may_enter, note_entry, stands_at_door
from vmxemu.smm.rsm import execute_rsm
from vmxemu.timing import costs
from vmxemu.timing.clock import charge_event
from vmxemu.trace import events
from vmxemu.trace.emit import emit
from vmxemu.vmx import controls
from vmxemu.vmx import events as vmx_events
from vmxemu.vmx.control_registers import execute_guest_mov_cr
from vmxemu.vmx.ept_events import ept_event
from vmxemu.vmx.execute import execute_root
from vmxemu.vmx.exit import leave
from vmxemu.vmx.functions import switch_eptp
from vmxemu.vmx.instructions import finish_vmx
from vmxemu.vmx.intercepts import program
from vmxemu.vmx.opcodes import vmx_reason
from vmxemu.vmx.vmcs import vmcs_at

if TYPE_CHECKING:
    from vmxemu.state import State

EXCEPTION, LAST_EXCEPTION = U(0x140), U(0x15F)
INVALID_OPCODE, DEBUG = U(0x146), U(0x141)
RSM = U(0x0FAA)
SINGLE_STEP = U(1 << 14)  # BS, in DR6 and in the pending debug exceptions
DEBUG_FACTS = U(0x600F)  # of the pending debug exceptions, what delivery adds to DR6
MSR_TRAP, IO_TRAP = U(0x17C), U(0x17B)
FILL_TRAP, SYSTEM_CALL_TRAP = U(0x1000), U(0x1002)
EVENT_VALID, ERROR_VALID = U(1 << 31), U(1 << 11)
TYPE_SHIFT, HARDWARE_EXCEPTION = U(8), U(3)
# Vectors that push an error code: #DF #TS #NP #SS #GP #PF #AC #CP
WITH_ERROR_CODE = U(1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21)
STEPS = U(64)
TWO_BYTES = U(0x0F00)
OPCODE_0F01, VMLAUNCH, VMRESUME = U(0x0F01), U(0xC2), U(0xC3)
BEYOND_DOUBLE_FAULT = U(0x100)


@kernel
def take(m: "State", trap: int) -> int:
    """What the trap means for the software that runs: an outcome, not yet carried through."""
    if m.r.mode & HF_INHIBIT_IRQ == 0:
        m.cpu.sti_shadow = 0
        m.cpu.mov_ss_shadow = 0
    if trap == FILL_TRAP:
        outcome = faults.failed_fill(m)
        if m.engine.stepping != 0 and outcome != RETRY:
            end_step(m, False)
        return outcome
    if m.engine.stepping != 0 and end_step(m, trap == DEBUG):
        return RETRY
    if trap == DEBUG:
        return single_step(m)
    if EXCEPTION <= trap <= LAST_EXCEPTION and trap != INVALID_OPCODE:
        vector = trap - EXCEPTION
        if WITH_ERROR_CODE >> vector & 1 != 0:
            return fault_with(vector, m.r.error_code & 0xFFFF)
        return fault(vector)
    outcome = decode(m)
    if outcome != DONE:
        return outcome
    if m.vmx.non_root != 0:
        outcome = controls.instruction_exits(m, trap)
        if outcome != DONE:
            return outcome
    return execute(m, trap)


@kernel
def execute(m: "State", trap: int) -> int:
    """Emulate the decoded instruction at RIP."""
    if trap == IO_TRAP and m.cpu.insn.opcode < TWO_BYTES:  # else RDPKRU or WRPKRU
        return io.execute(m)
    if trap == MSR_TRAP:
        return msr.execute(m)
    if trap == SYSTEM_CALL_TRAP:
        return execute_system_call(m)
    if m.cpu.insn.opcode == RSM:
        outcome = execute_rsm(m)
        if outcome == DONE:
            program(m)
        return outcome
    if m.vmx.non_root != 0 and is_control_register_access(m):
        charge_event(m, costs.CR_WRITE)
        return execute_guest_mov_cr(m)
    if trap == INVALID_OPCODE:
        if m.vmx.non_root != 0 and vmx_reason(m) == exits.VMFUNC:
            return switch_eptp(m, vmcs_at(m.vmx.host_address))
        outcome = vmx_instruction(m) if m.vmx.non_root == 0 else NOT_MINE
        if outcome != NOT_MINE:
            return outcome
    outcome = system.emulate(m, trap)
    if outcome == RETRY and m.cpu.event_info & EVENT_VALID != 0 and m.vmx.non_root != 0:
        return software_event(m)
    return fault(exceptions.UD) if outcome == NOT_MINE else outcome


@kernel
def is_control_register_access(m: "State") -> bool:
    """MOV CR, CLTS, SMSW, LMSW: in VMX non-root operation they see masks and read shadows."""
    insn = m.cpu.insn
    if insn.prefixes & LOCK != 0:
        return False
    if insn.opcode == GROUP_7:
        which = insn.modrm >> 3 & 7
        return which == SMSW or which == LMSW
    return insn.opcode == MOV_FROM_CR or insn.opcode == MOV_TO_CR or insn.opcode == CLTS


@kernel
def single_step(m: "State") -> int:
    """An instruction retired with RFLAGS.TF set; Unicorn has noted it in DR6, where it belongs only once the #DB is delivered."""
    m.cpu.pending_debug = m.cpu.pending_debug | m.r.dr[6] & SINGLE_STEP
    m.r.dr[6] = m.r.dr[6] & ~SINGLE_STEP
    return fault(exceptions.DB)


@kernel
def software_event(m: "State") -> int:
    """INT3, INTO and INT1 in VMX non-root operation go by the exception bitmap; INT n does not."""
    cpu = m.cpu
    outcome = vmx_events.event_exits(m, cpu.event_vector, 0, cpu.event_info >> TYPE_SHIFT & 7)
    if outcome != DONE:
        cpu.event_info = 0
        return outcome
    return RETRY


@kernel
def vmx_instruction(m: "State") -> int:
    """A VMX instruction of root software; the first VM entry that names the door brings VMM1 up, in the boot phase only."""
    opcode = m.cpu.insn.opcode
    entering = opcode == OPCODE_0F01 and (m.cpu.insn.modrm == VMLAUNCH or m.cpu.insn.modrm == VMRESUME)
    if entering and m.outer.up == 0:
        refused = may_enter(m)
        if refused != DONE:
            return finish_vmx(m, m.vmx, refused)
    outcome = execute_root(m)
    if entering and m.outer.up == 0:
        note_entry(m)
    return outcome


@kernel
def settle(m: "State", outcome: int) -> int:
    """Carry an outcome through. DONE: the guest goes on; STOPPED or UNMODELLED: the run ends, m.report says why."""
    for _ in range(STEPS):
        kind = kind_of(outcome)
        if kind == DONE or kind == RETRY:
            if m.cpu.event_info & EVENT_VALID != 0:
                outcome = deliver(m)
            elif stands_at_door(m):
                outcome = handle_exit(m)
            elif m.cpu.pending_debug & SINGLE_STEP != 0 and m.r.mode & HF_INHIBIT_IRQ == 0:
                outcome = fault(exceptions.DB)
            else:
                return DONE
        elif kind == FAULT:
            outcome = raise_fault(m, outcome)
        elif kind == EPT_VIOLATION or kind == EPT_MISCONFIG or kind == PML_FULL or kind == SPP_EVENT:
            outcome = ept_event(m, kind)
        elif kind == VM_EXIT:
            outcome = leave(m, vector_of(outcome))
            m.outer.pending_exit = 1
        elif kind == TRIPLE_FAULT:
            if m.vmx.non_root == 0:
                m.report.reason = report.TRIPLE_FAULT
                return STOPPED
            m.exit.qualification = 0
            m.exit.interruption_info = 0
            outcome = vm_exit(exits.TRIPLE_FAULT)
        elif kind == POISON:
            outcome = faults.consume_poison(m)
        else:
            return outcome
    m.report.reason = report.ENGINE_ERROR
    m.report.feature = U(1)
    return STOPPED


@kernel
def deliver(m: "State") -> int:
    """Deliver the pending event through IVT or IDT; it stays pending if its delivery faults."""
    cpu = m.cpu
    info = cpu.event_info
    outcome = deliver_once(m, cpu.event_vector, info, cpu.event_error, m.r.rip + cpu.event_length)
    if outcome == DONE:
        m.engine.system_access = 0
        cpu.event_info = 0
        emit(m, events.EVENT, cpu.event_vector, cpu.event_error, info >> TYPE_SHIFT & 7, 0, 0)
    return outcome


@kernel
def raise_fault(m: "State", outcome: int) -> int:
    """A fault becomes a VM exit or the pending event; during the delivery of another exception it may become #DF or a triple
    fault."""
    cpu = m.cpu
    vector = vector_of(outcome)
    error = detail_of(outcome)
    if vector == exceptions.PF:
        cpu.event_gla = m.walk.gla
    if m.vmx.non_root != 0:
        exit_outcome = vmx_events.event_exits(m, vector, error, HARDWARE_EXCEPTION)
        if exit_outcome != DONE:
            return exit_outcome
    if cpu.event_info & EVENT_VALID != 0 and cpu.event_info >> TYPE_SHIFT & 7 == HARDWARE_EXCEPTION:
        combined = escalate(cpu.event_vector, vector)
        if combined == BEYOND_DOUBLE_FAULT:
            return TRIPLE_FAULT
        if combined == exceptions.DF and vector != exceptions.DF:
            outcome = fault_with(exceptions.DF, 0)
            vector = exceptions.DF
            error = 0
            if m.vmx.non_root != 0:
                exit_outcome = vmx_events.event_exits(m, vector, error, HARDWARE_EXCEPTION)
                if exit_outcome != DONE:
                    return exit_outcome
    if vector == exceptions.DB:
        m.r.dr[6] = m.r.dr[6] | m.cpu.pending_debug & DEBUG_FACTS
        cpu.pending_debug = 0
    cpu.activity = ACTIVE
    pend(m, vector, HARDWARE_EXCEPTION, has_error_code(outcome), error)
    return DONE


@kernel
def pend(m: "State", vector: int, kind: int, with_error: bool, error: int) -> None:
    """Make an event the pending one."""
    cpu = m.cpu
    cpu.event_vector = vector
    cpu.event_info = EVENT_VALID | kind << TYPE_SHIFT | vector | (ERROR_VALID if with_error else U(0))
    cpu.event_error = error
    cpu.event_length = 0


@kernel
def no_trap(m: "State") -> None:
    """Nothing is left to handle."""
    m.engine.trap = NO_TRAP

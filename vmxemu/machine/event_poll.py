"""Between two blocks: what has become due or deliverable, in the order of the SDM's priority table (Vol. 3A, 'Priority Among
Simultaneous Exceptions and Interrupts')."""

from typing import TYPE_CHECKING

from vmxemu import report
from vmxemu.cpu.layout import ACTIVE, HALTED, HF_INHIBIT_IRQ
from vmxemu.isa import exceptions
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.machine.traps import EVENT_VALID, pend
from vmxemu.outcome import DONE, NOT_MINE, STOPPED
from vmxemu.outer import trap as management_trap
from vmxemu.outer.lookup import frame_behind
from vmxemu.platform.interrupts import acknowledge, pending_vector
from vmxemu.platform.lapic import deliver_cmci
from vmxemu.platform.management import pending_management, take_management
from vmxemu.platform.mca import begin_machine_check
from vmxemu.platform.timers import next_due, run_due
from vmxemu.smm.entry import enter_smm
from vmxemu.timing import costs
from vmxemu.timing.clock import charge_event
from vmxemu.timing.layout import AFTER_SHADOW, ATTENTION
from vmxemu.trace import events
from vmxemu.trace.emit import emit
from vmxemu.vmx import events as vmx_events
from vmxemu.vmx import windows
from vmxemu.vmx.intercepts import program

if TYPE_CHECKING:
    from vmxemu.state import State

VM1_ADDRESS, VM2_ADDRESS = U(1 << 32), U(1 << 33)
GUEST_ADDRESS = VM1_ADDRESS | VM2_ADDRESS
NONE = U(256)
EXTERNAL_INTERRUPT, NMI_TYPE, HARDWARE_EXCEPTION = U(0), U(2), U(3)
RFLAGS_IF = U(1 << 9)


@kernel
def poll(m: "State") -> int:
    """Take the most urgent event; an outcome to settle, or NOT_MINE if nothing can be taken now."""
    m.clock.attention = 0
    if m.clock.ticks >= next_due(m):
        resolve_addresses(m)
        run_due(m)
    if m.cpu.event_info & EVENT_VALID != 0:
        return DONE
    kind = pending_management(m)
    if kind != 0:
        outcome = management(m, kind)
        if outcome != NOT_MINE:
            return outcome
    if m.vmx.non_root != 0:
        if windows.wants_attention(m):
            m.clock.attention = AFTER_SHADOW if m.r.mode & HF_INHIBIT_IRQ != 0 else ATTENTION
        outcome = windows.pending_exit(m)
        if outcome != DONE:
            return outcome
    return interrupts(m)


@kernel
def resolve_addresses(m: "State") -> None:
    """Injections that name a guest-physical address hit the frame behind it at this moment."""
    schedule = m.platform.injections
    for index in range(schedule.head, schedule.count):
        entry = schedule.entry[index]
        if entry.due > m.clock.ticks:
            return
        if entry.flags & GUEST_ADDRESS != 0 and m.outer.up != 0:
            entry.hpa = frame_behind(m, entry.hpa, entry.flags & VM2_ADDRESS != 0)
            entry.flags = entry.flags & ~GUEST_ADDRESS


@kernel
def management(m: "State", kind: int) -> int:
    """A management interrupt: to VMM1 if the software trap is armed, else the processor's own treatment."""
    if management_trap.holds(m, kind):
        return NOT_MINE
    if management_trap.armed(m):
        return management_trap.arrive(m, kind)
    if kind == events.MC:
        take_management(m, kind)
        arrived(m, kind)
        if begin_machine_check(m, m.platform.management.taken.flags) != DONE:
            m.report.reason = report.TRIPLE_FAULT
            m.report.feature = report.MACHINE_CHECK_SHUTDOWN
            return STOPPED
        charge_event(m, costs.MACHINE_CHECK)
        return exception_event(m, exceptions.MC, HARDWARE_EXCEPTION)
    if kind == events.SMI or kind == events.PMI:
        if m.cpu.in_smm != 0:
            return NOT_MINE
        take_management(m, kind)
        arrived(m, kind)
        enter_smm(m, kind)  # the save area shows whether the processor was halted
        m.cpu.activity = ACTIVE
        program(m)
        return DONE
    if kind == events.NMI:
        if windows.nmi_blocked_by_processor(m):
            if m.r.mode & HF_INHIBIT_IRQ != 0:
                m.clock.attention = AFTER_SHADOW
            return NOT_MINE
        take_management(m, kind)
        arrived(m, kind)
        return exception_event(m, exceptions.NMI, NMI_TYPE)
    if kind == events.CMCI:
        take_management(m, kind)
        arrived(m, kind)
        charge_event(m, costs.CMCI)
        deliver_cmci(m)  # an ordinary interrupt from here on
        return DONE
    return NOT_MINE


@kernel
def arrived(m: "State", kind: int) -> None:
    """Record the arrival; with the trap armed this would have been VMM1's."""
    taken = m.platform.management.taken
    emit(m, events.ARRIVAL, kind, taken.serial, taken.hpa, taken.detail, m.outer.level if m.outer.up != 0 else 0)
    if m.outer.up != 0:
        m.outer.bypasses = m.outer.bypasses + 1
        emit(m, events.BYPASS, kind, taken.serial, 0, 0, 0)


@kernel
def exception_event(m: "State", vector: int, kind: int) -> int:
    """An event without error code: a VM exit (which saves the activity state as it is), else pending for delivery."""
    if m.vmx.non_root != 0:
        outcome = vmx_events.event_exits(m, vector, 0, kind)
        if outcome != DONE:
            return outcome
    m.cpu.activity = ACTIVE
    pend(m, vector, kind, False, 0)
    return DONE


@kernel
def interrupts(m: "State") -> int:
    """The highest external interrupt, if its window is open; else ask for attention at the block where it opens."""
    vector = pending_vector(m)
    if vector == NONE:
        return NOT_MINE
    if m.cpu.activity > HALTED:
        return NOT_MINE
    if m.vmx.non_root != 0:
        outcome = vmx_events.event_exits(m, vector, 0, EXTERNAL_INTERRUPT)
        if outcome != DONE:
            if vmx_events.acknowledges(m):
                acknowledge(m)
            return outcome
    if m.r.eflags & RFLAGS_IF == 0 or m.r.mode & HF_INHIBIT_IRQ != 0:
        m.clock.attention = 1
        return NOT_MINE
    m.cpu.activity = ACTIVE
    charge_event(m, costs.INTERRUPT)
    pend(m, acknowledge(m), EXTERNAL_INTERRUPT, False, 0)
    return DONE

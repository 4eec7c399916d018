"""Management interrupts that are VMM2's: delivered exactly once, as a processor would deliver them, when VMM2 does not block
them."""

from typing import TYPE_CHECKING

from vmxemu import report
from vmxemu.isa import bits, controls, exceptions, exits, mca
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.outcome import DONE, STOPPED
from vmxemu.outer import virtual_smm
from vmxemu.outer.guest_view import VALID, set_primary, vmcs01, vmcs02, vmcs12
from vmxemu.outer.layout import VIRTUAL_EVENTS as _CAPACITY
from vmxemu.outer.reflect import reflect_event
from vmxemu.platform.lapic import deliver_cmci
from vmxemu.trace import events
from vmxemu.trace.emit import emit

if TYPE_CHECKING:
    from vmxemu.outer.layout import VirtualEvent
    from vmxemu.state import State

CAPACITY = U(_CAPACITY)
NMI_TYPE, HARDWARE_TYPE = U(2 << 8), U(3 << 8)
NMI_BLOCKING, STI_BLOCKING, MOV_SS_BLOCKING = U(8), U(1), U(2)
TYPE_MASK = U(7 << 8)
NMI_PINS = controls.PIN_NMI | controls.PIN_VIRTUAL_NMI
CMCI_ENABLE = mca.CTL2_CMCI_EN
LEVEL_2 = U(2)
BLOCKED, DELIVERED, SHUTS_DOWN = U(0), U(1), U(2)


@kernel
def queue(m: "State", kind: int, serial: int, gpa1: int, detail: int, flags: int) -> bool:
    """Put one into the line; False if the line is full."""
    outer = m.outer
    if outer.waiting_count >= CAPACITY:
        return False
    entry = outer.waiting[outer.waiting_count]
    entry.kind = kind
    entry.serial = serial
    entry.gpa1 = gpa1
    entry.detail = detail
    entry.flags = flags
    entry.deferred = 0
    outer.waiting_count = outer.waiting_count + 1
    return True


@kernel
def deliver_waiting(m: "State") -> int:
    """Deliver what can be delivered now; for the rest ask for an exit when VMM2's blocking ends. STOPPED if the virtual
    machine shuts down."""
    outer = m.outer
    index = U(0)
    while index < outer.waiting_count:
        entry = outer.waiting[index]
        result = deliver(m, entry)
        if result == SHUTS_DOWN:
            m.report.reason = report.TRIPLE_FAULT
            m.report.feature = report.MACHINE_CHECK_SHUTDOWN
            return STOPPED
        if result == DELIVERED:
            outer.delivered[entry.kind] = outer.delivered[entry.kind] + 1
            emit(m, events.DELIVERY, entry.kind, entry.serial, entry.gpa1, entry.deferred, 0)
            remove(m, index)
        else:
            entry.deferred = 1
            index = index + 1
    ask_for_window(m)
    return DONE


@kernel
def ask_for_window(m: "State") -> None:
    """An exit as soon as NMIs are open again, if that is what something waits for; RSM and a write to IA32_MCG_STATUS exit
    anyway."""
    outer = m.outer
    in_vm2 = outer.level == LEVEL_2
    v = vmcs02(m) if in_vm2 else vmcs01(m)
    wanted = False
    for index in range(outer.waiting_count):
        entry = outer.waiting[index]
        if outer.virtual_smm == 0 and (entry.kind == events.NMI or v.vm_entry_intr_info_field & VALID != 0):
            wanted = True
    own_pin, own_window = outer.pins01, U(0)
    if in_vm2:
        own_pin = vmcs12(m).pin_based_vm_exec_control & NMI_PINS
        own_window = vmcs12(m).cpu_based_vm_exec_control & controls.CPU_NMI_WINDOW
    injected = v.vm_entry_intr_info_field & (VALID | TYPE_MASK) == VALID | NMI_TYPE
    if wanted and injected and v.guest_interruptibility_info & NMI_BLOCKING != 0:
        wanted = False  # an NMI injected over NMI blocking: legal only without virtual NMIs, and so without an NMI window
    # NMIs are VMM1's whatever the pin-based controls say; these two make blocking by NMI that of virtual NMIs, as the window needs.
    v.pin_based_vm_exec_control = v.pin_based_vm_exec_control & ~NMI_PINS | (NMI_PINS if wanted else own_pin)
    set_primary(v, controls.CPU_NMI_WINDOW, wanted or own_window != 0)


@kernel
def remove(m: "State", index: int) -> None:
    """Take one out of the line."""
    outer = m.outer
    for position in range(index + 1, outer.waiting_count):
        target = outer.waiting[position - 1]
        source = outer.waiting[position]
        target.kind = source.kind
        target.serial = source.serial
        target.gpa1 = source.gpa1
        target.detail = source.detail
        target.flags = source.flags
        target.deferred = source.deferred
    outer.waiting_count = outer.waiting_count - 1


@kernel
def deliver(m: "State", entry: "VirtualEvent") -> int:
    """Deliver one; BLOCKED if VMM2 blocks it or another event is about to be injected."""
    outer = m.outer
    if entry.kind == events.CMCI:
        if outer.mca.bank[entry.detail].control2 & CMCI_ENABLE != 0:
            deliver_cmci(m)  # else the record in the bank is all that a processor would give
        return DELIVERED
    v = vmcs02(m) if outer.level == LEVEL_2 else vmcs01(m)
    if v.vm_entry_intr_info_field & VALID != 0:
        return BLOCKED
    if entry.kind == events.SMI or entry.kind == events.PMI:
        if outer.virtual_smm != 0:
            return BLOCKED
        virtual_smm.enter(m, entry.detail)
        return DELIVERED
    if entry.kind == events.NMI:
        return deliver_nmi(m)
    return deliver_machine_check(m, entry)


@kernel
def deliver_nmi(m: "State") -> int:
    """A virtual NMI: to VMM2 as an exit of VM2 if it asked for that, else injected. Blocking by STI does not stop it."""
    outer = m.outer
    if outer.virtual_smm != 0:
        return BLOCKED
    in_vm2 = outer.level == LEVEL_2
    v = vmcs02(m) if in_vm2 else vmcs01(m)
    blocking = v.guest_interruptibility_info
    if in_vm2 and vmcs12(m).pin_based_vm_exec_control & controls.PIN_NMI != 0:
        if vmcs12(m).pin_based_vm_exec_control & controls.PIN_VIRTUAL_NMI != 0:
            blocking = blocking & ~NMI_BLOCKING
        if blocking & (NMI_BLOCKING | MOV_SS_BLOCKING) != 0:
            return BLOCKED
        reflect_event(m, exits.EXCEPTION_NMI, VALID | NMI_TYPE | exceptions.NMI)
        return DELIVERED
    if blocking & (NMI_BLOCKING | MOV_SS_BLOCKING) != 0:
        return BLOCKED
    v.guest_interruptibility_info = blocking & ~STI_BLOCKING
    v.vm_entry_intr_info_field = VALID | NMI_TYPE | exceptions.NMI
    v.guest_activity_state = 0
    return DELIVERED


@kernel
def deliver_machine_check(m: "State", entry: "VirtualEvent") -> int:
    """A virtual #MC; its record is already in the virtual bank.

    With CR4.MCE clear the processor shuts down. With one in progress, or in SMM, it would too; VMM1 rather keeps back what can
    wait, but
    the consumer of bad data cannot go on.
    """
    outer = m.outer
    v = vmcs02(m) if outer.level == LEVEL_2 else vmcs01(m)
    if outer.mca.status & mca.MCG_STATUS_MCIP != 0 or outer.virtual_smm != 0:
        return SHUTS_DOWN if entry.flags & mca.MCG_STATUS_EIPV != 0 else BLOCKED
    if v.guest_cr4 & bits.CR4_MCE == 0:
        return SHUTS_DOWN
    outer.mca.status = mca.MCG_STATUS_MCIP | entry.flags & (mca.MCG_STATUS_RIPV | mca.MCG_STATUS_EIPV)
    if outer.level == LEVEL_2:
        if vmcs12(m).exception_bitmap >> exceptions.MC & 1 != 0:
            reflect_event(m, exits.EXCEPTION_NMI, VALID | HARDWARE_TYPE | exceptions.MC)
            return DELIVERED
    v.vm_entry_intr_info_field = VALID | HARDWARE_TYPE | exceptions.MC
    v.guest_activity_state = 0
    return DELIVERED

"""Management interrupts that are VMM2's: delivered exactly once, as a processor would deliver them, when VMM2 does not block them."""

from typing import TYPE_CHECKING

from vmxemu.isa import bits, controls, exceptions, exits, mca
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
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
LEVEL_2 = U(2)


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
def deliver_waiting(m: "State") -> None:
    """Deliver what can be delivered now; for the rest ask for an exit when VMM2's blocking ends."""
    outer = m.outer
    index = U(0)
    while index < outer.waiting_count:
        entry = outer.waiting[index]
        if deliver(m, entry):
            outer.delivered[entry.kind] = outer.delivered[entry.kind] + 1
            emit(m, events.DELIVERY, entry.kind, entry.serial, entry.gpa1, entry.deferred, 0)
            remove(m, index)
        else:
            entry.deferred = 1
            index = index + 1
    v = vmcs01(m)
    set_primary(v, controls.CPU_NMI_WINDOW, outer.waiting_count != 0 and v.pin_based_vm_exec_control & controls.PIN_VIRTUAL_NMI != 0)


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
def deliver(m: "State", entry: "VirtualEvent") -> bool:
    """Deliver one; False if VMM2 blocks it or another event is about to be injected."""
    outer = m.outer
    if entry.kind == events.CMCI:
        deliver_cmci(m)
        return True
    v = vmcs02(m) if outer.level == LEVEL_2 else vmcs01(m)
    if v.vm_entry_intr_info_field & VALID != 0:
        return False
    if entry.kind == events.SMI or entry.kind == events.PMI:
        if outer.virtual_smm != 0:
            return False
        virtual_smm.enter(m, entry.detail)
        return True
    if entry.kind == events.NMI:
        return deliver_nmi(m)
    return deliver_machine_check(m, entry)


@kernel
def deliver_nmi(m: "State") -> bool:
    """A virtual NMI: to VMM2 as an exit of VM2 if it asked for that, else injected."""
    outer = m.outer
    if outer.level == LEVEL_2:
        if vmcs12(m).pin_based_vm_exec_control & controls.PIN_NMI != 0:
            reflect_event(m, exits.EXCEPTION_NMI, VALID | NMI_TYPE | exceptions.NMI)
            return True
        v = vmcs02(m)
    else:
        v = vmcs01(m)
    if v.guest_interruptibility_info & (NMI_BLOCKING | STI_BLOCKING | MOV_SS_BLOCKING) != 0 or outer.virtual_smm != 0:
        return False
    v.vm_entry_intr_info_field = VALID | NMI_TYPE | exceptions.NMI
    v.guest_activity_state = 0
    return True


@kernel
def deliver_machine_check(m: "State", entry: "VirtualEvent") -> bool:
    """A virtual #MC; its record is already in the virtual bank. With one in progress, or CR4.MCE clear, hardware would shut down."""
    outer = m.outer
    if outer.mca.status & mca.MCG_STATUS_MCIP != 0 or outer.virtual_smm != 0:
        return False
    outer.mca.status = mca.MCG_STATUS_MCIP | entry.flags & (mca.MCG_STATUS_RIPV | mca.MCG_STATUS_EIPV)
    if outer.level == LEVEL_2:
        if vmcs12(m).exception_bitmap >> exceptions.MC & 1 != 0:
            reflect_event(m, exits.EXCEPTION_NMI, VALID | HARDWARE_TYPE | exceptions.MC)
            return True
        v = vmcs02(m)
    else:
        v = vmcs01(m)
    v.vm_entry_intr_info_field = VALID | HARDWARE_TYPE | exceptions.MC
    v.guest_activity_state = 0
    return True


@kernel
def machine_checks_enabled(m: "State") -> bool:
    """Whether VMM2 has set CR4.MCE."""
    return vmcs01(m).guest_cr4 & bits.CR4_MCE != 0



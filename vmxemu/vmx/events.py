"""Which events exit in VMX non-root operation. SDM Vol. 3C, 'Other Causes of VM Exits', 'Information for VM Exits Due
to Vectored Events'."""

from typing import TYPE_CHECKING

from vmxemu.cpu.nmi import unblocked_by_iret
from vmxemu.isa import bits, controls, exceptions, exits
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.outcome import DONE, vm_exit
from vmxemu.vmx import event
from vmxemu.vmx.qualification import clear_exit
from vmxemu.vmx.vmcs import vmcs_at

if TYPE_CHECKING:
    from vmxemu.state import State
    from vmxemu.vmx.vmcs import Vmcs

TRIPLE_FAULT_VECTOR = U(0x100)  # as cpu.delivery.escalate says it
DEBUG_FACTS = U(0x600F)  # B3:B0, BD, BS of DR6


@kernel
def page_fault_matches(v: "Vmcs", error_code: int) -> bool:
    """Whether #PF with this error code exits: bit 14 of the exception bitmap, inverted where mask and match
    disagree."""
    wanted = v.exception_bitmap >> exceptions.PF & 1
    agree = 1 if error_code & v.page_fault_error_code_mask == v.page_fault_error_code_match else 0
    return wanted == agree


@kernel
def exception_exits(v: "Vmcs", vector: int, error_code: int) -> bool:
    """Whether these controls make a hardware or software exception exit."""
    return page_fault_matches(v, error_code) if vector == exceptions.PF else v.exception_bitmap >> vector & 1 != 0


@kernel
def wants_event(v: "Vmcs", vector: int, error_code: int, kind: int) -> bool:
    """Whether these controls make an event of type `kind` (vmx.event) exit."""
    if vector >= TRIPLE_FAULT_VECTOR:
        return True
    if kind == event.EXTERNAL_TYPE:
        return v.pin_based_vm_exec_control & controls.PIN_EXTERNAL_INTERRUPT != 0
    if kind == event.NMI_TYPE:
        return v.pin_based_vm_exec_control & controls.PIN_NMI != 0
    if kind == event.SOFTWARE_TYPE:
        return False
    return exception_exits(v, vector, error_code)


@kernel
def acknowledges(m: "State") -> bool:
    """Whether an exit by external interrupt acknowledges it: only then may its vector be taken from the interrupt
    controller."""
    return vmcs_at(m.vmx.host_address).vm_exit_controls & controls.EXIT_ACK_INTERRUPT != 0


@kernel
def external_interrupt_exits(m: "State") -> int:
    """In VMX non-root operation: vm_exit(EXTERNAL_INTERRUPT), or DONE if external interrupts are the guest's.

    If `acknowledges(m)`, the caller then takes the vector from the interrupt controller and calls record_interrupt.
    """
    if vmcs_at(m.vmx.host_address).pin_based_vm_exec_control & controls.PIN_EXTERNAL_INTERRUPT == 0:
        return DONE
    clear_exit(m)
    return vm_exit(exits.EXTERNAL_INTERRUPT)


@kernel
def record_interrupt(m: "State", vector: int) -> None:
    """The vector of an acknowledged external interrupt, for the exit in preparation."""
    m.exit.interruption_info = event.INFO_VALID | vector


@kernel
def _has_error_code(m: "State", vector: int, kind: int) -> bool:
    return (
        kind == event.HARDWARE_TYPE
        and exceptions.WITH_ERROR_CODE_MASK >> vector & 1 != 0
        and m.r.cr[0] & bits.CR0_PE != 0
    )


@kernel
def _describe(m: "State", vector: int, error_code: int, kind: int) -> None:
    what = m.exit
    what.interruption_info = event.INFO_VALID | kind << 8 | vector
    if _has_error_code(m, vector, kind):
        what.interruption_info = what.interruption_info | event.INFO_ERROR_CODE
        what.interruption_error = error_code
    if kind == event.HARDWARE_TYPE and vector != exceptions.DF and unblocked_by_iret(m):
        what.interruption_info = what.interruption_info | event.INFO_NMI_UNBLOCKING
    if kind == event.HARDWARE_TYPE and vector == exceptions.PF:
        what.qualification = m.walk.gla
    elif vector == exceptions.DB and kind != event.EXTERNAL_TYPE:
        pending = m.cpu.pending_debug & DEBUG_FACTS
        what.qualification = pending if pending != 0 else m.r.dr[6] & DEBUG_FACTS
    if kind >= event.SOFTWARE_TYPE:
        what.instruction_length = m.cpu.insn.length


@kernel
def event_exits(m: "State", vector: int, error_code: int, kind: int) -> int:
    """In VMX non-root operation: vm_exit(reason) with `m.exit` filled if the event exits, DONE if it is to be
    delivered.

    `kind` is the interruption type of vmx.event; vector 100H stands for a triple fault. For #PF the linear address is
    in
    m.walk.gla; for #DB the facts are in m.cpu.pending_debug, else in DR6. Without "acknowledge interrupt on exit" the
    vector of an
    external interrupt is not looked at.
    """
    if not wants_event(vmcs_at(m.vmx.host_address), vector, error_code, kind):
        return DONE
    clear_exit(m)
    if vector >= TRIPLE_FAULT_VECTOR:
        return vm_exit(exits.TRIPLE_FAULT)
    if kind == event.EXTERNAL_TYPE:
        if acknowledges(m):
            m.exit.interruption_info = event.INFO_VALID | vector
        return vm_exit(exits.EXTERNAL_INTERRUPT)
    _describe(m, vector, error_code, kind)
    return vm_exit(exits.EXCEPTION_NMI)

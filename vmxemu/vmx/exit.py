"""VM exit: exit information, guest state saved, host state loaded. SDM Vol. 3C, 'VM Exits'."""

from typing import TYPE_CHECKING

from vmxemu.isa import controls, exceptions, exits
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.outcome import DONE, UNMODELLED
from vmxemu.report import UNMODELLED_FEATURE, VMX_ABORT
from vmxemu.timing.clock import charge_event
from vmxemu.timing.costs import VM_EXIT as VM_EXIT_COST
from vmxemu.trace.emit import emit, level_of
from vmxemu.trace.events import VM_EXIT as VM_EXIT_EVENT
from vmxemu.translation.invalidate import on_vm_transition
from vmxemu.vmx import event
from vmxemu.vmx.guest_state import save_guest_state
from vmxemu.vmx.host_state import load_host_state
from vmxemu.vmx.intercepts import program
from vmxemu.vmx.msr_lists import load_list, store_list
from vmxemu.vmx.qualification import clear_exit
from vmxemu.vmx.vmcs import vmcs_at

if TYPE_CHECKING:
    from vmxemu.state import State
    from vmxemu.vmx.vmcs import Vmcs

ENTRY_FAILURE = U(1 << 31)
ABORT_SAVING_MSRS, ABORT_HOST_PDPTES, ABORT_LOADING_MSRS = U(1), U(2), U(4)  # VMX-abort indicators
LEVELS, REASONS_PER_LEVEL = U(3), U(96)
VECTOR_AND_TYPE = U(0x7FF)


@kernel
def _abort(m: "State", v: "Vmcs", indicator: int) -> int:
    """VMX abort: the processor shuts down."""
    v.abort_indicator = indicator
    m.report.reason = UNMODELLED_FEATURE
    m.report.feature = VMX_ABORT
    m.report.value = indicator
    m.report.where = m.vmx.current
    return UNMODELLED


@kernel
def _during_delivery(m: "State", reason: int) -> bool:
    """Whether the exit counts as occurring while an event was delivered through the IDT."""
    if m.cpu.event_info & event.INFO_VALID == 0 or reason == exits.TRIPLE_FAULT:
        return False
    double_fault = event.HARDWARE_TYPE << 8 | exceptions.DF
    return reason != exits.EXCEPTION_NMI or m.exit.interruption_info & VECTOR_AND_TYPE != double_fault


@kernel
def _record_vectoring(m: "State", v: "Vmcs", reason: int) -> None:
    v.idt_vectoring_info_field = 0
    v.idt_vectoring_error_code = 0
    if not _during_delivery(m, reason):
        return
    info = m.cpu.event_info & event.INFO_KEPT
    v.idt_vectoring_info_field = info
    if info & event.INFO_ERROR_CODE != 0:
        v.idt_vectoring_error_code = m.cpu.event_error
    if (info >> 8 & 7) >= event.SOFTWARE_TYPE:
        v.vm_exit_instruction_len = m.cpu.event_length


@kernel
def _record_information(m: "State", v: "Vmcs", reason: int) -> None:
    what = m.exit
    v.vm_exit_reason = reason
    v.exit_qualification = what.qualification
    v.vm_exit_intr_info = what.interruption_info
    v.vm_exit_intr_error_code = what.interruption_error
    v.vm_exit_instruction_len = what.instruction_length
    v.vmx_instruction_info = what.instruction_info
    v.guest_linear_address = what.guest_linear
    v.guest_physical_address = what.guest_physical
    _record_vectoring(m, v, reason)
    v.vm_entry_intr_info_field = v.vm_entry_intr_info_field & ~event.INFO_VALID


@kernel
def count_exit(m: "State", reason: int) -> None:
    """Statistics, trace and time of an exit from the world that runs now."""
    slot = level_of(m) * REASONS_PER_LEVEL + reason
    if slot < LEVELS * REASONS_PER_LEVEL:
        m.report.level_exits[slot] = m.report.level_exits[slot] + 1
    what = m.exit
    emit(
        m,
        VM_EXIT_EVENT,
        reason,
        what.qualification,
        what.guest_physical,
        what.interruption_info,
        what.instruction_length,
    )
    charge_event(m, VM_EXIT_COST)


@kernel
def _block_nmis(m: "State", v: "Vmcs", reason: int) -> None:
    """NMI blocking after the exit: in effect if an NMI caused it; else as it was, virtual-NMI blocking left out."""
    by_nmi = reason == exits.EXCEPTION_NMI and (m.exit.interruption_info >> 8 & 7) == event.NMI_TYPE
    if by_nmi:
        m.cpu.nmi_blocked = 1
    elif v.pin_based_vm_exec_control & controls.PIN_VIRTUAL_NMI != 0:
        m.cpu.nmi_blocked = 0


@kernel
def _enter_host(m: "State", v: "Vmcs") -> int:
    """What ordinary exits and failed entries share: host state, MSR-load area, the change of world."""
    m.vmx.non_root = 0
    m.vmx.preemption_deadline = 0
    m.vmx.mtf_pending = 0
    m.vmx.tsc_offset = 0
    m.cpu.event_info = 0
    if load_host_state(m, v) != DONE:
        return _abort(m, v, ABORT_HOST_PDPTES)
    if load_list(m, v.vm_exit_msr_load_count, v.vm_exit_msr_load_addr) != 0:
        return _abort(m, v, ABORT_LOADING_MSRS)
    on_vm_transition(m)
    program(m)
    clear_exit(m)
    return DONE


@kernel
def leave(m: "State", reason: int) -> int:
    """VM exit from the current VMCS's guest for a basic reason; `m.exit` holds the rest. Outcomes: DONE (the host's
    RIP is
    loaded), or UNMODELLED for a VMX abort."""
    v = vmcs_at(m.vmx.host_address)
    count_exit(m, reason)
    _record_information(m, v, reason)
    save_guest_state(m, v, reason)
    _block_nmis(m, v, reason)
    if store_list(m, v.vm_exit_msr_store_count, v.vm_exit_msr_store_addr) != 0:
        return _abort(m, v, ABORT_SAVING_MSRS)
    return _enter_host(m, v)


@kernel
def fail_entry(m: "State", reason: int, qualification: int) -> int:
    """A VM entry that fails while loading guest state: reason and qualification are all that is recorded, then host
    state."""
    v = vmcs_at(m.vmx.host_address)
    v.vm_exit_reason = reason | ENTRY_FAILURE
    v.exit_qualification = qualification
    clear_exit(m)
    m.exit.qualification = qualification
    count_exit(m, reason)
    return _enter_host(m, v)

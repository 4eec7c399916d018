"""VM entry: the checks in order, guest state, MSRs, and the event to inject. SDM Vol. 3C, 'VM Entries'."""

from typing import TYPE_CHECKING

from vmxemu.cpu.layout import ACTIVE, HF_INHIBIT_IRQ
from vmxemu.isa import bits, controls, errors, exits
from vmxemu.jit import kernel
from vmxemu.outcome import DONE, vmfail
from vmxemu.timing.clock import charge_event
from vmxemu.timing.costs import VM_ENTRY as VM_ENTRY_COST
from vmxemu.trace.emit import emit
from vmxemu.trace.events import VM_ENTRY as VM_ENTRY_EVENT
from vmxemu.translation.invalidate import on_vm_transition
from vmxemu.vmx import event
from vmxemu.vmx.checks_controls import check_controls
from vmxemu.vmx.checks_guest import check_guest, qualification_of
from vmxemu.vmx.checks_host import check_host
from vmxemu.vmx.exit import fail_entry
from vmxemu.vmx.guest_state import load_guest_state
from vmxemu.vmx.intercepts import program
from vmxemu.vmx.msr_lists import load_list
from vmxemu.vmx.preemption import arm_timer
from vmxemu.vmx.vmcs import CLEAR, LAUNCHED, SHADOW_INDICATOR, vmcs_at

if TYPE_CHECKING:
    from vmxemu.state import State
    from vmxemu.vmx.layout import Vmx
    from vmxemu.vmx.vmcs import Vmcs

WATCHED = controls.CPU_INTERRUPT_WINDOW | controls.CPU_NMI_WINDOW | controls.CPU_MTF


@kernel
def blocked_by_mov_ss(m: "State") -> bool:
    """Whether the instruction before was MOV SS or POP SS (Unicorn keeps one bit for it and STI: STI leaves IF set)."""
    if m.r.mode & HF_INHIBIT_IRQ == 0:
        return False
    return m.cpu.mov_ss_shadow != 0 or m.cpu.sti_shadow == 0 and m.r.eflags & bits.RFLAGS_IF == 0


@kernel
def launch_fails(m: "State", vmx: "Vmx", launch: int) -> int:
    """VMLAUNCH's (`launch` = 1) and VMRESUME's checks before they look at the fields: DONE or vmfail."""
    if vmx.host_address == 0:
        return vmfail(0)
    v = vmcs_at(vmx.host_address)
    if v.revision & SHADOW_INDICATOR != 0:
        return vmfail(0)
    if blocked_by_mov_ss(m):
        return vmfail(errors.ENTRY_EVENTS_BLOCKED_BY_MOV_SS)
    if launch != 0:
        return vmfail(errors.VMLAUNCH_NONCLEAR_VMCS) if v.launch_state != CLEAR else DONE
    return vmfail(errors.VMRESUME_NONLAUNCHED_VMCS) if v.launch_state != LAUNCHED else DONE


@kernel
def _inject(m: "State", v: "Vmcs") -> None:
    """Put the event of the entry into `m.cpu.event_*`, where the machine finds and delivers it."""
    info = v.vm_entry_intr_info_field
    m.cpu.event_info = 0
    if info & event.INFO_VALID == 0:
        return
    kind = info >> 8 & 7
    if kind == event.OTHER_TYPE:
        m.vmx.mtf_pending = 1
        return
    m.cpu.event_info = info & event.INFO_KEPT
    m.cpu.event_vector = info & 0xFF
    m.cpu.event_error = v.vm_entry_exception_error_code if info & event.INFO_ERROR_CODE != 0 else 0
    m.cpu.event_length = v.vm_entry_instruction_len if kind >= event.SOFTWARE_TYPE else 0
    m.cpu.event_gla = m.r.cr[2]  # an injected #PF leaves CR2 as it is
    m.cpu.activity = ACTIVE
    if kind == event.NMI_TYPE:
        m.cpu.nmi_blocked = 1


@kernel
def resume_guest(m: "State", v: "Vmcs") -> int:
    """VM entry after the checks: load guest state and MSRs, inject, change the world. DONE, or as fail_entry."""
    load_guest_state(m, v)
    failed = load_list(m, v.vm_entry_msr_load_count, v.vm_entry_msr_load_addr)
    if failed != 0:
        return fail_entry(m, exits.ENTRY_FAIL_MSR_LOADING, failed)
    v.launch_state = LAUNCHED
    m.vmx.tsc_offset = v.tsc_offset if v.cpu_based_vm_exec_control & controls.CPU_TSC_OFFSETTING != 0 else 0
    m.vmx.non_root = 1
    m.vmx.mtf_pending = 0
    arm_timer(m, v)
    _inject(m, v)
    if v.cpu_based_vm_exec_control & WATCHED != 0:
        m.clock.attention = 1
    on_vm_transition(m)
    program(m)
    emit(m, VM_ENTRY_EVENT, 0, m.vmx.current, v.vm_entry_intr_info_field, 0, 0)
    return DONE


@kernel
def enter(m: "State", launch: int) -> int:
    """VMLAUNCH (`launch` = 1) or VMRESUME of the current VMCS.

    DONE: the guest's state, or after a failed entry the host's, is loaded, RIP included. vmfail: nothing has changed.
    """
    outcome = launch_fails(m, m.vmx, launch)
    if outcome != DONE:
        return outcome
    v = vmcs_at(m.vmx.host_address)
    m.vmx.failed_check = check_controls(m, m.vmx, v)
    if m.vmx.failed_check != 0:
        return vmfail(errors.ENTRY_INVALID_CONTROL_FIELDS)
    m.vmx.failed_check = check_host(m, v)
    if m.vmx.failed_check != 0:
        return vmfail(errors.ENTRY_INVALID_HOST_STATE_FIELDS)
    charge_event(m, VM_ENTRY_COST)
    m.vmx.failed_check = check_guest(m, v)
    if m.vmx.failed_check != 0:
        return fail_entry(m, exits.ENTRY_FAIL_GUEST_STATE, qualification_of(m.vmx.failed_check))
    return resume_guest(m, v)

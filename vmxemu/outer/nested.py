"""VMX instructions of VMM2: each exits to VMM1, which does to VMM2's virtual processor what the instruction does to a real one."""

from typing import TYPE_CHECKING

from vmxemu.isa import bits, controls, errors, exceptions, exits
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.outcome import DONE, EPT_MISCONFIG, EPT_VIOLATION, FAULT, fault, kind_of, vmfail
from vmxemu.outer.ept02 import drop_all
from vmxemu.outer.guest_view import as_guest, as_host, host_of, inject, load_pdptes, make_current, vmcs01, vmcs02, vmcs12
from vmxemu.outer.merge import enter_vm2
from vmxemu.outer.msr_lists import switch_to_vm1
from vmxemu.outer.reflect import load_host
from vmxemu.trace import events
from vmxemu.trace.emit import emit
from vmxemu.translation.invalidate import invvpid
from vmxemu.vmx import instructions as vmx
from vmxemu.vmx import reasons
from vmxemu.vmx.checks_controls import check_controls, secondary_controls
from vmxemu.vmx.checks_guest import check_guest_but_link, check_link_pointer, check_pdptes, qualification_of, uses_pdptes
from vmxemu.vmx.checks_host import check_host_of
from vmxemu.vmx.entry import launch_fails
from vmxemu.vmx.execute import apply, fetch_operand, may_execute, takes_pointer
from vmxemu.vmx.operands import read_register
from vmxemu.vmx.vmcs import LAUNCHED, Vmcs

if TYPE_CHECKING:
    from vmxemu.state import State

ENTRY_FAILURE = U(1 << 31)
SINGLE_CONTEXT = U(1)
NMI_BLOCKING = U(8)
CR0_MODE = bits.CR0_PE | bits.CR0_PG


@kernel
def emulate(m: "State", reason: int) -> int:
    """Emulate the VMX instruction that exited with `reason`. DONE; or EPT_VIOLATION if its operand has no memory behind it
    (m.walk)."""
    v01 = vmcs01(m)
    nested = m.outer.nested
    as_guest(m, v01)
    outcome = perform(m, reason)
    launches = reason == exits.VMLAUNCH or reason == exits.VMRESUME
    kind = kind_of(outcome)
    if kind == EPT_VIOLATION or kind == EPT_MISCONFIG:
        as_host(m, v01)
        return outcome
    operand = nested.current
    entering = launches and outcome == DONE
    if not entering:
        outcome = vmx.finish_vmx(m, nested, outcome)
    emit(m, events.NESTED, reason, outcome, operand, 0, 0)
    as_host(m, v01)
    if kind_of(outcome) == FAULT:
        inject(m, v01, outcome)
    elif entering:
        launch(m)
    return DONE


@kernel
def perform(m: "State", reason: int) -> int:
    """The instruction's own outcome, as on a processor whose VMX state is VMM2's; the guest state of VM1 is on the processor."""
    nested = m.outer.nested
    if m.outer.virtual_smm != 0:
        return fault(exceptions.UD)  # SMM is outside VMX operation, and CR4.VMXE cannot be set there
    cr4 = m.r.cr[4] & ~bits.CR4_VMXE | (bits.CR4_VMXE if m.outer.vmxe != 0 else U(0))
    outcome = may_execute(m, nested, reason, m.r.cr[0], cr4)
    if outcome != DONE:
        return outcome
    if reason == exits.VMLAUNCH or reason == exits.VMRESUME:
        return check_entry(m, U(1) if reason == exits.VMLAUNCH else U(0))
    outcome = fetch_operand(m, nested, reason)
    if outcome != DONE:
        return outcome
    if reason == exits.INVEPT or reason == exits.INVVPID:
        return invalidate(m, reason)
    host = host_of(m, nested.operand_low) if takes_pointer(reason) else U(0)
    outcome = apply(m, nested, reason, host)
    if outcome == DONE and (reason == exits.VMXON or reason == exits.VMXOFF):
        fix_cr0(m, reason == exits.VMXON)
    if reason == exits.VMXON and outcome == DONE:
        emit(m, events.PHASE, events.PHASE_VMM2_VMXON, 0, 0, 0, 0)
    return outcome


@kernel
def fix_cr0(m: "State", fixed: bool) -> None:
    """In VMX operation CR0.PE and CR0.PG cannot be cleared: VMM1 looks at attempts while VMM2 is in it."""
    v01 = vmcs01(m)
    if fixed:
        v01.cr0_guest_host_mask = v01.cr0_guest_host_mask | CR0_MODE
        v01.cr0_read_shadow = v01.cr0_read_shadow & ~CR0_MODE | m.r.cr[0] & CR0_MODE
    else:
        v01.cr0_guest_host_mask = v01.cr0_guest_host_mask & ~CR0_MODE


@kernel
def invalidate(m: "State", reason: int) -> int:
    """INVEPT drops what is derived from EPT12; INVVPID flushes VM2's one VPID, whichever was named."""
    nested = m.outer.nested
    kind = read_register(m, m.cpu.insn.register)
    if reason == exits.INVEPT:
        outcome = vmx.invept_allowed(m, nested, kind)
        if outcome == DONE:
            drop_all(m)
        return outcome
    outcome = vmx.invvpid_allowed(m, nested, kind)
    if outcome == DONE:
        invvpid(m, SINGLE_CONTEXT, m.outer.vpid02, 0)
    return outcome


@kernel
def check_entry(m: "State", launching: int) -> int:
    """VMLAUNCH's and VMRESUME's checks up to the host state, which end in VMfail."""
    nested = m.outer.nested
    outcome = launch_fails(m, nested, launching)
    if outcome != DONE:
        return outcome
    v12 = vmcs12(m)
    nested.failed_check = check_controls(m, nested, v12)
    if nested.failed_check != 0:
        return vmfail(errors.ENTRY_INVALID_CONTROL_FIELDS)
    nested.failed_check = check_host_of(m, v12, m.r.efer & bits.EFER_LMA)
    if nested.failed_check != 0:
        return vmfail(errors.ENTRY_INVALID_HOST_STATE_FIELDS)
    return DONE


@kernel
def launch(m: "State") -> None:
    """The entry itself: VM2 runs next; or, if its guest state is bad, VM1 goes on at VMCS12's host state with the reason there."""
    nested = m.outer.nested
    v12 = vmcs12(m)
    v01 = vmcs01(m)
    failed = check_guest_but_link(m, v12)
    if failed == 0:
        failed = check_link_pointer(m, v12, host_of(m, v12.vmcs_link_pointer), nested.current)
    if failed == 0:
        failed = pdptes_bad(m, v12)
    if failed != 0:
        nested.failed_check = failed
        fail(m, exits.ENTRY_FAIL_GUEST_STATE, qualification_of(failed), v01.guest_interruptibility_info & NMI_BLOCKING)
        return
    nested.launched_entry = v12.launch_state
    v12.launch_state = LAUNCHED
    if m.outer.nested_launches == 0:
        emit(m, events.PHASE, events.PHASE_VM2_LAUNCH, 0, 0, 0, 0)
    m.outer.nested_launches = m.outer.nested_launches + 1
    enter_vm2(m)


@kernel
def pdptes_bad(m: "State", v12: Vmcs) -> int:
    """The check of the PDPTEs; without EPT12 they are in VM1's memory."""
    if secondary_controls(v12) & controls.SECONDARY_EPT != 0 or not uses_pdptes(v12):
        return check_pdptes(m, v12)
    return U(0) if load_pdptes(m, vmcs02(m), v12.guest_cr3) else reasons.GUEST_PDPTE


@kernel
def fail_msr_load(m: "State", number: int) -> None:
    """Loading VM2's MSRs failed at that entry of the area: hardware found it when VMCS02 was entered."""
    v12, v02, v01 = vmcs12(m), vmcs02(m), vmcs01(m)
    v12.launch_state = m.outer.nested.launched_entry
    v01.guest_ia32_efer = v02.guest_ia32_efer
    v01.guest_ia32_pat = v02.guest_ia32_pat
    make_current(m, m.outer.vmcs01, 1)
    fail(m, exits.ENTRY_FAIL_MSR_LOADING, number, v02.guest_interruptibility_info & NMI_BLOCKING)


@kernel
def fail(m: "State", reason: int, qualification: int, nmi_blocking: int) -> None:
    """A VM entry of VMM2 that fails while loading guest state."""
    v12, v01 = vmcs12(m), vmcs01(m)
    v12.vm_exit_reason = reason | ENTRY_FAILURE
    v12.exit_qualification = qualification
    load_host(m, v01, v12)
    v01.guest_interruptibility_info = nmi_blocking
    switch_to_vm1(m, v12)
    emit(m, events.REFLECT, reason, qualification, 0, 0, 0)

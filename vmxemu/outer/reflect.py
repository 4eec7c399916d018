"""An exit of VM2 that is VMM2's: VMM2 finds it in its VMCS12, and goes on at the host state that it wrote there."""

from typing import TYPE_CHECKING

import numpy as np

from vmxemu.cpu.protection_keys import write_pkrs
from vmxemu.isa import bits, controls, exits, fields
from vmxemu.jit import address_of, kernel, load64, store64
from vmxemu.layout import u64 as U
from vmxemu.outer.guest_view import VALID, load_pdptes, make_current, vmcs01, vmcs02, vmcs12
from vmxemu.outer.msr_lists import store_for_vmm2, switch_to_vm1
from vmxemu.timing import costs
from vmxemu.timing.clock import charge_event
from vmxemu.trace import events
from vmxemu.trace.emit import emit
from vmxemu.vmx.vmcs import FIRST_SLOT_BYTE, Vmcs, offset_of, set_slot

if TYPE_CHECKING:
    from vmxemu.state import State



def _slots(kind: str, skip: tuple[str, ...] = ()) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    rows = [FIRST_SLOT_BYTE + 8 * slot for slot, row in enumerate(fields.ROWS) if row.type == kind and row.name not in skip]
    return np.array(rows, np.uint64)


GUEST_SLOTS = _slots("guest")
READ_ONLY_SLOTS = _slots("read-only", ("VM_INSTRUCTION_ERROR",))  # VM exits leave that field alone
GUEST_SELECTORS, GUEST_LIMITS = offset_of("guest_es_selector"), offset_of("guest_es_limit")
GUEST_RIGHTS, GUEST_BASES = offset_of("guest_es_ar_bytes"), offset_of("guest_es_base")
ES, CS, SS, DS, FS, GS, LDTR, TR = (U(i) for i in range(8))
CODE_64, CODE_32, DATA, BUSY_TSS, UNUSABLE = U(0xA09B), U(0xC09B), U(0xC093), U(0x8B), U(1 << 16)
NMI_TYPE, TYPE_MASK = U(2 << 8), U(7 << 8)
NMI_BLOCKING = U(8)
EFER_MODE = bits.EFER_LMA | bits.EFER_LME


@kernel
def copy_slots(target: Vmcs, source: Vmcs, guest: bool) -> None:
    """Copy the guest-state fields (or, with guest False, the read-only ones) from one VMCS to another."""
    to, origin = address_of(target), address_of(source)
    if guest:
        for index in range(len(GUEST_SLOTS)):
            store64(to + GUEST_SLOTS[index], load64(origin + GUEST_SLOTS[index]))
    else:
        for index in range(len(READ_ONLY_SLOTS)):
            store64(to + READ_ONLY_SLOTS[index], load64(origin + READ_ONLY_SLOTS[index]))


@kernel
def reflect(m: "State") -> None:
    """Give the exit that VMCS02 describes to VMM2."""
    v02, v12 = vmcs02(m), vmcs12(m)
    copy_slots(v12, v02, False)
    finish(m, v02, v12)


@kernel
def reflect_event(m: "State", reason: int, interruption_info: int) -> None:
    """Give VMM2 an exit that hardware did not make: an event that VMM1 delivers while VM2 stands still."""
    v02, v12 = vmcs02(m), vmcs12(m)
    v12.vm_exit_reason = reason
    v12.exit_qualification = 0
    v12.vm_exit_intr_info = interruption_info
    v12.vm_exit_intr_error_code = 0
    v12.vm_exit_instruction_len = 0
    v12.idt_vectoring_info_field = 0
    finish(m, v02, v12)


@kernel
def reflect_ept(m: "State", reason: int, qualification: int) -> None:
    """Give VMM2 an EPT violation or misconfiguration of its own EPT12."""
    v02, v12 = vmcs02(m), vmcs12(m)
    copy_slots(v12, v02, False)
    v12.vm_exit_reason = reason
    v12.exit_qualification = qualification
    finish(m, v02, v12)


@kernel
def finish(m: "State", v02: Vmcs, v12: Vmcs) -> None:
    """Guest state to VMCS12, host state of VMCS12 to VM1, and VM1 runs again."""
    charge_event(m, costs.VMM1_REFLECT)
    entry_controls = v12.vm_entry_controls & ~controls.ENTRY_IA32E_GUEST
    save_guest(v02, v12)
    v12.vm_entry_controls = entry_controls | v02.vm_entry_controls & controls.ENTRY_IA32E_GUEST
    v12.vm_entry_intr_info_field = v12.vm_entry_intr_info_field & ~VALID
    store_for_vmm2(m, v12)
    leave_vm2(m, v02, v12)
    make_current(m, m.outer.vmcs01, 1)
    switch_to_vm1(m, v12)
    emit(m, events.REFLECT, v12.vm_exit_reason, v12.exit_qualification, v12.guest_physical_address, v12.vm_exit_intr_info, 0)


@kernel
def leave_vm2(m: "State", v02: Vmcs, v12: Vmcs) -> None:
    """To VMCS12's host state from VM2's: EFER and PAT stay as VM2 left them unless the exit loads them."""
    v01 = vmcs01(m)
    v01.guest_ia32_efer = v02.guest_ia32_efer
    v01.guest_ia32_pat = v02.guest_ia32_pat
    blocked = v02.guest_interruptibility_info & NMI_BLOCKING
    if v12.pin_based_vm_exec_control & controls.PIN_VIRTUAL_NMI != 0:
        blocked = U(0)
    if v12.vm_exit_reason & 0xFFFF == exits.EXCEPTION_NMI and v12.vm_exit_intr_info & TYPE_MASK == NMI_TYPE:
        blocked = NMI_BLOCKING
    load_host(m, v01, v12)
    v01.guest_interruptibility_info = blocked


@kernel
def save_guest(v02: Vmcs, v12: Vmcs) -> None:
    """Copy the guest state, keeping in VMCS12 what its exit controls say is not saved."""
    link = v12.vmcs_link_pointer
    pat, efer = v12.guest_ia32_pat, v12.guest_ia32_efer
    dr7, debugctl = v12.guest_dr7, v12.guest_ia32_debugctl
    timer = v12.vmx_preemption_timer_value
    copy_slots(v12, v02, True)
    v12.vmcs_link_pointer = link
    exit_controls = v12.vm_exit_controls
    if exit_controls & controls.EXIT_SAVE_PAT == 0:
        v12.guest_ia32_pat = pat
    if exit_controls & controls.EXIT_SAVE_EFER == 0:
        v12.guest_ia32_efer = efer
    if exit_controls & controls.EXIT_SAVE_DEBUG == 0:
        v12.guest_dr7 = dr7
        v12.guest_ia32_debugctl = debugctl
    if exit_controls & controls.EXIT_SAVE_PREEMPTION_TIMER == 0:
        v12.vmx_preemption_timer_value = timer


@kernel
def put_segment(v: Vmcs, number: int, selector: int, base: int, limit: int, rights: int) -> None:
    """One segment register of the guest-state area."""
    set_slot(v, GUEST_SELECTORS, number, selector)
    set_slot(v, GUEST_BASES, number, base)
    set_slot(v, GUEST_LIMITS, number, limit)
    set_slot(v, GUEST_RIGHTS, number, rights)


@kernel
def put_data(v: Vmcs, number: int, selector: int, base: int) -> None:
    """A flat data segment, unusable with a null selector."""
    put_segment(v, number, selector, base, 0xFFFFFFFF, DATA if selector != 0 else UNUSABLE)


@kernel
def load_host(m: "State", v: Vmcs, v12: Vmcs) -> None:
    """Load VMCS12's host state into VM1's guest state as VM exit loads it (SDM Vol. 3C, 'Loading Host State')."""
    wide = v12.vm_exit_controls & controls.EXIT_HOST_64 != 0
    v.guest_cr0 = v12.host_cr0
    v.cr0_read_shadow = v12.host_cr0
    v.guest_cr3 = v12.host_cr3
    cr4 = v12.host_cr4 | bits.CR4_PAE if wide else v12.host_cr4 & ~bits.CR4_PCIDE
    v.guest_cr4 = cr4 | bits.CR4_VMXE
    v.cr4_read_shadow = cr4
    v.guest_dr7 = 0x400
    v.guest_ia32_debugctl = 0
    v.guest_sysenter_cs = v12.host_ia32_sysenter_cs
    v.guest_sysenter_esp = v12.host_ia32_sysenter_esp
    v.guest_sysenter_eip = v12.host_ia32_sysenter_eip
    if v12.vm_exit_controls & controls.EXIT_LOAD_EFER != 0:
        v.guest_ia32_efer = v12.host_ia32_efer
    else:
        v.guest_ia32_efer = v.guest_ia32_efer & ~EFER_MODE | (EFER_MODE if wide else U(0))
    if v12.vm_exit_controls & controls.EXIT_LOAD_PAT != 0:
        v.guest_ia32_pat = v12.host_ia32_pat
    if v12.vm_exit_controls & controls.EXIT_LOAD_PKRS != 0:
        write_pkrs(m, v12.host_ia32_pkrs)  # VM1 has it in the processor, VMM1 needs none
    v.vm_entry_controls = v.vm_entry_controls & ~controls.ENTRY_IA32E_GUEST | (controls.ENTRY_IA32E_GUEST if wide else U(0))
    put_segment(v, CS, v12.host_cs_selector, 0, 0xFFFFFFFF, CODE_64 if wide else CODE_32)
    put_data(v, SS, v12.host_ss_selector, 0)
    put_data(v, DS, v12.host_ds_selector, 0)
    put_data(v, ES, v12.host_es_selector, 0)
    put_data(v, FS, v12.host_fs_selector, v12.host_fs_base)
    put_data(v, GS, v12.host_gs_selector, v12.host_gs_base)
    put_segment(v, TR, v12.host_tr_selector, v12.host_tr_base, 0x67, BUSY_TSS)
    put_segment(v, LDTR, 0, 0, 0, UNUSABLE)
    v.guest_gdtr_base = v12.host_gdtr_base
    v.guest_gdtr_limit = 0xFFFF
    v.guest_idtr_base = v12.host_idtr_base
    v.guest_idtr_limit = 0xFFFF
    v.guest_rsp = v12.host_rsp
    v.guest_rip = v12.host_rip
    v.guest_rflags = 2
    v.guest_activity_state = 0
    v.guest_pending_dbg_exceptions = 0
    v.guest_interruptibility_info = v.guest_interruptibility_info & NMI_BLOCKING
    if cr4 & bits.CR4_PAE != 0 and not wide:
        load_pdptes(m, v, v12.host_cr3)

"""Making VMCS02 from VMCS12 and VMCS01: VM2 runs with VMM2's controls plus what VMM1 needs, and every exit goes to VMM1's door."""

from typing import TYPE_CHECKING

import numpy as np

from vmxemu.isa import bits, controls, fields
from vmxemu.jit import address_of, kernel, load64, store64
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import host_address
from vmxemu.outer.ept02 import drop_all, eptp02
from vmxemu.outer.ept_tables import FRAME_MASK, HOLE_HPA, NOT_MAPPED
from vmxemu.outer.guest_view import host_of, hpa_of, load_pdptes, make_current, vmcs01, vmcs02, vmcs12
from vmxemu.outer.msr_lists import switch_to_vm2
from vmxemu.outer.reflect import copy_slots
from vmxemu.timing import costs
from vmxemu.timing.clock import charge_event
from vmxemu.translation.invalidate import invvpid
from vmxemu.vmx.checks_controls import secondary_controls
from vmxemu.vmx.vmcs import FIRST_SLOT_BYTE, Vmcs

if TYPE_CHECKING:
    from vmxemu.state import State

HOST_SLOTS = np.array([FIRST_SLOT_BYTE + 8 * slot for slot, row in enumerate(fields.ROWS) if row.type == "host"], np.uint64)
NO_LINK = U(0xFFFFFFFFFFFFFFFF)
MACHINE_CHECK_BIT = U(1 << 18)
SINGLE_CONTEXT = U(1)
EFER_MODE = bits.EFER_LMA | bits.EFER_LME
OWN_EXIT = controls.EXIT_SAVE_EFER | controls.EXIT_SAVE_PAT | controls.EXIT_SAVE_DEBUG
OWN_ENTRY = controls.ENTRY_LOAD_EFER | controls.ENTRY_LOAD_PAT | controls.ENTRY_LOAD_DEBUG
# Of VMCS12's own exit controls, those that hardware shall act on for VM2.
TAKEN_EXIT = controls.EXIT_ACK_INTERRUPT
LOW_EXITS = controls.CPU_MSR_BITMAPS | controls.CPU_SECONDARY | controls.CPU_TSC_OFFSETTING


@kernel
def enter_vm2(m: "State") -> None:
    """Build VMCS02 from the current VMCS12 and make it current; its checks have passed."""
    charge_event(m, costs.VMM1_NESTED_MERGE)
    if m.tlb.eager != 0:
        drop_all(m)  # EPT02 is to VMM2 what a TLB is: it may lose anything at any time
    v01, v02, v12 = vmcs01(m), vmcs02(m), vmcs12(m)
    copy_slots(v02, v12, True)
    v02.vmcs_link_pointer = NO_LINK
    to, origin = address_of(v02), address_of(v01)
    for index in range(len(HOST_SLOTS)):
        store64(to + HOST_SLOTS[index], load64(origin + HOST_SLOTS[index]))
    merge_guest_msrs(v01, v02, v12)
    merge_execution(m, v01, v02, v12)
    merge_transitions(v01, v02, v12)
    switch_to_vm2(m, v02, v12)
    make_current(m, m.outer.vmcs02, 2)


@kernel
def merge_guest_msrs(v01: Vmcs, v02: Vmcs, v12: Vmcs) -> None:
    """PAT, EFER and debug state: what VMCS12 does not load VM2 inherits from VM1."""
    entry = v12.vm_entry_controls
    if entry & controls.ENTRY_LOAD_PAT == 0:
        v02.guest_ia32_pat = v01.guest_ia32_pat
    if entry & controls.ENTRY_LOAD_EFER == 0:
        mode = EFER_MODE if entry & controls.ENTRY_IA32E_GUEST != 0 else U(0)
        changes = EFER_MODE if v12.guest_cr0 & bits.CR0_PG != 0 else bits.EFER_LMA
        v02.guest_ia32_efer = v01.guest_ia32_efer & ~changes | mode & changes
    if entry & controls.ENTRY_LOAD_DEBUG == 0:
        v02.guest_dr7 = v01.guest_dr7
        v02.guest_ia32_debugctl = v01.guest_ia32_debugctl


@kernel
def merge_execution(m: "State", v01: Vmcs, v02: Vmcs, v12: Vmcs) -> None:
    """VM-execution control fields."""
    secondary = secondary_controls(v12)
    v02.pin_based_vm_exec_control = v12.pin_based_vm_exec_control
    v02.cpu_based_vm_exec_control = v12.cpu_based_vm_exec_control | LOW_EXITS
    v02.secondary_vm_exec_control = secondary | controls.SECONDARY_EPT | controls.SECONDARY_VPID
    v02.exception_bitmap = v12.exception_bitmap | MACHINE_CHECK_BIT
    v02.page_fault_error_code_mask = v12.page_fault_error_code_mask
    v02.page_fault_error_code_match = v12.page_fault_error_code_match
    v02.cr0_guest_host_mask = v12.cr0_guest_host_mask
    v02.cr4_guest_host_mask = v12.cr4_guest_host_mask
    v02.cr0_read_shadow = v12.cr0_read_shadow
    v02.cr4_read_shadow = v12.cr4_read_shadow
    v02.cr3_target_count = v12.cr3_target_count
    v02.cr3_target_value0 = v12.cr3_target_value0
    v02.cr3_target_value1 = v12.cr3_target_value1
    v02.cr3_target_value2 = v12.cr3_target_value2
    v02.cr3_target_value3 = v12.cr3_target_value3
    v02.tsc_offset = offset_of_tsc(v01) + offset_of_tsc(v12)
    place_pages(m, v02, v12)
    v02.ple_gap = v12.ple_gap
    v02.ple_window = v12.ple_window
    merge_msr_bitmap(m, v02, v12)
    merge_translation(m, v01, v02, v12, secondary)


@kernel
def offset_of_tsc(v: Vmcs) -> int:
    """The TSC offset, if the controls use it."""
    return v.tsc_offset if v.cpu_based_vm_exec_control & controls.CPU_TSC_OFFSETTING != 0 else U(0)


@kernel
def place_pages(m: "State", v02: Vmcs, v12: Vmcs) -> None:
    """The pages of VM1 that hardware reads while VM2 runs; again whenever one may have moved."""
    v02.io_bitmap_a = page_of(m, v12.io_bitmap_a)
    v02.io_bitmap_b = page_of(m, v12.io_bitmap_b)


@kernel
def page_of(m: "State", gpa1: int) -> int:
    """HPA of a page that VMCS12 names; where VM1 has none, an address without memory, which reads as all ones there too."""
    hpa = hpa_of(m, gpa1 & FRAME_MASK)
    return hpa if hpa != NOT_MAPPED else HOLE_HPA


@kernel
def merge_msr_bitmap(m: "State", v02: Vmcs, v12: Vmcs) -> None:
    """An MSR access exits if VMM2 or VMM1 wants it."""
    target, own = host_address(m, m.outer.msr_bitmap02), host_address(m, m.outer.msr_bitmap01)
    theirs = U(0)
    if v12.cpu_based_vm_exec_control & controls.CPU_MSR_BITMAPS != 0:
        theirs = host_of(m, v12.msr_bitmap & FRAME_MASK)
    for offset in range(0, 4096, 8):
        store64(target + offset, load64(own + offset) | load64(theirs + offset) if theirs != 0 else ~U(0))
    v02.msr_bitmap = m.outer.msr_bitmap02


@kernel
def merge_translation(m: "State", v01: Vmcs, v02: Vmcs, v12: Vmcs, secondary: int) -> None:
    """EPT and VPID: VM2 runs on EPT02 or, without EPT of VMM2's, on EPT01; one VPID, flushed where VMM2 expects that."""
    if secondary & controls.SECONDARY_EPT != 0:
        v02.ept_pointer = eptp02(m, v12.ept_pointer)
    else:
        v02.ept_pointer = v01.ept_pointer
        load_pdptes(m, v02, v12.guest_cr3)
    v02.virtual_processor_id = m.outer.vpid02
    if secondary & controls.SECONDARY_VPID == 0 or m.outer.nested_vpid != v12.virtual_processor_id:
        m.outer.nested_vpid = v12.virtual_processor_id
        invvpid(m, SINGLE_CONTEXT, m.outer.vpid02, 0)
    if secondary & controls.SECONDARY_VPID == 0:
        invvpid(m, SINGLE_CONTEXT, v01.virtual_processor_id, 0)  # VMM2 and VM2 share VPID 0: each transition drops both's


@kernel
def merge_transitions(v01: Vmcs, v02: Vmcs, v12: Vmcs) -> None:
    """VM-exit and VM-entry controls and the event to inject."""
    v02.vm_exit_controls = v01.vm_exit_controls | OWN_EXIT | v12.vm_exit_controls & TAKEN_EXIT
    if v12.pin_based_vm_exec_control & controls.PIN_PREEMPTION_TIMER != 0:  # it goes on over exits that are VMM1's alone
        v02.vm_exit_controls = v02.vm_exit_controls | controls.EXIT_SAVE_PREEMPTION_TIMER
    v02.vm_entry_controls = v12.vm_entry_controls | OWN_ENTRY
    v02.vm_entry_intr_info_field = v12.vm_entry_intr_info_field
    v02.vm_entry_exception_error_code = v12.vm_entry_exception_error_code
    v02.vm_entry_instruction_len = v12.vm_entry_instruction_len
    v02.vm_exit_msr_load_count = 0

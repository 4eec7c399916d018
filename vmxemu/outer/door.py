"""How VMM1 gets control: the firmware's first VM entry with the door as host RIP brings it up; afterwards each VM exit to the
door."""

from typing import TYPE_CHECKING

import numpy as np

from vmxemu.isa import bits, controls, errors, exceptions, mca
from vmxemu.jit import kernel, load8, store8
from vmxemu.layout import u64 as U
from vmxemu.memory.layout import VMM1_OWN
from vmxemu.memory.physical import host_address
from vmxemu.outcome import DONE, vmfail
from vmxemu.outer import virtual_mca, virtual_vmx
from vmxemu.outer.guest_view import vmcs01, vmcs02
from vmxemu.outer.pool import has_room, open_pool, take_frame
from vmxemu.trace import events
from vmxemu.trace.emit import emit
from vmxemu.vmx.vmcs import LAUNCHED, Vmcs, vmcs_at

if TYPE_CHECKING:
    from vmxemu.state import State

REFUSED_BRING_UP = U(5)
ALL_ONES = U(0xFFFFFFFFFFFFFFFF)
WRITE_HALF = U(2048)
LIST_PAGES = U(4)  # two for an area to load, two for one to store
VPID01, VPID02 = U(1), U(2)  # so that entering and leaving VM1 costs no translations
# MSRs of VM1 that VMM1 answers for: feature control, SMBASE, machine check, VMX capabilities. First and last.
INTERCEPTED = np.array(
    [[0x3A, 0x3A], [0x9B, 0x9B], [0x9E, 0x9E], [0x179, 0x17B], [0x280, 0x29F], [0x400, 0x47F], [0x480, 0x493]], np.uint64
)


@kernel
def stands_at_door(m: "State") -> bool:
    """Whether VMX root software has arrived at the door with VMM1 up."""
    return m.outer.up != 0 and m.vmx.non_root == 0 and m.cpu.in_smm == 0 and m.vmx.on != 0 and m.r.rip == m.outer.door


@kernel
def may_enter(m: "State") -> int:
    """Before VMLAUNCH or VMRESUME in VMX root operation: bringing VMM1 up after the boot phase, or without room for it, is
    refused as an
    invalid host state."""
    if m.outer.up != 0 or m.vmx.host_address == 0 or (m.outer.run_time == 0 and has_room(m)):
        return DONE
    if vmcs_at(m.vmx.host_address).host_rip != m.outer.door:
        return DONE
    emit(m, events.REFUSED, REFUSED_BRING_UP, m.outer.door, 0, 0, 0)
    return vmfail(errors.ENTRY_INVALID_HOST_STATE_FIELDS)


@kernel
def note_entry(m: "State") -> None:
    """After a VM entry: the first one whose host RIP is the door brings VMM1 up."""
    if m.outer.up == 0 and m.vmx.non_root != 0 and vmcs_at(m.vmx.host_address).host_rip == m.outer.door:
        bring_up(m)


@kernel
def bring_up(m: "State") -> None:
    """VMM1 takes over what the firmware built: VMCS01, EPT01, the sequestered region; and makes what it needs besides."""
    outer = m.outer
    outer.up = 1
    outer.level = 1
    outer.vmcs01 = m.vmx.current
    open_pool(m)
    v = vmcs01(m)
    outer.ept01 = v.ept_pointer
    outer.pins01 = v.pin_based_vm_exec_control & (controls.PIN_NMI | controls.PIN_VIRTUAL_NMI)
    outer.vmcs02 = take_frame(m, VMM1_OWN)
    outer.msr_bitmap01 = take_frame(m, VMM1_OWN)
    outer.msr_bitmap02 = take_frame(m, VMM1_OWN)
    for _ in range(LIST_PAGES):
        outer.lists02 = take_frame(m, VMM1_OWN)  # the pool hands frames out downwards: the last one taken is the first of a row
    outer.smm_backup = take_frame(m, VMM1_OWN)
    second = vmcs02(m)
    second.revision = v.revision
    second.launch_state = LAUNCHED
    outer.smbase = 0x30000
    outer.feature_control = m.cpu.feature_control
    outer.nested.current = ALL_ONES
    outer.nested.vmxon_pointer = ALL_ONES
    outer.vpid02 = VPID02
    virtual_mca.power_on(m)
    virtual_vmx.withhold(m)
    program_msr_bitmap(m, host_address(m, outer.msr_bitmap01))
    v.msr_bitmap = outer.msr_bitmap01
    v.secondary_vm_exec_control = v.secondary_vm_exec_control | controls.SECONDARY_VPID
    v.virtual_processor_id = VPID01
    own_processor_state(m, v)
    enable_banks(m)
    v.cpu_based_vm_exec_control = v.cpu_based_vm_exec_control | controls.CPU_MSR_BITMAPS
    v.cr4_guest_host_mask = v.cr4_guest_host_mask | bits.CR4_VMXE
    v.cr4_read_shadow = m.r.cr[4] & ~bits.CR4_VMXE
    emit(m, events.PHASE, events.PHASE_VMM1_UP, 0, 0, 0, 0)


@kernel
def own_processor_state(m: "State", v: Vmcs) -> None:
    """VMM1 and VM1 each keep their own EFER, PAT and debug registers."""
    v.vm_entry_controls = v.vm_entry_controls | controls.ENTRY_LOAD_EFER | controls.ENTRY_LOAD_PAT | controls.ENTRY_LOAD_DEBUG
    exit_controls = (
        controls.EXIT_SAVE_EFER
        | controls.EXIT_LOAD_EFER
        | controls.EXIT_SAVE_PAT
        | controls.EXIT_LOAD_PAT
        | controls.EXIT_SAVE_DEBUG
    )
    v.vm_exit_controls = v.vm_exit_controls | exit_controls
    v.host_ia32_efer = m.r.efer | bits.EFER_LMA | bits.EFER_LME
    v.host_ia32_pat = m.r.pat
    v.cr0_guest_host_mask = v.cr0_guest_host_mask | bits.CR0_NE
    v.cr0_read_shadow = m.r.cr[0]
    v.exception_bitmap = v.exception_bitmap | U(1) << exceptions.MC


@kernel
def enable_banks(m: "State") -> None:
    """The processor's machine-check banks report everything, each corrected error at once: they are VMM1's now."""
    banks = m.platform.mca
    banks.control = ALL_ONES
    for number in range(banks.capabilities & 0xFF):
        banks.bank[number].control = ALL_ONES
        banks.bank[number].control2 = mca.CTL2_CMCI_EN | 1


@kernel
def program_msr_bitmap(m: "State", bitmap: int) -> None:
    """Set the read and write bits of the MSRs that VMM1 answers for (all are below 2000H)."""
    for row in range(len(INTERCEPTED)):
        for index in range(INTERCEPTED[row, 0], INTERCEPTED[row, 1] + 1):
            at = bitmap + (index >> 3)
            store8(at, load8(at) | U(1) << (index & 7))
            store8(at + WRITE_HALF, load8(at + WRITE_HALF) | U(1) << (index & 7))

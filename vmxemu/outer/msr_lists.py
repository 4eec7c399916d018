"""The MSR areas of VMCS12: VM2's run loads and stores them on VMM2's behalf.

VMCS02 and VMCS01 point to VMM1's copy of an area, so that hardware does the work with its own checks.
"""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel, load64, store64
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import host_address, read64, write64
from vmxemu.outer.ept_tables import NOT_MAPPED
from vmxemu.outer.guest_view import hpa_of, vmcs01
from vmxemu.vmx.vmcs import Vmcs

if TYPE_CHECKING:
    from vmxemu.state import State

MOST = U(256)  # entries of 16 bytes in one page


@kernel
def copy_area(m: "State", count: int, gpa1: int, page: int) -> int:
    """Copy an area from VM1's memory to VMM1's page; returns how many entries fit (those outside memory end it)."""
    target = host_address(m, page)
    if count > MOST:
        count = MOST
    for index in range(count):
        for half in range(0, 16, 8):
            hpa = hpa_of(m, gpa1 + index * 16 + half)
            if hpa == NOT_MAPPED:
                return index
            store64(target + index * 16 + half, read64(m, hpa))
    return count


@kernel
def switch_to_vm2(m: "State", v02: Vmcs, v12: Vmcs) -> None:
    """VMCS12's VM-entry MSR-load and VM-exit MSR-store areas become VMCS02's."""
    v02.vm_entry_msr_load_count = copy_area(m, v12.vm_entry_msr_load_count, v12.vm_entry_msr_load_addr, m.outer.lists02)
    v02.vm_entry_msr_load_addr = m.outer.lists02
    v02.vm_exit_msr_store_count = copy_area(m, v12.vm_exit_msr_store_count, v12.vm_exit_msr_store_addr, m.outer.stores02)
    v02.vm_exit_msr_store_addr = m.outer.stores02


@kernel
def give_stored(m: "State", v02: Vmcs, v12: Vmcs) -> None:
    """What the exit from VM2 stored goes to the area that VMM2 named."""
    source = host_address(m, m.outer.stores02)
    for index in range(v02.vm_exit_msr_store_count):
        hpa = hpa_of(m, v12.vm_exit_msr_store_addr + index * 16 + 8)
        if hpa != NOT_MAPPED:
            write64(m, hpa, load64(source + index * 16 + 8))


@kernel
def switch_to_vm1(m: "State", v12: Vmcs) -> None:
    """VMCS12's VM-exit MSR-load area is loaded by the coming VM entry of VMCS01, once."""
    v = vmcs01(m)
    v.vm_entry_msr_load_count = copy_area(m, v12.vm_exit_msr_load_count, v12.vm_exit_msr_load_addr, m.outer.lists02)
    v.vm_entry_msr_load_addr = m.outer.lists02


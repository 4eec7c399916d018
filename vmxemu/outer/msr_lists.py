"""The MSR areas of VMCS12: VM2's run loads and stores them on VMM2's behalf.

VMCS02 and VMCS01 point to VMM1's copy of an area, so that hardware does the work with its own checks.
"""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel, store64
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import host_address, read64, write64
from vmxemu.outer.ept_tables import NOT_MAPPED
from vmxemu.outer.guest_view import hpa_of, vmcs01
from vmxemu.vmx.vmcs import Vmcs

if TYPE_CHECKING:
    from vmxemu.state import State

MOST = U(512)  # entries of 16 bytes that two pages hold, and that IA32_VMX_MISC lets an area have
STORE_PAGES = U(8192)  # behind the two pages of the area to load
NOTHING = U(0xFFFFFFFFFFFFFFFF)  # what an entry outside memory reads as: its number is reserved, so the transition fails there


@kernel
def copy_area(m: "State", count: int, gpa1: int, target: int) -> int:
    """Copy an area from VM1's memory to VMM1's pages at host address `target`; returns how many entries hardware shall look at."""
    if count > MOST:
        count = MOST
        store64(target, NOTHING)  # more than the processor promises to take: fails at once
        return U(1)
    for index in range(count):
        for half in range(0, 16, 8):
            hpa = hpa_of(m, gpa1 + index * 16 + half)
            store64(target + index * 16 + half, read64(m, hpa) if hpa != NOT_MAPPED else NOTHING)
    return count


@kernel
def switch_to_vm2(m: "State", v02: Vmcs, v12: Vmcs) -> None:
    """VMCS12's VM-entry MSR-load area becomes VMCS02's, for one entry; its VM-exit MSR-store area likewise, for every exit."""
    own = host_address(m, m.outer.lists02)
    v02.vm_entry_msr_load_count = copy_area(m, v12.vm_entry_msr_load_count, v12.vm_entry_msr_load_addr, own)
    v02.vm_entry_msr_load_addr = m.outer.lists02
    v02.vm_exit_msr_store_count = copy_area(m, v12.vm_exit_msr_store_count, v12.vm_exit_msr_store_addr, own + STORE_PAGES)
    v02.vm_exit_msr_store_addr = m.outer.lists02 + STORE_PAGES


@kernel
def store_for_vmm2(m: "State", v12: Vmcs) -> None:
    """What hardware stored at VM2's exit goes to VMCS12's VM-exit MSR-store area."""
    count = v12.vm_exit_msr_store_count
    for index in range(count if count <= MOST else U(0)):
        hpa = hpa_of(m, v12.vm_exit_msr_store_addr + index * 16 + 8)
        if hpa != NOT_MAPPED:
            write64(m, hpa, read64(m, m.outer.lists02 + STORE_PAGES + index * 16 + 8))


@kernel
def switch_to_vm1(m: "State", v12: Vmcs) -> None:
    """VMCS12's VM-exit MSR-load area is loaded by the coming VM entry of VMCS01, once."""
    v = vmcs01(m)
    v.vm_entry_msr_load_count = copy_area(
        m, v12.vm_exit_msr_load_count, v12.vm_exit_msr_load_addr, host_address(m, m.outer.lists02)
    )
    v.vm_entry_msr_load_addr = m.outer.lists02

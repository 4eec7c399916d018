"""Exits of VM2: nearly all are VMM2's own and are reflected; VMM1 keeps EPT violations of EPT02 and MSRs that are its alone."""

from typing import TYPE_CHECKING

from vmxemu.cpu.layout import RCX
from vmxemu.isa import controls, exceptions, exits
from vmxemu.jit import kernel, load8
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import read64
from vmxemu.outcome import DONE
from vmxemu.outer import ept02, level1
from vmxemu.outer.ept_tables import FRAME_MASK, NOT_MAPPED, leaf_of
from vmxemu.outer.guest_view import host_of, reinject_interrupted, vmcs02, vmcs12
from vmxemu.outer.reflect import reflect, reflect_ept
from vmxemu.vmx.checks_controls import secondary_controls
from vmxemu.vmx.vmcs import Vmcs

if TYPE_CHECKING:
    from vmxemu.state import State

TYPE_MASK, NMI_TYPE = U(7 << 8), U(2 << 8)
LOW = U(0xFFFFFFFF)
HIGH_MSRS = U(0xC0000000)
ACCESS_BITS, KEPT_BITS = U(7), U(~0x3F & 0xFFFFFFFFFFFFFFFF)
WRITE_HALF, HIGH_PART = U(2048), U(1024)


@kernel
def handle(m: "State", reason: int) -> int:
    """Handle an exit of VM2: by VMM1, or reflected to VMM2."""
    v02, v12 = vmcs02(m), vmcs12(m)
    if reason == exits.EPT_VIOLATION:
        return ept_violation(m, v02, v12)
    if reason == exits.EPT_MISCONFIG:
        return level1.stop(m, reason)  # VMM1 made EPT02 itself; VMM2's misconfigurations show as violations of it
    if reason == exits.NMI_WINDOW and v12.cpu_based_vm_exec_control & controls.CPU_NMI_WINDOW == 0:
        return DONE  # VMM1 asked for it: what waits is delivered before VM2 goes on
    if reason == exits.EXCEPTION_NMI:
        info = v02.vm_exit_intr_info
        if info & TYPE_MASK == NMI_TYPE:
            return DONE  # a platform NMI; the trap has queued it
        if v12.exception_bitmap >> (info & 0x1F) & 1 == 0 and info & 0xFF != exceptions.PF:
            v02.vm_entry_intr_info_field = info & ~U(1 << 12)
            v02.vm_entry_exception_error_code = v02.vm_exit_intr_error_code
            return DONE
    if (reason == exits.RDMSR or reason == exits.WRMSR) and not wants_msr(m, v12, reason):
        return level1.access_msr(m, v02, reason)
    reflect(m)
    return DONE


@kernel
def ept_violation(m: "State", v02: Vmcs, v12: Vmcs) -> int:
    """EPT02 lacks a translation, or rights: install it, unless EPT12 lacks it too; then the violation is VMM2's."""
    gpa2 = v02.guest_physical_address
    qualification = v02.exit_qualification
    if secondary_controls(v12) & controls.SECONDARY_EPT == 0:
        m.walk.gpa = gpa2
        reinject_interrupted(v02)
        return level1.memory_fault(m, v02)
    result = ept02.fill(m, v12.ept_pointer, gpa2, qualification & ACCESS_BITS)
    if result == ept02.MISCONFIGURED:
        reflect_ept(m, exits.EPT_MISCONFIG, 0)
    elif result == ept02.VIOLATION:
        reflect_ept(m, exits.EPT_VIOLATION, qualification & KEPT_BITS | qualification & ACCESS_BITS | m.outer.error_detail << 3)
    else:
        reinject_interrupted(v02)
        gpa1 = ept02.maps_vm1(m, gpa2, v12.ept_pointer)
        leaf = leaf_of(m, m.outer.ept01 & FRAME_MASK, gpa1)
        if leaf == NOT_MAPPED or qualification & ACCESS_BITS & ~read64(m, leaf) != 0:
            m.walk.gpa = gpa1
            return level1.memory_fault(m, v02)
    return DONE


@kernel
def wants_msr(m: "State", v12: Vmcs, reason: int) -> bool:
    """Whether VMM2's own MSR bitmap asks for the exit."""
    if v12.cpu_based_vm_exec_control & controls.CPU_MSR_BITMAPS == 0:
        return True
    index = m.r.gpr[RCX] & LOW
    if index & ~U(0x1FFF) != 0 and index & ~U(0x1FFF) != HIGH_MSRS:
        return True
    bitmap = host_of(m, v12.msr_bitmap & FRAME_MASK)
    if bitmap == 0:
        return True
    at = (
        bitmap
        + ((index & 0x1FFF) >> 3)
        + (HIGH_PART if index >= HIGH_MSRS else U(0))
        + (WRITE_HALF if reason == exits.WRMSR else U(0))
    )
    return load8(at) >> (index & 7) & 1 != 0

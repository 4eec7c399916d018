"""Exits of VM1: VMM2 itself, its loader, and whatever else runs there. One handler per reason."""

from typing import TYPE_CHECKING

from vmxemu import report
from vmxemu.cpu import msr as cpu_msr
from vmxemu.cpu.control_registers import write_cr
from vmxemu.cpu.cpuid import execute_cpuid
from vmxemu.cpu.layout import RAX, RCX, RDX
from vmxemu.isa import bits, exceptions, exits, msrs
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import is_ram, read64, write64
from vmxemu.outcome import DONE, EPT_MISCONFIG, EPT_VIOLATION, NOT_MINE, STOPPED, fault, fault_with, kind_of
from vmxemu.outer import nested, virtual_mca, virtual_smm, virtual_vmx
from vmxemu.outer.ept_tables import FRAME_MASK, FROM_POOL, HOLE_HPA, NOT_MAPPED, RIGHTS, leaf_of, map_page
from vmxemu.outer.guest_view import as_guest, as_host, inject, reinject_interrupted, skip_instruction, vmcs01
from vmxemu.outer.image import start_image, wants_image
from vmxemu.platform import msr as platform_msr
from vmxemu.trace import events
from vmxemu.trace.emit import emit
from vmxemu.translation.invalidate import invept
from vmxemu.vmx.capability import cr0_fits
from vmxemu.vmx.vmcs import Vmcs

if TYPE_CHECKING:
    from vmxemu.state import State

LOW = U(0xFFFFFFFF)
TYPE_MASK, NMI_TYPE, HARDWARE_TYPE = U(7 << 8), U(2 << 8), U(3 << 8)
REFUSED_DOOR, REFUSED_TRAP, REFUSED_REGION, REFUSED_MSR = U(1), U(3), U(6), U(7)
RSM_OPCODE = U(0x0FAA)
ALL_CONTEXTS = U(2)


@kernel
def handle(m: "State", reason: int) -> int:
    """Handle an exit of VM1. DONE: VM1 (or, after VMLAUNCH, VM2) goes on."""
    v = vmcs01(m)
    if reason == exits.RDMSR or reason == exits.WRMSR:
        return access_msr(m, v, reason)
    if reason == exits.VMCALL and wants_image(m):
        start_image(m, v)
        return DONE
    if exits.VMCALL <= reason <= exits.VMXON or reason == exits.INVEPT or reason == exits.INVVPID:
        outcome = nested.emulate(m, reason)
        return memory_fault(m, v) if kind_of(outcome) == EPT_VIOLATION or kind_of(outcome) == EPT_MISCONFIG else outcome
    if reason == exits.CPUID:
        as_guest(m, v)
        execute_cpuid(m)
        as_host(m, v)
        skip_instruction(v)
        return DONE
    if reason == exits.CR_ACCESS:
        return access_cr(m, v)
    if reason == exits.EPT_VIOLATION:
        m.walk.gpa = v.guest_physical_address
        reinject_interrupted(v)
        return memory_fault(m, v)
    if reason == exits.EXCEPTION_NMI:
        return exception(m, v)
    if reason == exits.NMI_WINDOW or reason == exits.INTERRUPT_WINDOW or reason == exits.EXTERNAL_INTERRUPT:
        return DONE  # what waits is delivered before VM1 goes on
    if reason == exits.INVD or reason == exits.WBINVD or reason == exits.XSETBV or reason == exits.GETSEC:
        if reason == exits.XSETBV or reason == exits.GETSEC:
            inject(m, v, fault(exceptions.UD))
        else:
            skip_instruction(v)
        return DONE
    return stop(m, reason)


@kernel
def stop(m: "State", reason: int) -> int:
    """VM1 did what VMM1 has no answer for, a triple fault first of all."""
    m.report.reason = report.TRIPLE_FAULT if reason == exits.TRIPLE_FAULT else report.VMM1_FATAL
    m.report.value = reason
    m.report.where = vmcs01(m).guest_rip
    return STOPPED


@kernel
def exception(m: "State", v: Vmcs) -> int:
    """#UD while VM1's own SMM handler runs may be its RSM; every other exception goes back to VM1."""
    info = v.vm_exit_intr_info
    if info & TYPE_MASK == NMI_TYPE:
        return DONE
    if m.outer.virtual_smm != 0 and info & 0xFF == exceptions.UD and m.cpu.insn.opcode == RSM_OPCODE:
        return DONE if virtual_smm.leave(m) else stop(m, exits.TRIPLE_FAULT)
    v.vm_entry_intr_info_field = info & ~U(1 << 12)
    v.vm_entry_exception_error_code = v.vm_exit_intr_error_code
    return DONE


@kernel
def memory_fault(m: "State", v: Vmcs) -> int:
    """VM1 touched a guest-physical address (m.walk.gpa) that EPT01 does not map. If it is absent from VM1's memory map (the
    sequestered
    region, SMRAM, holes), VM1 finds what hardware gives where there is nothing: loads are all ones, stores are lost."""
    gpa = m.walk.gpa & FRAME_MASK
    leaf = leaf_of(m, m.outer.ept01 & FRAME_MASK, gpa)
    if leaf != NOT_MAPPED:
        allow(m, leaf)
        return DONE
    emit(m, events.REFUSED, REFUSED_REGION, gpa, 0, 0, 0)
    if is_ram(m, gpa):
        hole = HOLE_HPA
    else:
        hole = gpa
    if not map_page(m, m.outer.ept01 & FRAME_MASK, gpa, hole | RIGHTS, 1, FROM_POOL):
        return stop(m, exits.EPT_VIOLATION)
    return DONE


@kernel
def allow(m: "State", leaf: int) -> None:
    """EPT01 maps the page, but not for this access (ROM): the memory behind it decides what a store does. The frame stays the
    same one."""
    write64(m, leaf, read64(m, leaf) | RIGHTS)
    invept(m, ALL_CONTEXTS, 0)


@kernel
def access_cr(m: "State", v: Vmcs) -> int:
    """MOV to CR0 or CR4 where VM1 changes a bit that VMX operation fixes: VM1 has its way in what it can see."""
    qualification = v.exit_qualification
    number = qualification & 0xF
    access = qualification >> 4 & 3
    if access != 0 or (number != 0 and number != 4):
        return stop(m, exits.CR_ACCESS)
    as_guest(m, v)
    value = m.r.gpr[qualification >> 8 & 0xF]
    outcome = DONE
    if number == 4:
        if refuses_vmxe(m, value):
            outcome = fault_with(exceptions.GP, 0)
        else:
            outcome = write_cr(m, 4, value | bits.CR4_VMXE)
            if outcome == DONE:
                m.outer.vmxe = value & bits.CR4_VMXE
    elif m.outer.nested.on != 0 and m.outer.virtual_smm == 0 and not cr0_fits(m.cpu.vmx_msr, value, 0):
        outcome = fault_with(exceptions.GP, 0)
    else:
        outcome = write_cr(m, 0, value | bits.CR0_NE)
    as_host(m, v)
    if outcome != DONE:
        inject(m, v, outcome)
        return DONE
    if number == 4:
        v.cr4_read_shadow = value
    else:
        v.cr0_read_shadow = value
    skip_instruction(v)
    return DONE


@kernel
def refuses_vmxe(m: "State", cr4: int) -> bool:
    """CR4.VMXE cannot be cleared in VMX operation, nor set in SMM."""
    if m.outer.virtual_smm != 0:
        return cr4 & bits.CR4_VMXE != 0
    return m.outer.nested.on != 0 and cr4 & bits.CR4_VMXE == 0


@kernel
def access_msr(m: "State", v: Vmcs, reason: int) -> int:
    """RDMSR or WRMSR of an MSR that VMM1 answers for."""
    index = m.r.gpr[RCX] & LOW
    as_guest(m, v)
    if reason == exits.RDMSR:
        outcome = read_msr(m, index)
        if outcome == DONE:
            m.r.gpr[RAX] = m.walk.value & LOW
            m.r.gpr[RDX] = m.walk.value >> 32
    else:
        outcome = write_msr(m, index, m.r.gpr[RDX] << 32 | m.r.gpr[RAX] & LOW)
    as_host(m, v)
    if outcome == NOT_MINE:
        outcome = fault_with(exceptions.GP, 0)
    if outcome == DONE:
        skip_instruction(v)
    else:
        inject(m, v, outcome)
    return DONE


@kernel
def read_msr(m: "State", index: int) -> int:
    """What VM1 reads."""
    outer = m.outer
    if index == msrs.IA32_FEATURE_CONTROL:
        m.walk.value = outer.feature_control
        return DONE
    if index == msrs.VMXEMU_PHASE:
        m.walk.value = outer.run_time
        return DONE
    if index == msrs.VMXEMU_MEMORY_BYTES:
        m.walk.value = m.memory.sequestered_base + m.memory.high_bytes
        return DONE
    if msrs.VMXEMU_DOOR <= index <= msrs.VMXEMU_IMAGE_BYTES:
        return refuse(m, REFUSED_DOOR if index == msrs.VMXEMU_DOOR else REFUSED_MSR, index)
    outcome = virtual_mca.read(m, index)
    if outcome == NOT_MINE:
        outcome = cpu_msr.read_msr(m, index)
        if outcome == DONE and cpu_msr.is_vmx_capability(index):
            return virtual_vmx.show(m, index)
    return platform_msr.read_msr(m, index) if outcome == NOT_MINE else outcome


@kernel
def write_msr(m: "State", index: int, value: int) -> int:
    """What VM1 writes."""
    outer = m.outer
    if index == msrs.VMXEMU_PHASE and value == 1:
        if outer.run_time == 0:
            outer.run_time = 1
            emit(m, events.PHASE, events.PHASE_RUN_TIME, 0, 0, 0, 0)
        return DONE
    if msrs.VMXEMU_DOOR <= index <= msrs.VMXEMU_IMAGE_BYTES:
        return refuse(m, REFUSED_TRAP if index == msrs.VMXEMU_TRAP_CONTROL else REFUSED_MSR, index)
    if index == msrs.IA32_FEATURE_CONTROL:
        if outer.feature_control & 1 != 0:
            return fault_with(exceptions.GP, 0)
        outer.feature_control = value
        return DONE
    outcome = virtual_mca.write(m, index, value)
    if outcome == NOT_MINE:
        outcome = cpu_msr.write_msr(m, index, value)
    return platform_msr.write_msr(m, index, value) if outcome == NOT_MINE else outcome


@kernel
def refuse(m: "State", what: int, index: int) -> int:
    """VM1 asked for something of VMM1's: #GP(0), and a record of it."""
    emit(m, events.REFUSED, what, index, 0, 0, 0)
    return fault_with(exceptions.GP, 0)

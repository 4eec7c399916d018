"""VMM1 working on a virtual machine's behalf: it takes the guest state from a VMCS onto the processor, so that addresses
translate and
instructions check as they do for the guest, and puts it back. Nothing of the host is lost: VM entry reloads all of it."""

from typing import TYPE_CHECKING

from vmxemu.isa import bits
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import host_address, read64
from vmxemu.outcome import detail_of, has_error_code, vector_of
from vmxemu.outer.ept_tables import FRAME_MASK, NOT_MAPPED, translate_software
from vmxemu.vmx import event
from vmxemu.vmx.checks_guest import pdpte_fits
from vmxemu.vmx.guest_state import load_guest_state, save_guest_state
from vmxemu.vmx.vmcs import Vmcs, offset_of, set_slot, vmcs_at

if TYPE_CHECKING:
    from vmxemu.state import State

NO_REASON = U(0xFFFF)
VALID, WITH_ERROR, HARDWARE_EXCEPTION = U(1 << 31), U(1 << 11), U(3 << 8)
STI_AND_MOV_SS = U(3)
PAGE_FAULT = U(14)
PDPT_MASK = U(0xFFFF_FFE0)
FIRST_PDPTE = offset_of("guest_pdpte0")


@kernel
def vmcs01(m: "State") -> Vmcs:
    """VM1's VMCS."""
    return vmcs_at(host_address(m, m.outer.vmcs01))


@kernel
def vmcs02(m: "State") -> Vmcs:
    """The VMCS that really runs VM2."""
    return vmcs_at(host_address(m, m.outer.vmcs02))


@kernel
def vmcs12(m: "State") -> Vmcs:
    """The VMCS that VMM2 wrote for VM2; VMM2 has a current one."""
    return vmcs_at(m.outer.nested.host_address)


@kernel
def make_current(m: "State", hpa: int, level: int) -> None:
    """VMPTRLD by VMM1."""
    m.vmx.current = hpa
    m.vmx.host_address = host_address(m, hpa)
    m.outer.level = level


@kernel
def as_guest(m: "State", v: Vmcs) -> None:
    """Take the guest state onto the processor."""
    load_guest_state(m, v)


@kernel
def as_host(m: "State", v: Vmcs) -> None:
    """Put the guest state back and be VMM1 again."""
    m.cpu.event_info = 0
    m.exit.interruption_info = 0
    save_guest_state(m, v, NO_REASON)
    stand_at_door(m)


@kernel
def stand_at_door(m: "State") -> None:
    """Be VMM1, as far as the next VM entry looks at the processor: at the door, in IA-32e mode, with no guest's paging in force."""
    m.paging.ept_pointer = 0
    m.paging.ept_extensions = 0
    m.paging.vpid = 0
    m.cpu.unrestricted = 0
    m.cpu.activity = 0
    m.r.efer = m.r.efer | bits.EFER_LMA | bits.EFER_LME
    m.r.rip = m.outer.door


@kernel
def hpa_of(m: "State", gpa1: int) -> int:
    """HPA behind a guest-physical address of VM1; NOT_MAPPED if VM1 has nothing there."""
    return translate_software(m, m.outer.ept01 & FRAME_MASK, gpa1)


@kernel
def host_of(m: "State", gpa1: int) -> int:
    """Host address behind a guest-physical address of VM1, 0 if it has no memory there."""
    hpa = hpa_of(m, gpa1)
    return host_address(m, hpa) if hpa != NOT_MAPPED else 0


@kernel
def load_pdptes(m: "State", v: Vmcs, cr3: int) -> bool:
    """Put the four PDPTEs at VM1's `cr3` into the guest-state area, as PAE paging without EPT takes them from memory; False if
    one is bad."""
    good = True
    for number in range(4):
        entry = read64(m, hpa_of(m, (cr3 & PDPT_MASK) + (number << 3)))
        good = good and pdpte_fits(m, entry)
        set_slot(v, FIRST_PDPTE, number, entry)
    return good


@kernel
def skip_instruction(v: Vmcs) -> None:
    """The exiting instruction has been emulated: move the guest past it."""
    v.guest_rip = v.guest_rip + v.vm_exit_instruction_len
    v.guest_interruptibility_info = v.guest_interruptibility_info & ~STI_AND_MOV_SS


@kernel
def inject(m: "State", v: Vmcs, outcome: int) -> None:
    """Give the guest the fault that an outcome stands for, at the next VM entry."""
    vector = vector_of(outcome)
    if vector == PAGE_FAULT:
        m.r.cr[2] = m.walk.gla
    v.vm_entry_intr_info_field = VALID | HARDWARE_EXCEPTION | vector | (WITH_ERROR if has_error_code(outcome) else U(0))
    v.vm_entry_exception_error_code = detail_of(outcome)
    v.vm_entry_instruction_len = 0


@kernel
def reinject_interrupted(v: Vmcs) -> None:
    """After an EPT violation that VMM1 has dealt with: if it came during the delivery of an event, deliver that event again; if
    it came in an IRET that had just ended the blocking of NMIs, they are blocked until it has run."""
    if v.exit_qualification & event.INFO_NMI_UNBLOCKING != 0:
        v.guest_interruptibility_info = v.guest_interruptibility_info | event.NMI_BLOCKING
    if v.idt_vectoring_info_field & VALID != 0:
        v.vm_entry_intr_info_field = v.idt_vectoring_info_field & ~U(1 << 12)
        v.vm_entry_exception_error_code = v.idt_vectoring_error_code
        v.vm_entry_instruction_len = v.vm_exit_instruction_len


@kernel
def set_primary(v: Vmcs, bit: int, on: bool) -> None:
    """Set or clear a primary processor-based control."""
    if on:
        v.cpu_based_vm_exec_control = v.cpu_based_vm_exec_control | bit
    else:
        v.cpu_based_vm_exec_control = v.cpu_based_vm_exec_control & ~bit

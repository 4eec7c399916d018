"""CR0, CR3, CR4 and CR8 in VMX non-root operation: which accesses exit, and what the others do through masks and read
shadows.

SDM Vol. 3C, 'Instructions That Cause VM Exits Conditionally' and 'Changes to Instruction Behavior in VMX Non-Root
Operation'.
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.control_registers import read_cr, write_cr
from vmxemu.cpu.decode import LOCK, advance
from vmxemu.cpu.layout import HF_CPL, HF_CS64
from vmxemu.cpu.mov_cr import CLTS, GROUP_7, MOV_FROM_CR, MOV_TO_CR, SMSW, read_operand_16, write_gpr, write_operand_16
from vmxemu.isa import bits, controls, exceptions, exits
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import read8, write8
from vmxemu.outcome import DONE, fault, fault_with, vm_exit
from vmxemu.vmx.qualification import CLTS_ACCESS, LMSW_ACCESS, LMSW_FROM_MEMORY, MOV_FROM, MOV_TO, cr_qualification
from vmxemu.vmx.vmcs import CR3_TARGETS, slot_value, vmcs_at

if TYPE_CHECKING:
    from vmxemu.state import State
    from vmxemu.vmx.vmcs import Vmcs

LOW_HALF = U(0xFFFF_FFFF)
LMSW_BITS = U(0xF)
LMSW_FREE = U(0xE)  # MP, EM, TS: LMSW may change them both ways
VIRTUAL_TPR = U(0x80)  # offset in the virtual-APIC page


@kernel
def _operand(m: "State") -> int:
    """The register that MOV to CR reads."""
    value = m.r.gpr[m.cpu.insn.rm]
    return value if m.r.mode & HF_CS64 != 0 else value & LOW_HALF


@kernel
def mov_to_cr_exits(v: "Vmcs", number: int, value: int) -> bool:
    """Whether these controls make MOV to CR exit."""
    if number == 0:
        return (value ^ v.cr0_read_shadow) & v.cr0_guest_host_mask != 0
    if number == 4:
        return (value ^ v.cr4_read_shadow) & v.cr4_guest_host_mask != 0
    if number == 8:
        return v.cpu_based_vm_exec_control & controls.CPU_CR8_LOAD != 0
    if number != 3 or v.cpu_based_vm_exec_control & controls.CPU_CR3_LOAD == 0:
        return False
    target = U(0)
    while target < v.cr3_target_count and target < 4:
        if slot_value(v, CR3_TARGETS, target) == value:
            return False
        target = target + 1
    return True


@kernel
def mov_from_cr_exits(v: "Vmcs", number: int) -> bool:
    """Whether these controls make MOV from CR exit."""
    if number == 3:
        return v.cpu_based_vm_exec_control & controls.CPU_CR3_STORE != 0
    return number == 8 and v.cpu_based_vm_exec_control & controls.CPU_CR8_STORE != 0


@kernel
def clts_exits(v: "Vmcs") -> bool:
    """Whether these controls make CLTS exit."""
    return v.cr0_guest_host_mask & v.cr0_read_shadow & bits.CR0_TS != 0


@kernel
def lmsw_exits(v: "Vmcs", source: int) -> bool:
    """Whether these controls make LMSW exit: a masked bit would differ from the shadow; PE only where it would be
    set."""
    differs = (source ^ v.cr0_read_shadow) & v.cr0_guest_host_mask
    return differs & LMSW_FREE != 0 or differs & source & bits.CR0_PE != 0


@kernel
def _exit(m: "State", qualification: int) -> int:
    m.exit.qualification = qualification
    return vm_exit(exits.CR_ACCESS)


@kernel
def mov_cr_instruction(m: "State", v: "Vmcs") -> int:
    """MOV CR: vm_exit, a fault, or DONE if it does not exit."""
    insn = m.cpu.insn
    number = insn.register
    if insn.prefixes & LOCK != 0 or number == 1 or number > 4 and number != 8:
        return fault(exceptions.UD)
    if m.r.mode & HF_CPL != 0:
        return fault_with(exceptions.GP, 0)
    if insn.opcode == MOV_TO_CR:
        if mov_to_cr_exits(v, number, _operand(m)):
            return _exit(m, cr_qualification(number, MOV_TO, insn.rm))
    elif mov_from_cr_exits(v, number):
        return _exit(m, cr_qualification(number, MOV_FROM, insn.rm))
    return DONE


@kernel
def clts_instruction(m: "State", v: "Vmcs") -> int:
    """CLTS: vm_exit, a fault, or DONE."""
    if m.r.mode & HF_CPL != 0:
        return fault_with(exceptions.GP, 0)
    return _exit(m, cr_qualification(0, CLTS_ACCESS, 0)) if clts_exits(v) else DONE


@kernel
def lmsw_instruction(m: "State", v: "Vmcs") -> int:
    """LMSW: vm_exit, a fault, or DONE."""
    if m.r.mode & HF_CPL != 0:
        return fault_with(exceptions.GP, 0)
    outcome = read_operand_16(m)
    if outcome != DONE or not lmsw_exits(v, m.walk.value & LMSW_BITS):
        return outcome
    what = cr_qualification(0, LMSW_ACCESS, 0) | (m.walk.value & 0xFFFF) << 16
    if m.cpu.insn.is_memory == 0:
        return _exit(m, what)
    m.exit.guest_linear = m.cpu.insn.linear
    return _exit(m, what | LMSW_FROM_MEMORY)


@kernel
def guest_cr_read(m: "State", number: int) -> int:
    """What the software that runs now sees in a control register."""
    if m.vmx.non_root == 0:
        return read_cr(m, number)
    v = vmcs_at(m.vmx.host_address)
    if number == 0:
        return m.r.cr[0] & ~v.cr0_guest_host_mask | v.cr0_read_shadow & v.cr0_guest_host_mask
    if number == 4:
        return m.r.cr[4] & ~v.cr4_guest_host_mask | v.cr4_read_shadow & v.cr4_guest_host_mask
    if number == 8 and v.cpu_based_vm_exec_control & controls.CPU_TPR_SHADOW != 0:
        return read8(m, v.virtual_apic_page_addr + VIRTUAL_TPR) >> 4
    return read_cr(m, number)


@kernel
def guest_cr_write(m: "State", number: int, value: int) -> int:
    """Write a control register for the software that runs now, after it was found not to exit: masked bits stay as
    they are."""
    if m.vmx.non_root == 0:
        return write_cr(m, number, value)
    v = vmcs_at(m.vmx.host_address)
    if number == 0:
        value = value & ~v.cr0_guest_host_mask | m.r.cr[0] & v.cr0_guest_host_mask
    elif number == 4:
        value = value & ~v.cr4_guest_host_mask | m.r.cr[4] & v.cr4_guest_host_mask
    elif number == 8 and v.cpu_based_vm_exec_control & controls.CPU_TPR_SHADOW != 0:
        if value > 15:
            return fault_with(exceptions.GP, 0)
        write8(m, v.virtual_apic_page_addr + VIRTUAL_TPR, value << 4)
        return DONE
    return write_cr(m, number, value)


@kernel
def _group_7(m: "State") -> int:
    """SMSW and LMSW."""
    seen = guest_cr_read(m, 0)
    if (m.cpu.insn.modrm >> 3 & 7) == SMSW:
        if m.r.cr[4] & bits.CR4_UMIP != 0 and m.r.mode & HF_CPL != 0:
            return fault_with(exceptions.GP, 0)
        return write_operand_16(m, seen)
    if m.r.mode & HF_CPL != 0:
        return fault_with(exceptions.GP, 0)
    outcome = read_operand_16(m)
    return guest_cr_write(m, 0, seen & ~LMSW_FREE | m.walk.value & LMSW_BITS) if outcome == DONE else outcome


@kernel
def execute_guest_mov_cr(m: "State") -> int:
    """The decoded MOV CR, CLTS, LMSW or SMSW, checked not to exit, through masks and shadows. DONE: retired."""
    insn = m.cpu.insn
    size = 8 if m.r.mode & HF_CS64 != 0 else 4
    if insn.opcode == GROUP_7:
        outcome = _group_7(m)
    elif m.r.mode & HF_CPL != 0:
        outcome = fault_with(exceptions.GP, 0)
    elif insn.opcode == MOV_FROM_CR:
        write_gpr(m, insn.rm, size, guest_cr_read(m, insn.register))
        outcome = DONE
    elif insn.opcode == MOV_TO_CR:
        outcome = guest_cr_write(m, insn.register, _operand(m))
    elif insn.opcode == CLTS:
        outcome = guest_cr_write(m, 0, m.r.cr[0] & ~bits.CR0_TS)
    else:
        outcome = fault(exceptions.UD)
    if outcome == DONE:
        advance(m)
    return outcome

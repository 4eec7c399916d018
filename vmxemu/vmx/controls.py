"""Which instructions exit in VMX non-root operation. SDM Vol. 3C, 'Instructions That Cause VM Exits'.

Faults that have priority over the exit ('Relative Priority of Faults and VM Exits') come out as faults. Unicorn has
checked the privilege of what it intercepts itself; what stops as an invalid opcode, or by a hook, is checked here.
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.decode import LOCK, OPERAND_SIZE, REP, REPNE
from vmxemu.cpu.io import decode_io, io_allowed
from vmxemu.cpu.layout import HF_CPL, RAX, RDX
from vmxemu.cpu.mov_cr import CLTS, LMSW, MOV_FROM_CR, MOV_TO_CR
from vmxemu.cpu.msr import msr_index
from vmxemu.isa import bits, controls, exceptions, exits
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import host_address
from vmxemu.outcome import DONE, VM_EXIT, fault, fault_with, kind_of, vm_exit
from vmxemu.vmx.bitmaps import io_exits, msr_exits
from vmxemu.vmx.checks_controls import secondary_controls
from vmxemu.vmx.control_registers import clts_instruction, lmsw_instruction, mov_cr_instruction
from vmxemu.vmx.functions import function_exits
from vmxemu.vmx.instructions import wrong_mode
from vmxemu.vmx.opcodes import GROUP_6, GROUP_7, GROUP_9, NOT_VMX, vmx_reason
from vmxemu.vmx.qualification import (
    DR_READ,
    clear_exit,
    describe_io,
    describe_operand,
    describe_pseudo_descriptor,
    describe_random,
    describe_table_access,
    describe_with_register,
    dr_qualification,
)
from vmxemu.vmx.vmcs import vmcs_at

if TYPE_CHECKING:
    from vmxemu.state import State
    from vmxemu.vmx.vmcs import Vmcs

EXCEPTION_TRAPS, INVALID_OPCODE_TRAP, AFTER_EXCEPTIONS = U(0x140), U(0x146), U(0x160)
(
    OP_HLT,
    OP_NOP,
    OP_CPUID,
    OP_INVD,
    OP_WBINVD,
    OP_WRMSR,
    OP_RDTSC,
    OP_RDMSR,
    OP_RDPMC,
    OP_GETSEC,
    OP_INVPCID,
    MOV_FROM_DR,
    MOV_TO_DR,
) = (
    U(i) for i in (0xF4, 0x90, 0x0FA2, 0x0F08, 0x0F09, 0x0F30, 0x0F31, 0x0F32, 0x0F33, 0x0F37, 0x0F3882, 0x0F21, 0x0F23)
)
M_MONITOR, M_MWAIT, M_XSETBV, M_RDTSCP = U(0xC8), U(0xC9), U(0xD1), U(0xF9)  # ModRM bytes in group 7
LIDT_REG, INVLPG_REG = U(3), U(7)  # ModRM.reg in group 7
XSAVES_REG, XRSTORS_REG, RDRAND_REG, RDSEED_REG = U(5), U(3), U(6), U(7)  # in group 9


@kernel
def _if_set(word: int, mask: int, reason: int) -> int:
    """vm_exit(reason) if the control is 1."""
    return vm_exit(reason) if word & mask != 0 else DONE


@kernel
def _privileged(m: "State", outcome: int) -> int:
    """#GP(0) above CPL 0, else `outcome`."""
    return fault_with(exceptions.GP, 0) if m.r.mode & HF_CPL != 0 else outcome


@kernel
def _enabled(v: "Vmcs", control: int) -> bool:
    """Whether a secondary control is 1 that an instruction needs to exist in VMX non-root operation."""
    return secondary_controls(v) & control != 0


@kernel
def _vmx_instruction(m: "State", v: "Vmcs", reason: int) -> int:
    if reason == exits.VMFUNC:
        return function_exits(m, v)
    if reason != exits.VMCALL and wrong_mode(m):
        return fault(exceptions.UD)
    if reason == exits.VMREAD or reason == exits.VMWRITE or reason == exits.INVEPT or reason == exits.INVVPID:
        describe_with_register(m)
    elif reason == exits.VMCLEAR or reason == exits.VMPTRLD or reason == exits.VMPTRST or reason == exits.VMXON:
        describe_operand(m)
    return vm_exit(reason)


@kernel
def _time_stamp(m: "State", v: "Vmcs", reason: int) -> int:
    """RDTSC and RDTSCP: CR4.TSD's #GP(0) first."""
    if reason == exits.RDTSCP and not _enabled(v, controls.SECONDARY_RDTSCP):
        return fault(exceptions.UD)
    if m.r.cr[4] & bits.CR4_TSD != 0 and m.r.mode & HF_CPL != 0 and m.r.cr[0] & bits.CR0_PE != 0:
        return fault_with(exceptions.GP, 0)
    return _if_set(v.cpu_based_vm_exec_control, controls.CPU_RDTSC, reason)


@kernel
def _group_7_register(m: "State", v: "Vmcs", modrm: int) -> int:
    primary = v.cpu_based_vm_exec_control
    if modrm == M_RDTSCP:
        return _time_stamp(m, v, exits.RDTSCP)
    if modrm == M_MONITOR or modrm == M_MWAIT:
        if m.r.mode & HF_CPL != 0:
            return fault(exceptions.UD)
        return (
            _if_set(primary, controls.CPU_MONITOR, exits.MONITOR)
            if modrm == M_MONITOR
            else _if_set(primary, controls.CPU_MWAIT, exits.MWAIT)
        )
    if modrm == M_XSETBV:
        return fault(exceptions.UD) if m.r.cr[4] & bits.CR4_OSXSAVE == 0 else _privileged(m, vm_exit(exits.XSETBV))
    return DONE


@kernel
def _group_7(m: "State", v: "Vmcs") -> int:
    """SGDT SIDT LGDT LIDT SMSW LMSW INVLPG, MONITOR MWAIT XSETBV RDTSCP."""
    insn = m.cpu.insn
    which = insn.modrm >> 3 & 7
    if which == LMSW:
        return lmsw_instruction(m, v)
    if insn.is_memory == 0:
        return _group_7_register(m, v, insn.modrm)
    if which <= LIDT_REG:
        if not _enabled(v, controls.SECONDARY_DESCRIPTOR_TABLE):
            return DONE
        describe_pseudo_descriptor(m, which)
        return vm_exit(exits.GDTR_IDTR)
    if which == INVLPG_REG and v.cpu_based_vm_exec_control & controls.CPU_INVLPG != 0:
        m.exit.qualification = insn.linear
        return vm_exit(exits.INVLPG)
    return DONE


@kernel
def _group_6(m: "State", v: "Vmcs") -> int:
    """SLDT STR LLDT LTR."""
    which = m.cpu.insn.modrm >> 3 & 7
    if which > 3 or not _enabled(v, controls.SECONDARY_DESCRIPTOR_TABLE):
        return DONE
    describe_table_access(m, which)
    return vm_exit(exits.LDTR_TR)


@kernel
def _state_instruction(m: "State", v: "Vmcs", reason: int) -> int:
    """XSAVES and XRSTORS: exit for components that are both in IA32_XSS and in the XSS-exiting bitmap."""
    if not _enabled(v, controls.SECONDARY_XSAVES):
        return fault(exceptions.UD)
    if m.r.mode & HF_CPL != 0:
        return fault_with(exceptions.GP, 0)
    asked = m.r.gpr[RDX] << 32 | m.r.gpr[RAX] & 0xFFFF_FFFF
    if asked & m.cpu.xss & v.xss_exit_bitmap == 0:
        return DONE
    describe_operand(m)
    return vm_exit(reason)


@kernel
def _group_9(m: "State", v: "Vmcs") -> int:
    """RDRAND RDSEED XSAVES XRSTORS."""
    which = m.cpu.insn.modrm >> 3 & 7
    if m.cpu.insn.is_memory != 0:
        if which == XSAVES_REG:
            return _state_instruction(m, v, exits.XSAVES)
        return _state_instruction(m, v, exits.XRSTORS) if which == XRSTORS_REG else DONE
    if which == RDRAND_REG and _enabled(v, controls.SECONDARY_RDRAND):
        describe_random(m)
        return vm_exit(exits.RDRAND)
    if which == RDSEED_REG and _enabled(v, controls.SECONDARY_RDSEED):
        describe_random(m)
        return vm_exit(exits.RDSEED)
    return DONE


@kernel
def _invpcid(m: "State", v: "Vmcs") -> int:
    insn = m.cpu.insn
    if (
        insn.is_memory == 0
        or insn.prefixes & (OPERAND_SIZE | REPNE | REP) != OPERAND_SIZE
        or not _enabled(v, controls.SECONDARY_INVPCID)
    ):
        return fault(exceptions.UD)
    if m.r.mode & HF_CPL != 0:
        return fault_with(exceptions.GP, 0)
    if v.cpu_based_vm_exec_control & controls.CPU_INVLPG == 0:
        return DONE
    describe_with_register(m)
    return vm_exit(exits.INVPCID)


@kernel
def _mov_dr(m: "State", v: "Vmcs") -> int:
    insn = m.cpu.insn
    if v.cpu_based_vm_exec_control & controls.CPU_MOV_DR == 0:
        return DONE
    if insn.prefixes & LOCK != 0 or insn.register > 7 or (insn.register & 6 == 4 and m.r.cr[4] & bits.CR4_DE != 0):
        return fault(exceptions.UD)
    access = DR_READ if insn.opcode == MOV_FROM_DR else 0
    m.exit.qualification = dr_qualification(insn.register, access, insn.rm)
    return _privileged(m, vm_exit(exits.DR_ACCESS))


@kernel
def _io(m: "State", v: "Vmcs") -> int:
    if decode_io(m) != DONE:
        return DONE
    io = m.cpu.io
    outcome = io_allowed(m, io.port, io.size)
    if outcome != DONE:
        return outcome
    if not io_exits(v, host_address(m, v.io_bitmap_a), host_address(m, v.io_bitmap_b), io.port, io.size):
        return DONE
    describe_io(m)
    return vm_exit(exits.IO_INSTRUCTION)


@kernel
def _msr(m: "State", v: "Vmcs", is_write: int) -> int:
    if not msr_exits(v, host_address(m, v.msr_bitmap), msr_index(m), is_write):
        return DONE
    return _privileged(m, vm_exit(exits.WRMSR if is_write != 0 else exits.RDMSR))


@kernel
def _one_byte(m: "State", v: "Vmcs", opcode: int) -> int:
    primary = v.cpu_based_vm_exec_control
    if opcode == OP_HLT:
        return _if_set(primary, controls.CPU_HLT, exits.HLT)
    if opcode == OP_NOP:  # with REP: PAUSE
        return _if_set(primary, controls.CPU_PAUSE, exits.PAUSE) if m.cpu.insn.prefixes & REP != 0 else DONE
    return _io(m, v)


@kernel
def _two_bytes(m: "State", v: "Vmcs", opcode: int) -> int:
    primary = v.cpu_based_vm_exec_control
    if opcode == OP_RDMSR or opcode == OP_WRMSR:
        return _msr(m, v, 1 if opcode == OP_WRMSR else 0)
    if opcode == OP_RDTSC:
        return _time_stamp(m, v, exits.RDTSC)
    if opcode == MOV_FROM_CR or opcode == MOV_TO_CR:
        return mov_cr_instruction(m, v)
    if opcode == MOV_FROM_DR or opcode == MOV_TO_DR:
        return _mov_dr(m, v)
    if opcode == CLTS:
        return clts_instruction(m, v)
    if opcode == OP_RDPMC:
        return _if_set(primary, controls.CPU_RDPMC, exits.RDPMC)
    if opcode == OP_WBINVD:
        return _if_set(secondary_controls(v), controls.SECONDARY_WBINVD, exits.WBINVD)
    if opcode == OP_INVD:
        return vm_exit(exits.INVD)
    if opcode == OP_GETSEC:
        return vm_exit(exits.GETSEC) if m.r.cr[4] & bits.CR4_SMXE != 0 else fault(exceptions.UD)
    return _invpcid(m, v) if opcode == OP_INVPCID else DONE


@kernel
def decide(m: "State", v: "Vmcs") -> int:
    """By the decoded instruction alone: vm_exit, a fault that comes first, or DONE for an instruction that does not
    exit."""
    opcode = m.cpu.insn.opcode
    if opcode == OP_CPUID:
        return vm_exit(exits.CPUID)
    reason = vmx_reason(m)
    if reason != NOT_VMX:
        return _vmx_instruction(m, v, reason)
    if opcode < 0x0F00:
        return _one_byte(m, v, opcode)
    if opcode == GROUP_7:
        return _group_7(m, v)
    if opcode == GROUP_6:
        return _group_6(m, v)
    return _group_9(m, v) if opcode == GROUP_9 else _two_bytes(m, v, opcode)


@kernel
def instruction_exits(m: "State", trap: int) -> int:
    """In VMX non-root operation, with m.cpu.insn decoded: vm_exit(reason) with `m.exit` filled, a fault that has
    priority, or DONE:
    emulate the instruction. `trap` is Unicorn's interrupt number; an exception other than #UD is none of this
    kernel's business."""
    if trap >= EXCEPTION_TRAPS and trap < AFTER_EXCEPTIONS and trap != INVALID_OPCODE_TRAP:
        return DONE
    clear_exit(m)
    outcome = decide(m, vmcs_at(m.vmx.host_address))
    if kind_of(outcome) == VM_EXIT:
        m.exit.instruction_length = m.cpu.insn.length
    return outcome

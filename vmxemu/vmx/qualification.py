"""What a VM exit says of the instruction that caused it: exit qualification and VM-exit instruction information.

SDM Vol. 3C, 'Basic VM-Exit Information' (qualification tables) and 'Information for VM Exits Due to Instruction
Execution'.
The instruction is the decoded one, `m.cpu.insn`.
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.io import element_address
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U

if TYPE_CHECKING:
    from vmxemu.state import State

NO_REGISTER = U(16)
REGISTER_FORM = U(1 << 10)
NO_INDEX, NO_BASE = U(1 << 22), U(1 << 27)
MOV_TO, MOV_FROM, CLTS_ACCESS, LMSW_ACCESS = U(0 << 4), U(1 << 4), U(2 << 4), U(3 << 4)
LMSW_FROM_MEMORY = U(1 << 6)
IO_IN, IO_STRING, IO_REP, IO_IMMEDIATE = U(1 << 3), U(1 << 4), U(1 << 5), U(1 << 6)
DR_READ = U(1 << 4)


@kernel
def clear_exit(m: "State") -> None:
    """Forget the facts of the latest exit, before those of the next one are collected."""
    what = m.exit
    what.qualification = 0
    what.interruption_info = 0
    what.interruption_error = 0
    what.instruction_length = 0
    what.instruction_info = 0
    what.guest_linear = 0
    what.guest_physical = 0


@kernel
def operand_information(m: "State") -> int:
    """Scale, address size, form, segment, index and base of the ModRM operand: what all instruction-information
    formats share."""
    insn = m.cpu.insn
    if insn.is_memory == 0:
        return REGISTER_FORM | insn.rm << 3
    info = insn.scale | insn.address_bytes >> 2 << 7 | insn.segment << 15
    info = info | (NO_INDEX if insn.index == NO_REGISTER else insn.index << 18)
    return info | (NO_BASE if insn.base == NO_REGISTER else insn.base << 23)


@kernel
def operand_displacement(m: "State") -> int:
    """Exit qualification of instructions with a memory operand: the displacement (RIP-relative: the address), 0 for a
    register."""
    return m.cpu.insn.displacement if m.cpu.insn.is_memory != 0 else 0


@kernel
def describe_operand(m: "State") -> None:
    """VMCLEAR, VMPTRLD, VMPTRST, VMXON, XSAVES, XRSTORS."""
    m.exit.qualification = operand_displacement(m)
    m.exit.instruction_info = operand_information(m)


@kernel
def describe_with_register(m: "State") -> None:
    """VMREAD, VMWRITE, INVEPT, INVVPID, INVPCID: the ModRM.reg operand in bits 31:28."""
    describe_operand(m)
    m.exit.instruction_info = m.exit.instruction_info | m.cpu.insn.register << 28


@kernel
def describe_table_access(m: "State", identity: int) -> None:
    """LGDT, LIDT, SGDT, SIDT and LLDT, LTR, SLDT, STR: which one in bits 29:28."""
    describe_operand(m)
    m.exit.instruction_info = m.exit.instruction_info | identity << 28


@kernel
def describe_pseudo_descriptor(m: "State", identity: int) -> None:
    """GDTR and IDTR accesses also tell the operand size (1 = 32 bits)."""
    describe_table_access(m, identity)
    if m.cpu.insn.operand_bytes == 4:
        m.exit.instruction_info = m.exit.instruction_info | 1 << 11


@kernel
def describe_random(m: "State") -> None:
    """RDRAND and RDSEED: destination register and operand size."""
    insn = m.cpu.insn
    m.exit.instruction_info = insn.rm << 3 | insn.operand_bytes >> 2 << 11


@kernel
def cr_qualification(number: int, access: int, register: int) -> int:
    """Control-register access: `access` is one of MOV_TO, MOV_FROM, CLTS_ACCESS, LMSW_ACCESS."""
    return number | access | register << 8


@kernel
def dr_qualification(number: int, access: int, register: int) -> int:
    """MOV DR: `access` is 0 for MOV to DR, DR_READ for MOV from DR."""
    return number | access | register << 8


@kernel
def describe_io(m: "State") -> None:
    """I/O instruction, from `m.cpu.io`; INS and OUTS also give address size, segment and linear address."""
    io = m.cpu.io
    what = io.size - 1 | io.port << 16
    what = what | (IO_IN if io.is_in != 0 else 0) | (IO_STRING if io.is_string != 0 else 0)
    m.exit.qualification = what | (IO_REP if io.is_rep != 0 else 0) | (IO_IMMEDIATE if io.is_immediate != 0 else 0)
    if io.is_string != 0:
        info = m.cpu.insn.address_bytes >> 2 << 7
        m.exit.instruction_info = info if io.is_in != 0 else info | m.cpu.insn.segment << 15
        m.exit.guest_linear = element_address(m)

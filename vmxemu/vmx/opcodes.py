"""Which VMX instruction the decoded instruction is. SDM Vol. 3C, 'VMX Instruction Reference'."""

from typing import TYPE_CHECKING

from vmxemu.cpu.decode import LOCK, OPERAND_SIZE, REP, REPNE
from vmxemu.isa import exits
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U

if TYPE_CHECKING:
    from vmxemu.state import State

GROUP_6, GROUP_7, GROUP_9 = U(0x0F00), U(0x0F01), U(0x0FC7)
OP_VMREAD, OP_VMWRITE, OP_INVEPT, OP_INVVPID = U(0x0F78), U(0x0F79), U(0x0F3880), U(0x0F3881)
MANDATORY = OPERAND_SIZE | REPNE | REP
NOT_VMX = U(0)  # no VMX instruction has exit reason 0


@kernel
def _group_7(modrm: int) -> int:
    if modrm == 0xC1:
        return exits.VMCALL
    if modrm == 0xC2:
        return exits.VMLAUNCH
    if modrm == 0xC3:
        return exits.VMRESUME
    if modrm == 0xC4:
        return exits.VMXOFF
    return exits.VMFUNC if modrm == 0xD4 else NOT_VMX


@kernel
def _group_9(modrm: int, prefix: int) -> int:
    which = modrm >> 3 & 7
    if which == 7:
        return exits.VMPTRST if prefix == 0 else NOT_VMX
    if which != 6 or prefix & REPNE != 0:
        return NOT_VMX
    if prefix & REP != 0:
        return exits.VMXON
    return exits.VMCLEAR if prefix & OPERAND_SIZE != 0 else exits.VMPTRLD


@kernel
def vmx_reason(m: "State") -> int:
    """The basic exit reason that names the decoded VMX instruction, NOT_VMX for any other instruction."""
    insn = m.cpu.insn
    prefix = insn.prefixes & MANDATORY
    if insn.prefixes & LOCK != 0:
        return NOT_VMX
    if insn.opcode == GROUP_9:
        return _group_9(insn.modrm, prefix) if insn.is_memory != 0 else NOT_VMX
    if insn.opcode == OP_INVEPT or insn.opcode == OP_INVVPID:
        if prefix != OPERAND_SIZE or insn.is_memory == 0:
            return NOT_VMX
        return exits.INVEPT if insn.opcode == OP_INVEPT else exits.INVVPID
    if prefix != 0:
        return NOT_VMX
    if insn.opcode == GROUP_7:
        return _group_7(insn.modrm)
    if insn.opcode == OP_VMREAD:
        return exits.VMREAD
    return exits.VMWRITE if insn.opcode == OP_VMWRITE else NOT_VMX

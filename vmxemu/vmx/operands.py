"""Operands of VMX instructions: pointers and descriptors in memory, and VMREAD's and VMWRITE's register or memory
operand."""

from typing import TYPE_CHECKING

from vmxemu.cpu.layout import HF_CS64
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.outcome import DONE
from vmxemu.translation.access import read_linear, write_linear
from vmxemu.translation.layout import READ, WRITE

if TYPE_CHECKING:
    from vmxemu.state import State
    from vmxemu.vmx.layout import Vmx

LOW_HALF = U(0xFFFF_FFFF)


@kernel
def operand_bytes(m: "State") -> int:
    """Size of register operands of VMX instructions: 8 in 64-bit mode, else 4; prefixes do not change it."""
    return 8 if m.r.mode & HF_CS64 != 0 else 4


@kernel
def read_register(m: "State", number: int) -> int:
    """A general register in the operand size."""
    return m.r.gpr[number] if m.r.mode & HF_CS64 != 0 else m.r.gpr[number] & LOW_HALF


@kernel
def read_pointer(m: "State") -> int:
    """The 64-bit operand of VMXON, VMCLEAR and VMPTRLD, into `m.walk.value`. Outcomes: DONE or the access's."""
    return read_linear(m, m.cpu.insn.linear, 8, READ)


@kernel
def write_pointer(m: "State", value: int) -> int:
    """Store VMPTRST's 64-bit operand."""
    return write_linear(m, m.cpu.insn.linear, 8, value, WRITE)


@kernel
def read_descriptor(m: "State", vmx: "Vmx") -> int:
    """The 128-bit operand of INVEPT and INVVPID, into `vmx.operand_low` and `vmx.operand_high`."""
    outcome = read_linear(m, m.cpu.insn.linear, 8, READ)
    if outcome != DONE:
        return outcome
    vmx.operand_low = m.walk.value
    outcome = read_linear(m, m.cpu.insn.linear + 8, 8, READ)
    vmx.operand_high = m.walk.value
    return outcome


@kernel
def read_rm(m: "State") -> int:
    """VMWRITE's source, register or memory, into `m.walk.value`."""
    if m.cpu.insn.is_memory == 0:
        m.walk.value = read_register(m, m.cpu.insn.rm)
        return DONE
    return read_linear(m, m.cpu.insn.linear, operand_bytes(m), READ)


@kernel
def write_rm(m: "State", value: int) -> int:
    """VMREAD's destination, register or memory."""
    if m.cpu.insn.is_memory == 0:
        m.r.gpr[m.cpu.insn.rm] = value if m.r.mode & HF_CS64 != 0 else value & LOW_HALF
        return DONE
    return write_linear(m, m.cpu.insn.linear, operand_bytes(m), value, WRITE)

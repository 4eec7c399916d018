"""PUSHF and POPF in every mode. SDM Vol. 2B.

CR4.VME is not modelled: in virtual-8086 mode IOPL below 3 is always #GP(0).
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.decode import OPERAND_SIZE, advance
from vmxemu.cpu.flags import AC, IF, IOPL, IOPL_SHIFT, RF, VIF, VIP, VM, WRITABLE, read_flags, write_flags
from vmxemu.cpu.layout import HF_CS64
from vmxemu.cpu.mode import cpl, is_virtual_8086, refresh_mode
from vmxemu.cpu.stack import pop, push
from vmxemu.isa import exceptions
from vmxemu.isa.bits import CR4_SMAP
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, fault_with

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
NOT_POPPED = VM | RF | VIF | VIP  # unchanged by POPF; RF is cleared
LOW_WORD = U(0xFFFF)


@kernel
def _size(m: "State") -> int:
    insn = m.cpu.insn
    if m.r.mode & HF_CS64 != 0:
        return 2 if insn.prefixes & OPERAND_SIZE != 0 and insn.operand_bytes == 2 else 8
    return insn.operand_bytes


@kernel
def _refused_in_virtual_8086(m: "State") -> bool:
    return is_virtual_8086(m) and m.r.eflags & IOPL != IOPL


@kernel
def push_flags(m: "State") -> int:
    """PUSHF, PUSHFD, PUSHFQ."""
    if _refused_in_virtual_8086(m):
        return fault_with(exceptions.GP, 0)
    outcome = push(m, _size(m), read_flags(m) & ~(VM | RF))
    if outcome == DONE:
        advance(m)
    return outcome


@kernel
def change_user_flags(m: "State", value: int, changeable: int) -> None:
    """Write the flags in `changeable`, then everything that depends on them."""
    old = read_flags(m)
    write_flags(m, old & ~changeable | value & changeable)
    refresh_mode(m)
    if (old ^ m.r.eflags) & AC != 0 and m.r.cr[4] & CR4_SMAP != 0:
        m.engine.flush = 1


@kernel
def pop_flags(m: "State") -> int:
    """POPF, POPFD, POPFQ: what changes depends on CPL and IOPL."""
    if _refused_in_virtual_8086(m):
        return fault_with(exceptions.GP, 0)
    size = _size(m)
    outcome = pop(m, size)
    if outcome != DONE:
        return outcome
    value = m.walk.value
    changeable = WRITABLE & ~NOT_POPPED
    if size == 2:
        changeable = changeable & LOW_WORD
    if cpl(m) != 0:
        changeable = changeable & ~IOPL
        if cpl(m) > m.r.eflags >> IOPL_SHIFT & 3:
            changeable = changeable & ~IF
    advance(m)
    change_user_flags(m, value, changeable)
    return DONE

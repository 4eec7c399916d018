"""Protection keys: RDPKRU, WRPKRU and IA32_PKRS. SDM Vol. 3A, 'Protection Keys'; Vol. 2B and 2D, the instructions.

Both registers live in `m.paging`, where the walks read them. Unicorn keeps a PKRU of its own, which nobody uses: the two
instructions are stopped where they stand, as I/O instructions are (engine.code).
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.decode import OPERAND_SIZE, REP, REPNE, advance
from vmxemu.cpu.layout import RAX, RCX, RDX
from vmxemu.isa import exceptions
from vmxemu.isa.bits import CR4_PKE
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, NOT_MINE, fault_with

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
RDPKRU, WRPKRU = U(0xEE), U(0xEF)  # ModRM in group 7
LOW_HALF = U(0xFFFFFFFF)


@kernel
def write_pkru(m: "State", value: int) -> None:
    """Set PKRU; what Unicorn was allowed for user pages may no longer be right."""
    if m.paging.pkru != value:
        m.paging.pkru = value
        m.engine.flush = 1


@kernel
def write_pkrs(m: "State", value: int) -> None:
    """Set IA32_PKRS; the same for supervisor pages."""
    if m.paging.pkrs != value:
        m.paging.pkrs = value
        m.engine.flush = 1


@kernel
def execute_pkru(m: "State") -> int:
    """RDPKRU or WRPKRU, at any CPL; NOT_MINE (an invalid opcode) without CR4.PKE."""
    insn = m.cpu.insn
    if m.r.cr[4] & CR4_PKE == 0 or insn.prefixes & (OPERAND_SIZE | REP | REPNE) != 0:
        return NOT_MINE
    if m.r.gpr[RCX] & LOW_HALF != 0:
        return fault_with(exceptions.GP, 0)
    if insn.modrm == RDPKRU:
        m.r.gpr[RAX] = m.paging.pkru
        m.r.gpr[RDX] = 0
    elif m.r.gpr[RDX] & LOW_HALF != 0:
        return fault_with(exceptions.GP, 0)
    else:
        write_pkru(m, m.r.gpr[RAX] & LOW_HALF)
    advance(m)
    return DONE

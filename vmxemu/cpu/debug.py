"""MOV to and from debug registers. SDM Vol. 3B, 'Debug Registers'.

Breakpoints by DR7 do not fire: hardware breakpoints are not modelled.
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.decode import LOCK, advance
from vmxemu.cpu.layout import HF_CPL, HF_CS64
from vmxemu.cpu.mov_cr import write_gpr
from vmxemu.isa import exceptions
from vmxemu.isa.bits import CR4_DE, DR6_BD, DR7_GD
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, fault, fault_with

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
MOV_FROM_DR = U(0x0F21)
LOW_HALF = U(0xFFFFFFFF)
DR6_ONES, DR6_WRITABLE = U(0xFFFF0FF0), U(0x0000E00F)
DR7_ONES, DR7_WRITABLE = U(0x400), U(0xFFFF23FF)


@kernel
def register_number(m: "State", n: int) -> int:
    """DR4 and DR5 are DR6 and DR7 unless CR4.DE is set; 8 where there is no such register."""
    if n > 7 or ((n == 4 or n == 5) and m.r.cr[4] & CR4_DE != 0):
        return 8
    return n + 2 if n == 4 or n == 5 else n


@kernel
def _check(m: "State", n: int) -> int:
    """#UD, #GP(0) and general detect, in the manual's order."""
    if register_number(m, n) > 7:
        return fault(exceptions.UD)
    if m.r.mode & HF_CPL != 0:
        return fault_with(exceptions.GP, 0)
    if m.r.dr[7] & DR7_GD != 0:
        m.r.dr[6] = m.r.dr[6] | DR6_BD
        return fault(exceptions.DB)
    return DONE


@kernel
def read_dr(m: "State", n: int) -> int:
    """DRn into m.walk.value. Outcomes: DONE, #UD, #GP(0), #DB (general detect)."""
    outcome = _check(m, n)
    if outcome == DONE:
        m.walk.value = m.r.dr[register_number(m, n)]
    return outcome


@kernel
def write_dr(m: "State", n: int, value: int) -> int:
    """MOV to DRn; RIP does not move. The same outcomes; #GP(0) too for bits 63:32 of DR6 and DR7."""
    outcome = _check(m, n)
    if outcome != DONE:
        return outcome
    number = register_number(m, n)
    if number >= 6 and value > LOW_HALF:
        return fault_with(exceptions.GP, 0)
    if number == 6:
        value = value & DR6_WRITABLE | DR6_ONES
    elif number == 7:
        value = value & DR7_WRITABLE | DR7_ONES
    m.r.dr[number] = value
    return DONE


@kernel
def execute_mov_dr(m: "State") -> int:
    """The decoded MOV to or from DR; RIP moves on only if it succeeds."""
    insn = m.cpu.insn
    if insn.prefixes & LOCK != 0:
        return fault(exceptions.UD)
    size = 8 if m.r.mode & HF_CS64 != 0 else 4
    if insn.opcode == MOV_FROM_DR:
        outcome = read_dr(m, insn.register)
        if outcome == DONE:
            write_gpr(m, insn.rm, size, m.walk.value)
    else:
        value = m.r.gpr[insn.rm]
        outcome = write_dr(m, insn.register, value if size == 8 else value & LOW_HALF)
    if outcome == DONE:
        advance(m)
    return outcome

"""RDRAND and RDSEED from a generator of our own (SplitMix64, not secure), so that runs repeat. SDM Vol. 2B."""

from typing import TYPE_CHECKING

from vmxemu.cpu.cpuid import has_feature_ebx, has_feature_ecx
from vmxemu.cpu.decode import REP, REPNE, advance
from vmxemu.cpu.flags import ARITHMETIC, CF, read_flags, write_flags
from vmxemu.cpu.mov_cr import write_gpr
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, NOT_MINE

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
RDRAND, RDSEED = U(6), U(7)  # ModRM.reg in group 9
HAS_RDRAND, HAS_RDSEED = U(1 << 30), U(1 << 18)  # CPUID.1:ECX, CPUID.7:EBX
STEP, FIRST_FACTOR, SECOND_FACTOR = U(0x9E3779B97F4A7C15), U(0xBF58476D1CE4E5B9), U(0x94D049BB133111EB)


@kernel
def next_random(m: "State") -> int:
    """64 bits; m.cpu.random is the state and, before the first call, the seed."""
    m.cpu.random = m.cpu.random + STEP
    value = m.cpu.random
    value = (value ^ value >> 30) * FIRST_FACTOR
    value = (value ^ value >> 27) * SECOND_FACTOR
    return value ^ value >> 31


@kernel
def execute_random(m: "State") -> int:
    """RDRAND or RDSEED as decoded, NOT_MINE for the rest of group 9 and where the profile has neither."""
    insn = m.cpu.insn
    which = insn.register & 7
    if insn.is_memory != 0 or insn.prefixes & (REP | REPNE) != 0:
        return NOT_MINE
    if which == RDRAND and not has_feature_ecx(m, 1, 0, HAS_RDRAND):
        return NOT_MINE
    if which == RDSEED and not has_feature_ebx(m, 7, 0, HAS_RDSEED):
        return NOT_MINE
    if which != RDRAND and which != RDSEED:
        return NOT_MINE
    write_gpr(m, insn.rm, insn.operand_bytes, next_random(m))
    write_flags(m, read_flags(m) & ~ARITHMETIC | CF)
    advance(m)
    return DONE

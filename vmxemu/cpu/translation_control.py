"""INVLPG and INVPCID. SDM Vol. 2A."""

from typing import TYPE_CHECKING

from vmxemu.cpu.cpuid import has_feature_ebx
from vmxemu.cpu.decode import OPERAND_SIZE, advance
from vmxemu.cpu.layout import HF_CPL, HF_CS64
from vmxemu.cpu.mode import is_canonical, is_virtual_8086
from vmxemu.isa import exceptions
from vmxemu.isa.bits import CR4_PCIDE
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, NOT_MINE, fault, fault_with
from vmxemu.timing import costs
from vmxemu.timing.clock import charge_event
from vmxemu.translation.access import read_linear
from vmxemu.translation.invalidate import INVPCID_ADDRESS, INVPCID_RETAIN_GLOBALS, INVPCID_SINGLE, invlpg, invpcid
from vmxemu.translation.layout import READ

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
HAS_INVPCID = U(1 << 10)  # CPUID.7:EBX
PCID_MASK = U(0xFFF)
LOW_HALF = U(0xFFFFFFFF)


@kernel
def invalidate_page(m: "State") -> int:
    """INVLPG as decoded."""
    if m.cpu.insn.is_memory == 0:
        return fault(exceptions.UD)
    if m.r.mode & HF_CPL != 0:
        return fault_with(exceptions.GP, 0)
    charge_event(m, costs.INVLPG)
    if is_canonical(m, m.cpu.insn.linear):
        invlpg(m, m.cpu.insn.linear)
    advance(m)
    return DONE


@kernel
def _refuses(m: "State", kind: int, low: int, gla: int) -> bool:
    """Whether the type and descriptor are a #GP(0)."""
    pcid = low & PCID_MASK
    if kind > INVPCID_RETAIN_GLOBALS or low != pcid:
        return True
    if kind == INVPCID_ADDRESS and not is_canonical(m, gla):
        return True
    return kind <= INVPCID_SINGLE and m.r.cr[4] & CR4_PCIDE == 0 and pcid != 0


@kernel
def invalidate_pcid(m: "State") -> int:
    """INVPCID as decoded."""
    insn = m.cpu.insn
    if insn.is_memory == 0 or insn.prefixes & OPERAND_SIZE == 0 or not has_feature_ebx(m, 7, 0, HAS_INVPCID):
        return NOT_MINE
    if m.r.mode & HF_CPL != 0 or is_virtual_8086(m):
        return fault_with(exceptions.GP, 0)
    outcome = read_linear(m, insn.linear, 8, READ)
    if outcome != DONE:
        return outcome
    low = m.walk.value
    outcome = read_linear(m, insn.linear + 8, 8, READ)
    if outcome != DONE:
        return outcome
    gla = m.walk.value
    kind = m.r.gpr[insn.register]
    if m.r.mode & HF_CS64 == 0:
        kind = kind & LOW_HALF
    if _refuses(m, kind, low, gla):
        return fault_with(exceptions.GP, 0)
    charge_event(m, costs.INVLPG)
    invpcid(m, kind, low & PCID_MASK, gla)
    advance(m)
    return DONE

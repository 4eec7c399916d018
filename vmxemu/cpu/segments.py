"""System-segment and descriptor-table instructions: LLDT, LTR, SLDT, STR, LGDT, LIDT, SGDT, SIDT. SDM Vol. 2."""

from typing import TYPE_CHECKING

from vmxemu.cpu.descriptors import (
    PRESENT,
    is_null,
    is_within_table,
    load_null,
    load_segment,
    read_descriptor,
    read_long_descriptor,
    set_descriptor_bits,
    system_type,
)
from vmxemu.cpu.layout import GDTR, HF_CPL, HF_CS64, IDTR, LDTR, TR
from vmxemu.cpu.mode import is_canonical, is_protected, is_virtual_8086
from vmxemu.cpu.mov_cr import read_operand_16, write_operand_16
from vmxemu.isa import exceptions
from vmxemu.isa.bits import CR4_UMIP, EFER_LMA
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, fault, fault_with
from vmxemu.translation.access import read_linear, write_linear
from vmxemu.translation.layout import READ, WRITE

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
SLDT, STR, LLDT, LTR = U(0), U(1), U(2), U(3)  # ModRM.reg in group 6 (0F 00)
SGDT, SIDT, LGDT, LIDT = U(0), U(1), U(2), U(3)  # ModRM.reg in group 7 (0F 01), memory forms
LDT_TYPE, TSS_16_AVAILABLE, TSS_AVAILABLE = U(2), U(1), U(9)
BUSY = U(1 << 41)
TABLE = U(4)
TWENTY_FOUR_BITS = U(0xFFFFFF)


@kernel
def _refused(selector: int) -> int:
    return fault_with(exceptions.GP, selector & 0xFFFC)


@kernel
def _read_system_descriptor(m: "State", selector: int) -> int:
    """A descriptor for LDTR or TR: from the GDT, 16 bytes in IA-32e mode."""
    m.cpu.descriptor_high = 0
    if m.r.efer & EFER_LMA == 0:
        if selector & TABLE != 0 or not is_within_table(m, selector, 8):
            return _refused(selector)
        return read_descriptor(m, selector)
    if selector & TABLE != 0 or not is_within_table(m, selector, 16):
        return _refused(selector)
    outcome = read_long_descriptor(m, selector)
    if outcome == DONE and not is_canonical(m, m.cpu.descriptor_high << 32):
        return _refused(selector)
    return outcome


@kernel
def _load_system_segment(m: "State", register: int, selector: int, descriptor: int) -> None:
    load_segment(m, register, selector, descriptor)
    m.r.seg[register].base = m.r.seg[register].base | m.cpu.descriptor_high << 32


@kernel
def load_ldt(m: "State", selector: int) -> int:
    """LLDT."""
    if is_null(selector):
        load_null(m, LDTR, selector, 0)
        return DONE
    outcome = _read_system_descriptor(m, selector)
    if outcome != DONE:
        return outcome
    if system_type(m.cpu.descriptor) != LDT_TYPE:
        return _refused(selector)
    if m.cpu.descriptor & PRESENT == 0:
        return fault_with(exceptions.NP, selector & 0xFFFC)
    _load_system_segment(m, LDTR, selector, m.cpu.descriptor)
    return DONE


@kernel
def load_task_register(m: "State", selector: int) -> int:
    """LTR: the TSS becomes busy."""
    if is_null(selector):
        return fault_with(exceptions.GP, 0)
    outcome = _read_system_descriptor(m, selector)
    if outcome != DONE:
        return outcome
    kind = system_type(m.cpu.descriptor)
    if kind != TSS_AVAILABLE and (kind != TSS_16_AVAILABLE or m.r.efer & EFER_LMA != 0):
        return _refused(selector)
    if m.cpu.descriptor & PRESENT == 0:
        return fault_with(exceptions.NP, selector & 0xFFFC)
    outcome = set_descriptor_bits(m, selector, m.cpu.descriptor, BUSY)
    if outcome == DONE:
        _load_system_segment(m, TR, selector, m.cpu.descriptor | BUSY)
    return outcome


@kernel
def group_6(m: "State") -> int:
    """SLDT, STR, LLDT, LTR as decoded; RIP does not move. #UD in real and virtual-8086 mode."""
    which = m.cpu.insn.register & 7
    if not is_protected(m) or is_virtual_8086(m) or which > LTR:
        return fault(exceptions.UD)
    if which <= STR:
        if m.r.cr[4] & CR4_UMIP != 0 and m.r.mode & HF_CPL != 0:
            return fault_with(exceptions.GP, 0)
        return write_operand_16(m, m.r.seg[LDTR if which == SLDT else TR].selector)
    if m.r.mode & HF_CPL != 0:
        return fault_with(exceptions.GP, 0)
    outcome = read_operand_16(m)
    if outcome != DONE:
        return outcome
    selector = m.walk.value
    return load_ldt(m, selector) if which == LLDT else load_task_register(m, selector)


@kernel
def _store_table(m: "State", register: int) -> int:
    insn = m.cpu.insn
    if m.r.cr[4] & CR4_UMIP != 0 and m.r.mode & HF_CPL != 0:
        return fault_with(exceptions.GP, 0)
    outcome = write_linear(m, insn.linear, 2, m.r.seg[register].limit & 0xFFFF, WRITE)
    if outcome != DONE:
        return outcome
    return write_linear(m, insn.linear + 2, 8 if m.r.mode & HF_CS64 != 0 else 4, m.r.seg[register].base, WRITE)


@kernel
def _load_table(m: "State", register: int) -> int:
    insn = m.cpu.insn
    if m.r.mode & HF_CPL != 0:
        return fault_with(exceptions.GP, 0)
    outcome = read_linear(m, insn.linear, 2, READ)
    if outcome != DONE:
        return outcome
    limit = m.walk.value
    wide = m.r.mode & HF_CS64 != 0
    outcome = read_linear(m, insn.linear + 2, 8 if wide else 4, READ)
    if outcome != DONE:
        return outcome
    base = m.walk.value
    if wide and not is_canonical(m, base):
        return fault_with(exceptions.GP, 0)
    if not wide and insn.operand_bytes == 2:
        base = base & TWENTY_FOUR_BITS
    m.r.seg[register].base = base
    m.r.seg[register].limit = limit
    return DONE


@kernel
def descriptor_table(m: "State") -> int:
    """SGDT, SIDT, LGDT, LIDT as decoded (memory forms of group 7); RIP does not move."""
    which = m.cpu.insn.register & 7
    register = GDTR if which == SGDT or which == LGDT else IDTR
    return _store_table(m, register) if which <= SIDT else _load_table(m, register)

"""Delivery through the IDT of protected mode, from virtual-8086 mode too.

SDM Vol. 2A, 'INT n'; Vol. 3A, 'Interrupt and Exception Handling'.
"""

from typing import TYPE_CHECKING

from vmxemu import report
from vmxemu.cpu.descriptors import (
    ACCESSED,
    BIG,
    CODE,
    CODE_OR_DATA,
    CONFORMING,
    PRESENT,
    SYSTEM_READ,
    WRITABLE,
    base_of,
    dpl_of,
    is_null,
    is_within_table,
    limit_of,
    load_null,
    load_segment,
    read_descriptor,
    set_descriptor_bits,
)
from vmxemu.cpu.flags import IOPL, VM
from vmxemu.cpu.frame import commit_stack, current_stack, push_value, saved_flags, set_access
from vmxemu.cpu.gate import check_gate, enter_handler, read_gate, read_handler_segment, selector_error
from vmxemu.cpu.layout import CS, DS, ES, FS, GS, IDTR, RSP, SS, TR
from vmxemu.cpu.mode import cpl
from vmxemu.isa import exceptions
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, UNMODELLED, fault_with
from vmxemu.translation.access import read_linear

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
TASK_GATE, INTERRUPT_GATE_16, TRAP_GATE_16, INTERRUPT_GATE_32, TRAP_GATE_32 = U(5), U(6), U(7), U(14), U(15)
GATE_FAMILY = U(0x16)  # of the type, the bits in which 16/32-bit interrupt and trap gates agree
GATE_32 = U(8)
TSS_32 = U(0x800)  # in the flags of TR
SOFTWARE_INTERRUPT = U(4)
ERROR_CODE_VALID = U(1 << 11)


@kernel
def _read_idt(m: "State", vector: int, info: int) -> int:
    d = m.cpu.delivery
    if vector * 8 + 7 > m.r.seg[IDTR].limit:
        return fault_with(exceptions.GP, d.gate_error)
    outcome = read_linear(m, m.r.seg[IDTR].base + vector * 8, 8, SYSTEM_READ)
    if outcome != DONE:
        return outcome
    gate = m.walk.value
    read_gate(m, gate)
    kind = d.gate_type
    if kind != TASK_GATE and kind & GATE_FAMILY != INTERRUPT_GATE_16:
        return fault_with(exceptions.GP, d.gate_error)
    outcome = check_gate(m, gate, info)
    if outcome == DONE and kind == TASK_GATE:
        m.report.reason = report.UNMODELLED_FEATURE
        m.report.feature = report.TASK_GATE
        m.report.value = vector
        return UNMODELLED
    if kind & GATE_32 == 0:
        d.offset = d.offset & 0xFFFF
    return outcome


@kernel
def _read_tss_stack(m: "State") -> int:
    """SP and SS of the new privilege level from the TSS, 16- or 32-bit."""
    d = m.cpu.delivery
    tss = m.r.seg[TR]
    size = 4 if tss.flags & TSS_32 != 0 else 2
    offset = size + size * 2 * d.new_cpl
    if offset + 2 * size - 1 > tss.limit:
        return fault_with(exceptions.TS, selector_error(m, tss.selector))
    outcome = read_linear(m, tss.base + offset, size, SYSTEM_READ)
    if outcome != DONE:
        return outcome
    d.sp = m.walk.value
    outcome = read_linear(m, tss.base + offset + size, 2, SYSTEM_READ)
    d.stack_selector = m.walk.value
    return outcome


@kernel
def _inner_stack(m: "State") -> int:
    """The stack of the inner privilege level and its checks."""
    d = m.cpu.delivery
    outcome = _read_tss_stack(m)
    if outcome != DONE:
        return outcome
    if is_null(d.stack_selector):
        return fault_with(exceptions.TS, d.external)
    error = selector_error(m, d.stack_selector)
    if not is_within_table(m, d.stack_selector, 8) or d.stack_selector & 3 != d.new_cpl:
        return fault_with(exceptions.TS, error)
    outcome = read_descriptor(m, d.stack_selector)
    if outcome != DONE:
        return outcome
    descriptor = m.cpu.descriptor
    d.stack_descriptor = descriptor
    if dpl_of(descriptor) != d.new_cpl or descriptor & (CODE_OR_DATA | CODE | WRITABLE) != CODE_OR_DATA | WRITABLE:
        return fault_with(exceptions.TS, error)
    if descriptor & PRESENT == 0:
        return fault_with(exceptions.SS, error)
    d.sp_mask = 0xFFFFFFFF if descriptor & BIG != 0 else 0xFFFF
    d.sp = d.sp & d.sp_mask
    d.stack_base = base_of(descriptor)
    d.stack_changes = 1
    return DONE


@kernel
def _choose_stack(m: "State") -> int:
    d = m.cpu.delivery
    if m.r.eflags & VM != 0 and (d.code & CONFORMING != 0 or d.new_cpl != 0):
        return fault_with(exceptions.GP, selector_error(m, d.selector))
    set_access(m)
    if d.new_cpl < cpl(m):
        return _inner_stack(m)
    current_stack(m)
    return DONE


@kernel
def _push_frame(m: "State", vector: int, info: int, error_code: int, next_rip: int) -> None:
    d = m.cpu.delivery
    d.frame_bytes = 4 if d.gate_type & GATE_32 != 0 else 2
    if m.r.eflags & VM != 0:
        push_value(m, m.r.seg[GS].selector)
        push_value(m, m.r.seg[FS].selector)
        push_value(m, m.r.seg[DS].selector)
        push_value(m, m.r.seg[ES].selector)
    if d.stack_changes != 0:
        push_value(m, m.r.seg[SS].selector)
        push_value(m, m.r.gpr[RSP])
    push_value(m, saved_flags(m, vector, info))
    push_value(m, m.r.seg[CS].selector)
    push_value(m, next_rip)
    if info & ERROR_CODE_VALID != 0:
        push_value(m, error_code)


@kernel
def _commit(m: "State") -> int:
    """Everything has succeeded but the accessed bits."""
    d = m.cpu.delivery
    if d.stack_changes != 0:
        outcome = set_descriptor_bits(m, d.stack_selector, d.stack_descriptor, ACCESSED)
        if outcome != DONE:
            return outcome
    from_virtual_8086 = m.r.eflags & VM != 0
    outcome = enter_handler(m)
    if outcome != DONE:
        return outcome
    if d.stack_changes != 0:
        load_segment(m, SS, d.stack_selector, d.stack_descriptor | ACCESSED)
    commit_stack(m)
    if from_virtual_8086:
        load_null(m, GS, 0, 0)
        load_null(m, FS, 0, 0)
        load_null(m, DS, 0, 0)
        load_null(m, ES, 0, 0)
    return DONE


@kernel
def deliver_protected(m: "State", vector: int, info: int, error_code: int, next_rip: int) -> int:
    """One event in protected or virtual-8086 mode."""
    d = m.cpu.delivery
    if m.r.eflags & VM != 0 and info >> 8 & 7 == SOFTWARE_INTERRUPT and m.r.eflags & IOPL != IOPL:
        return fault_with(exceptions.GP, 0)
    outcome = _read_idt(m, vector, info)
    if outcome == DONE:
        outcome = read_handler_segment(m, 0)
    if outcome == DONE:
        outcome = _choose_stack(m)
    if outcome != DONE:
        return outcome
    if d.offset > limit_of(d.code):
        return fault_with(exceptions.GP, d.external)
    _push_frame(m, vector, info, error_code, next_rip)
    if d.failure != 0:
        return d.failure
    return _commit(m)

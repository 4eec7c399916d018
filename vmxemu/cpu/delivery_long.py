"""Delivery through the IDT of IA-32e mode. SDM Vol. 3A, 'Exception and Interrupt Handling in 64-bit Mode'."""

from typing import TYPE_CHECKING

from vmxemu.cpu.descriptors import SYSTEM_READ, load_null
from vmxemu.cpu.frame import commit_stack, push_value, saved_flags, set_access
from vmxemu.cpu.gate import check_gate, enter_handler, read_gate, read_handler_segment, selector_error
from vmxemu.cpu.layout import CS, IDTR, RSP, SS, TR
from vmxemu.cpu.mode import cpl, is_canonical
from vmxemu.cpu.operand import ALL_ONES
from vmxemu.isa import exceptions
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, fault_with
from vmxemu.translation.access import read_linear

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
INTERRUPT_GATE, TRAP_GATE = U(14), U(15)
FIRST_RSP, FIRST_IST = U(4), U(36)  # offsets in the 64-bit TSS
ALIGNED = U(0xFFFFFFFFFFFFFFF0)
ERROR_CODE_VALID = U(1 << 11)


@kernel
def _read_idt(m: "State", vector: int, info: int) -> int:
    """The 16-byte gate and its checks."""
    d = m.cpu.delivery
    if vector * 16 + 15 > m.r.seg[IDTR].limit:
        return fault_with(exceptions.GP, d.gate_error)
    at = m.r.seg[IDTR].base + vector * 16
    outcome = read_linear(m, at, 8, SYSTEM_READ)
    if outcome != DONE:
        return outcome
    gate = m.walk.value
    outcome = read_linear(m, at + 8, 4, SYSTEM_READ)
    if outcome != DONE:
        return outcome
    high = m.walk.value
    read_gate(m, gate)
    d.offset = d.offset | high << 32
    if d.gate_type != INTERRUPT_GATE and d.gate_type != TRAP_GATE:
        return fault_with(exceptions.GP, d.gate_error)
    return check_gate(m, gate, info)


@kernel
def _stack_from_tss(m: "State", offset: int) -> int:
    d = m.cpu.delivery
    if offset + 7 > m.r.seg[TR].limit:
        return fault_with(exceptions.TS, selector_error(m, m.r.seg[TR].selector))
    outcome = read_linear(m, m.r.seg[TR].base + offset, 8, SYSTEM_READ)
    d.sp = m.walk.value
    return outcome


@kernel
def _choose_stack(m: "State") -> int:
    """IST, or RSPn on a change of privilege, or the stack in use; aligned to 16 bytes."""
    d = m.cpu.delivery
    outcome = DONE
    d.stack_changes = 1 if d.new_cpl < cpl(m) else 0
    if d.gate_ist != 0:
        outcome = _stack_from_tss(m, FIRST_IST + 8 * (d.gate_ist - 1))
    elif d.stack_changes != 0:
        outcome = _stack_from_tss(m, FIRST_RSP + 8 * d.new_cpl)
    else:
        d.sp = m.r.gpr[RSP]
    if outcome != DONE:
        return outcome
    d.sp_mask = ALL_ONES
    d.stack_base = 0
    d.frame_bytes = 8
    if not is_canonical(m, d.sp) or not is_canonical(m, d.sp - 64):
        return fault_with(exceptions.SS, d.external)
    d.sp = d.sp & ALIGNED
    set_access(m)
    return DONE


@kernel
def _push_frame(m: "State", vector: int, info: int, error_code: int, next_rip: int) -> None:
    push_value(m, m.r.seg[SS].selector)
    push_value(m, m.r.gpr[RSP])
    push_value(m, saved_flags(m, vector, info))
    push_value(m, m.r.seg[CS].selector)
    push_value(m, next_rip)
    if info & ERROR_CODE_VALID != 0:
        push_value(m, error_code)


@kernel
def deliver_long(m: "State", vector: int, info: int, error_code: int, next_rip: int) -> int:
    """One event in IA-32e mode."""
    d = m.cpu.delivery
    outcome = _read_idt(m, vector, info)
    if outcome == DONE:
        outcome = read_handler_segment(m, 1)
    if outcome == DONE:
        outcome = _choose_stack(m)
    if outcome != DONE:
        return outcome
    if not is_canonical(m, d.offset):
        return fault_with(exceptions.GP, d.external)
    _push_frame(m, vector, info, error_code, next_rip)
    if d.failure != 0:
        return d.failure
    outcome = enter_handler(m)
    if outcome != DONE:
        return outcome
    commit_stack(m)
    if d.stack_changes != 0:
        load_null(m, SS, d.new_cpl, d.new_cpl)
    return DONE

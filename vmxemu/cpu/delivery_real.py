"""Delivery through the real-mode interrupt vector table. SDM Vol. 3B, 'Real-Address Mode'."""

from typing import TYPE_CHECKING

from vmxemu.cpu.flags import AC, IF, RF, TF, read_flags
from vmxemu.cpu.frame import commit_stack, current_stack, push_value
from vmxemu.cpu.layout import CS, IDTR
from vmxemu.isa import exceptions
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, fault
from vmxemu.translation.access import read_linear
from vmxemu.translation.layout import READ, WRITE

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64


@kernel
def deliver_real(m: "State", vector: int, next_rip: int) -> int:
    """Push FLAGS, CS and IP and jump through the table at IDTR's base; there are no error codes."""
    d = m.cpu.delivery
    if vector * 4 + 3 > m.r.seg[IDTR].limit:
        return fault(exceptions.GP)
    outcome = read_linear(m, m.r.seg[IDTR].base + vector * 4, 4, READ)
    if outcome != DONE:
        return outcome
    target = m.walk.value
    current_stack(m)
    d.frame_bytes = 2
    d.access = WRITE
    push_value(m, read_flags(m))
    push_value(m, m.r.seg[CS].selector)
    push_value(m, next_rip)
    if d.failure != 0:
        return d.failure
    commit_stack(m)
    m.r.eflags = m.r.eflags & ~(TF | IF | RF | AC)
    m.r.seg[CS].selector = target >> 16
    m.r.seg[CS].base = target >> 16 << 4
    m.r.rip = target & 0xFFFF
    return DONE

"""The stack frame that an event's delivery builds. Only its successful end moves the processor's stack pointer."""

from typing import TYPE_CHECKING

from vmxemu.cpu.flags import RF, read_flags
from vmxemu.cpu.layout import RSP, SS
from vmxemu.cpu.operand import ALL_ONES
from vmxemu.cpu.stack import set_stack_pointer, stack_mask
from vmxemu.isa import exceptions
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.translation.access import write_linear
from vmxemu.translation.layout import IMPLICIT_SUPERVISOR, WRITE

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
LOW_HALF = U(0xFFFFFFFF)
HARDWARE_EXCEPTION = U(3)
# Bit n: exception n is a fault, whose saved RFLAGS has RF set. #DB is left out: here it is a trap or general detect.
FAULTS = U(sum(1 << row.vector for row in exceptions.ROWS if row.kind == "fault"))


@kernel
def current_stack(m: "State") -> None:
    """Go on with the stack in use."""
    d = m.cpu.delivery
    d.stack_changes = 0
    d.sp_mask = stack_mask(m)
    d.sp = m.r.gpr[RSP] & d.sp_mask
    d.stack_base = m.r.seg[SS].base


@kernel
def set_access(m: "State") -> None:
    """Pushes are made with the handler's privilege."""
    m.cpu.delivery.access = WRITE if m.cpu.delivery.new_cpl == 3 else WRITE | IMPLICIT_SUPERVISOR


@kernel
def push_value(m: "State", value: int) -> None:
    """Push one item of the frame; after a failure nothing more is pushed."""
    d = m.cpu.delivery
    if d.failure != 0:
        return
    d.sp = d.sp - d.frame_bytes & d.sp_mask
    address = d.stack_base + d.sp
    if d.sp_mask != ALL_ONES:
        address = address & LOW_HALF
    d.failure = write_linear(m, address, d.frame_bytes, value, d.access)


@kernel
def commit_stack(m: "State") -> None:
    """Make the frame's end the stack pointer."""
    set_stack_pointer(m, m.cpu.delivery.sp, m.cpu.delivery.sp_mask)


@kernel
def saved_flags(m: "State", vector: int, info: int) -> int:
    """RFLAGS as the frame holds it."""
    value = read_flags(m)
    if info >> 8 & 7 == HARDWARE_EXCEPTION and vector < 32 and FAULTS >> vector & 1 != 0:
        return value | RF
    return value

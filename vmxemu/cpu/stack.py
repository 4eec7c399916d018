"""Push and pop on the current stack."""

from typing import TYPE_CHECKING

from vmxemu.cpu.layout import HF_CS64, HF_SS32, RSP, SS
from vmxemu.cpu.operand import ALL_ONES, linear_of
from vmxemu.isa import exceptions
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, fault_with
from vmxemu.translation.access import read_linear, write_linear
from vmxemu.translation.layout import READ, WRITE

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64


@kernel
def stack_mask(m: "State") -> int:
    """Width of the stack pointer."""
    if m.r.mode & HF_CS64 != 0:
        return ALL_ONES
    return 0xFFFFFFFF if m.r.mode & HF_SS32 != 0 else 0xFFFF


@kernel
def set_stack_pointer(m: "State", value: int, mask: int) -> None:
    """Write SP, ESP or RSP."""
    m.r.gpr[RSP] = m.r.gpr[RSP] & ~mask | value & mask


@kernel
def _as_stack_fault(outcome: int) -> int:
    """Non-canonical stack addresses are #SS(0)."""
    return fault_with(exceptions.SS, 0) if outcome == fault_with(exceptions.GP, 0) else outcome


@kernel
def push(m: "State", size: int, value: int) -> int:
    """Push `size` bytes; RSP changes only if the store succeeds."""
    mask = stack_mask(m)
    target = m.r.gpr[RSP] - size & mask
    outcome = write_linear(m, linear_of(m, SS, target), size, value, WRITE)
    if outcome != DONE:
        return _as_stack_fault(outcome)
    set_stack_pointer(m, target, mask)
    return DONE


@kernel
def pop(m: "State", size: int) -> int:
    """Pop `size` bytes into m.walk.value; RSP changes only if the load succeeds."""
    mask = stack_mask(m)
    source = m.r.gpr[RSP] & mask
    outcome = read_linear(m, linear_of(m, SS, source), size, READ)
    if outcome != DONE:
        return _as_stack_fault(outcome)
    set_stack_pointer(m, source + size, mask)
    return DONE

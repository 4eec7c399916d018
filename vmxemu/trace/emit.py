"""Recording an event from a kernel: a store into the buffer, nothing else."""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.trace.layout import CAPACITY as _CAPACITY

if TYPE_CHECKING:
    from vmxemu.state import State

CAPACITY = U(_CAPACITY)
IN_SMM = U(3)


@kernel
def level_of(m: "State") -> int:
    """0 = VMX root or no VMX, 1 = VM1 (or the one guest of a bare VMM), 2 = VM2, 3 = SMM."""
    if m.cpu.in_smm != 0:
        return IN_SMM
    if m.vmx.non_root == 0:
        return 0
    return m.outer.level if m.outer.up != 0 else 1


@kernel
def emit(m: "State", kind: int, reason: int, a: int, b: int, c: int, d: int) -> None:
    """Record one event. When the buffer is full the event is counted as lost; the run loop drains it long before."""
    trace = m.trace
    trace.total = trace.total + 1
    if trace.enabled == 0:
        return
    if trace.count >= CAPACITY:
        trace.lost = trace.lost + 1
        return
    event = trace.events[trace.count]
    event.cycle = m.clock.ticks >> 4
    event.rip = m.r.rip
    event.kind = kind
    event.level = level_of(m)
    event.flags = 0
    event.reason = reason
    event.a = a
    event.b = b
    event.c = c
    event.d = d
    trace.count = trace.count + 1

"""Virtual time: ticks of a sixteenth of a cycle."""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel

if TYPE_CHECKING:
    from vmxemu.state import State


@kernel
def charge(m: "State", cycles: int) -> None:
    """Let `cycles` pass."""
    m.clock.ticks = m.clock.ticks + (cycles << 4)


@kernel
def charge_event(m: "State", event: int) -> None:
    """Let the time of one event of timing.costs pass."""
    m.clock.ticks = m.clock.ticks + (m.clock.cost[event] << 4)


@kernel
def now_cycles(m: "State") -> int:
    """Cycles since reset."""
    return m.clock.ticks >> 4


@kernel
def read_tsc(m: "State") -> int:
    """The TSC as RDTSC gives it to the software that runs now: VMX TSC offset included."""
    tsc = (m.clock.ticks >> 4) + m.cpu.tsc_offset
    return tsc + m.vmx.tsc_offset if m.vmx.non_root != 0 else tsc

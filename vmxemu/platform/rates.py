"""Device clocks in terms of ticks, without overflow: each conversion is the exact quotient's floor or ceiling."""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.platform.layout import NEVER

if TYPE_CHECKING:
    from vmxemu.state import State

PIT_HZ = u64(1_193_182)
MOST_SECONDS = u64(1 << 27)  # four years: every conversion below this stays within 64 bits


@kernel
def ticks_per_second(m: "State") -> int:
    """Never 0, so that a machine without a rate divides by something."""
    rate = m.platform.tsc_hz << 4
    return rate if rate != 0 else u64(1)


@kernel
def periods_at(m: "State", ticks: int, hz: int) -> int:
    """How many whole periods of a clock of `hz` have passed at `ticks`."""
    second = ticks_per_second(m)
    return ticks // second * hz + ticks % second * hz // second


@kernel
def ticks_of(m: "State", periods: int, hz: int) -> int:
    """The first tick at which `periods_at` gives `periods`; NEVER if that is beyond four years."""
    second = ticks_per_second(m)
    if periods // hz >= MOST_SECONDS:
        return NEVER
    return periods // hz * second + (periods % hz * second + hz - 1) // hz


@kernel
def pit_now(m: "State") -> int:
    """Periods of the 1.193182 MHz clock since power-on."""
    return periods_at(m, m.clock.ticks, PIT_HZ)

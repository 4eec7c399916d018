"""The local APIC's timer: one-shot, periodic, TSC-deadline (SDM Vol. 3A, 'APIC Timer')."""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.platform.lapic import LVT_TIMER, fire
from vmxemu.platform.layout import NEVER
from vmxemu.platform.rates import periods_at, ticks_of

if TYPE_CHECKING:
    from vmxemu.state import State

ONE_SHOT, PERIODIC, TSC_DEADLINE = u64(0), u64(1), u64(2)
FAR_AWAY_CYCLES = u64(1 << 59)  # deadlines beyond are never reached


@kernel
def mode(m: "State") -> int:
    """Bits 18:17 of the timer's LVT entry."""
    return m.platform.lapic.lvt[LVT_TIMER] >> 17 & 3


@kernel
def divisor(m: "State") -> int:
    """Divide configuration register: bits 3, 1:0; 111b divides by 1."""
    configured = m.platform.lapic.divide
    return u64(1) << ((configured >> 1 & 4 | configured & 3) + 1 & 7)


@kernel
def _elapsed(m: "State") -> int:
    """Timer clock periods since the count was started."""
    return periods_at(m, m.clock.ticks, m.platform.lapic_hz) - m.platform.lapic.timer_start


@kernel
def current_count(m: "State") -> int:
    """Current-count register."""
    initial = m.platform.lapic.initial_count
    if initial == 0 or mode(m) >= TSC_DEADLINE:
        return u64(0)
    counted = _elapsed(m) // divisor(m)
    if mode(m) == PERIODIC:
        return initial - counted % initial
    return initial - counted if counted < initial else u64(0)


@kernel
def start(m: "State", count: int) -> None:
    """Write of the initial-count register; ignored in TSC-deadline mode."""
    if mode(m) == TSC_DEADLINE:
        return
    lapic = m.platform.lapic
    lapic.initial_count = count
    lapic.timer_start = periods_at(m, m.clock.ticks, m.platform.lapic_hz)
    arm(m)


@kernel
def arm(m: "State") -> None:
    """Work out when the count reaches zero next."""
    lapic = m.platform.lapic
    lapic.timer_due = NEVER
    period = lapic.initial_count * divisor(m)
    if period == 0 or mode(m) >= TSC_DEADLINE:
        return
    elapsed = _elapsed(m)
    if mode(m) == PERIODIC:
        lapic.timer_due = ticks_of(m, lapic.timer_start + (elapsed // period + 1) * period, m.platform.lapic_hz)
    elif elapsed < period:
        lapic.timer_due = ticks_of(m, lapic.timer_start + period, m.platform.lapic_hz)


@kernel
def set_divide(m: "State", value: int) -> None:
    """Write of the divide configuration register; a running count goes on from its value."""
    lapic = m.platform.lapic
    counted = lapic.initial_count - current_count(m)
    lapic.divide = value & 0xB
    lapic.timer_start = periods_at(m, m.clock.ticks, m.platform.lapic_hz) - counted * divisor(m)
    arm(m)


@kernel
def change_mode(m: "State", old: int) -> None:
    """The timer's LVT entry was written; going into or out of TSC-deadline mode disarms the timer."""
    new = mode(m)
    if old == new:
        return
    if old == TSC_DEADLINE or new == TSC_DEADLINE:
        m.platform.lapic.initial_count = 0
        m.cpu.tsc_deadline = 0
    arm(m)


@kernel
def set_deadline(m: "State", deadline: int) -> None:
    """WRMSR to IA32_TSC_DEADLINE; ignored in the other modes."""
    if mode(m) == TSC_DEADLINE:
        m.cpu.tsc_deadline = deadline


@kernel
def due(m: "State") -> int:
    """Ticks of the next expiry. A deadline follows the TSC, which software may move."""
    deadline = m.cpu.tsc_deadline
    if deadline == 0:
        return m.platform.lapic.timer_due
    now_cycles = m.clock.ticks >> 4
    tsc = now_cycles + m.cpu.tsc_offset
    if tsc >= deadline:
        return m.clock.ticks
    if deadline - tsc >= FAR_AWAY_CYCLES:
        return NEVER
    return now_cycles + (deadline - tsc) << 4


@kernel
def run_due(m: "State") -> None:
    """Fire the timer if it has expired."""
    if m.clock.ticks < due(m):
        return
    if m.cpu.tsc_deadline != 0:
        m.cpu.tsc_deadline = 0
    else:
        arm(m)
    fire(m, LVT_TIMER)

"""The VMX-preemption timer: counts down once each time bit N of the TSC changes. SDM Vol. 3C, 'VMX-Preemption
Timer'."""

from typing import TYPE_CHECKING

from vmxemu.isa import controls
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.vmx.capability import MISC, TIMER_RATE_MASK

if TYPE_CHECKING:
    from vmxemu.state import State
    from vmxemu.vmx.vmcs import Vmcs

TICKS_PER_CYCLE_LOG2 = U(4)


@kernel
def _count(m: "State") -> int:
    """The TSC in units of the timer."""
    return (m.clock.ticks >> TICKS_PER_CYCLE_LOG2) + m.cpu.tsc_offset >> (m.cpu.vmx_msr[MISC] & TIMER_RATE_MASK)


@kernel
def arm_timer(m: "State", v: "Vmcs") -> None:
    """Set `m.vmx.preemption_deadline` (ticks; 0 = the timer is off) as VM entry does, and the clock's deadline if
    that comes first."""
    m.vmx.preemption_deadline = 0
    if v.pin_based_vm_exec_control & controls.PIN_PREEMPTION_TIMER == 0:
        return
    rate = m.cpu.vmx_msr[MISC] & TIMER_RATE_MASK
    tsc = _count(m) + v.vmx_preemption_timer_value << rate
    deadline = tsc - m.cpu.tsc_offset << TICKS_PER_CYCLE_LOG2
    if v.vmx_preemption_timer_value == 0:
        deadline = m.clock.ticks
    deadline = 1 if deadline == 0 else deadline
    m.vmx.preemption_deadline = deadline
    if deadline < m.clock.deadline:
        m.clock.deadline = deadline


@kernel
def timer_expired(m: "State") -> bool:
    """Whether the timer has counted down to zero."""
    return m.vmx.preemption_deadline != 0 and m.clock.ticks >= m.vmx.preemption_deadline


@kernel
def timer_value(m: "State") -> int:
    """What VM exit saves: the count that is left."""
    if m.vmx.preemption_deadline == 0 or timer_expired(m):
        return 0
    rate = m.cpu.vmx_msr[MISC] & TIMER_RATE_MASK
    return ((m.vmx.preemption_deadline >> TICKS_PER_CYCLE_LOG2) + m.cpu.tsc_offset >> rate) - _count(m)

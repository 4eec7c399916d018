"""When the next device needs the processor's attention, and what happens then."""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.platform import injection, lapic_timer, pit

if TYPE_CHECKING:
    from vmxemu.state import State


@kernel
def next_due(m: "State") -> int:
    """Ticks of the earliest timer or injection, all ones if nothing is to come."""
    return min(m.platform.pit.channel[0].due, min(lapic_timer.due(m), injection.next_due(m)))


@kernel
def run_due(m: "State") -> None:
    """Let everything happen whose time has come."""
    pit.run_due(m)
    lapic_timer.run_due(m)
    injection.run_due(m)

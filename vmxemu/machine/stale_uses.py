"""Stale translations in the machine: told to the trace, the first use of each kind."""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.trace import events
from vmxemu.trace.emit import emit
from vmxemu.translation.bits import FRAME_MASK

if TYPE_CHECKING:
    from vmxemu.state import State


@kernel
def trace_stale_uses(m: "State") -> None:
    """Record the kinds that are new."""
    while m.tlb.stale_traced < m.tlb.stale_kinds:
        use = m.tlb.stale[m.tlb.stale_traced]
        m.tlb.stale_traced = m.tlb.stale_traced + 1
        emit(m, events.STALE_USE, use.owed, use.gla, use.source, use.cached_word & FRAME_MASK, use.born_ticks >> 4)

"""Which external interrupt the processor sees: the local APIC's, else the 8259's if LINT0 or the I/O APIC passes it."""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.platform import ioapic, lapic, pic

if TYPE_CHECKING:
    from vmxemu.state import State

NONE = u64(256)


@kernel
def _external_waits(m: "State") -> int:
    if pic.pending(m) == 0:
        return u64(0)
    return lapic.passes_external(m) | ioapic.passes_external(m)


@kernel
def pending_vector(m: "State") -> int:
    """The vector that `acknowledge` would give, NONE if nothing is deliverable. RFLAGS.IF is the caller's business."""
    if lapic.is_enabled(m) != 0:
        vector = lapic.pending_vector(m)
        if vector != NONE:
            return vector
    return pic.pending_vector(m) if _external_waits(m) != 0 else NONE


@kernel
def acknowledge(m: "State") -> int:
    """Take the pending interrupt: its vector; the spurious one if it has gone meanwhile."""
    if lapic.is_enabled(m) != 0 and (lapic.pending_vector(m) != NONE or _external_waits(m) == 0):
        return lapic.acknowledge(m)
    return pic.acknowledge(m)

"""Management interrupts on their way to the processor: one queue, from which they are taken in the architectural order.

Unlike the processor's own latches the queue keeps every request, so that each can be accounted for.
`m.cpu.smi_pending`, `nmi_pending` and `mce_pending` mirror it.
"""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.platform.layout import MANAGEMENT_EVENTS
from vmxemu.trace.events import CMCI, MC, NMI, PMI, SMI

if TYPE_CHECKING:
    from vmxemu.state import State

CAUSE_INJECTED, CAUSE_PORT, CAUSE_LAPIC, CAUSE_MCA, CAUSE_IOAPIC = u64(1), u64(2), u64(3), u64(4), u64(5)
CAUSE_NAMES = {1: "injected", 2: "port", 3: "LAPIC", 4: "MCA bank", 5: "I/O APIC"}
CAPACITY = u64(MANAGEMENT_EVENTS)


@kernel
def raise_caused(m: "State", kind: int, address: int, detail: int, cause: int, flags: int) -> int:
    """Queue one event; gives its serial number, or 0 if the queue was full (counted in `management.lost`)."""
    queue = m.platform.management
    if queue.count >= CAPACITY:
        queue.lost = queue.lost + 1
        return u64(0)
    queue.serial = queue.serial + 1
    event = queue.event[queue.count]
    event.kind = kind
    event.serial = queue.serial
    event.hpa = address
    event.detail = detail
    event.cause = cause
    event.flags = flags
    queue.count = queue.count + 1
    _mirror(m)
    m.clock.attention = 1
    return queue.serial


@kernel
def raise_management(m: "State", kind: int, address: int, detail: int) -> int:
    """Queue one event that comes from outside the modelled devices."""
    return raise_caused(m, kind, address, detail, CAUSE_INJECTED, 0)


@kernel
def is_pending(m: "State", kind: int) -> int:
    """1 if an event of this kind waits."""
    queue = m.platform.management
    for position in range(queue.count):
        if queue.event[position].kind == kind:
            return u64(1)
    return u64(0)


@kernel
def pending_management(m: "State") -> int:
    """The kind to take next, 0 if none. Whether the processor can take it now is the machine's business.

    SDM Vol. 3A, 'Priority Among Concurrent Events': #MC, SMI (and PMI, which enters SMM too), NMI. CMCI is an ordinary
    interrupt and comes last.
    """
    if m.platform.management.count == 0:
        return u64(0)
    if is_pending(m, MC) != 0:
        return MC
    if is_pending(m, SMI) != 0:
        return SMI
    if is_pending(m, PMI) != 0:
        return PMI
    if is_pending(m, NMI) != 0:
        return NMI
    return CMCI


@kernel
def take_management(m: "State", kind: int) -> int:
    """Remove the oldest event of this kind; its facts are in `management.taken`. Gives its serial, 0 if none waits."""
    queue = m.platform.management
    taken = queue.taken
    for position in range(queue.count):
        event = queue.event[position]
        if event.kind == kind:
            _copy(taken, event)
            for later in range(position + 1, queue.count):
                _copy(queue.event[later - 1], queue.event[later])
            queue.count = queue.count - 1
            _mirror(m)
            if kind == SMI or kind == PMI:
                m.platform.smi_command = taken.detail  # what the handler reads at port 0xB2
            return taken.serial
    return u64(0)


@kernel
def _copy(target: "ManagementEvent", source: "ManagementEvent") -> None:
    target.kind = source.kind
    target.serial = source.serial
    target.hpa = source.hpa
    target.detail = source.detail
    target.cause = source.cause
    target.flags = source.flags


@kernel
def _mirror(m: "State") -> None:
    m.cpu.smi_pending = is_pending(m, SMI)
    m.cpu.nmi_pending = is_pending(m, NMI)
    m.cpu.mce_pending = is_pending(m, MC)


if TYPE_CHECKING:
    from vmxemu.platform.layout import ManagementEvent

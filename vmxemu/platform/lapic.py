"""Local APIC: accepting, prioritising and acknowledging interrupts.

SDM Vol. 3A, 'Advanced Programmable Interrupt Controller (APIC)'.
One processor: its APIC ID is 0. Registers are in lapic_registers, the timer in lapic_timer.
"""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.platform.layout import NEVER
from vmxemu.platform.management import CAUSE_LAPIC, raise_caused
from vmxemu.trace.events import NMI, SMI

if TYPE_CHECKING:
    from vmxemu.layout import Array
    from vmxemu.state import State

NO_VECTOR = u64(256)
GLOBAL_ENABLE, X2APIC_ENABLE, BOOTSTRAP = u64(1 << 11), u64(1 << 10), u64(1 << 8)  # IA32_APIC_BASE
SOFTWARE_ENABLE = u64(1 << 8)  # in the spurious-interrupt vector register
FIXED, LOWEST, DELIVER_SMI, DELIVER_NMI, INIT, STARTUP, EXTINT = u64(0), u64(1), u64(2), u64(4), u64(5), u64(6), u64(7)
MASKED = u64(1 << 16)
LVT_CMCI, LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0, LVT_LINT1, LVT_ERROR = (u64(i) for i in range(7))
ERROR_SEND_VECTOR, ERROR_RECEIVE_VECTOR, ERROR_REGISTER = u64(1 << 5), u64(1 << 6), u64(1 << 7)
FIRST_VECTOR = u64(16)


@kernel
def power_on(m: "State") -> None:
    """State after power-up (SDM Vol. 3A, 'Local APIC State After Power-Up or Reset'). Every LVT entry is masked."""
    lapic = m.platform.lapic
    lapic.id = 0
    lapic.logical_id = 0
    lapic.destination_format = 0xFFFF_FFFF
    lapic.spurious = 0xFF
    lapic.error = 0
    lapic.error_pending = 0
    lapic.command = 0
    lapic.initial_count = 0
    lapic.divide = 0
    lapic.timer_start = 0
    lapic.timer_due = NEVER
    for word in range(8):
        lapic.request[word] = 0
        lapic.service[word] = 0
        lapic.trigger[word] = 0
    for entry in range(7):
        lapic.lvt[entry] = MASKED
    m.cpu.tpr = 0
    m.cpu.tsc_deadline = 0


@kernel
def is_enabled(m: "State") -> int:
    """1 if IA32_APIC_BASE enables the local APIC."""
    return m.cpu.apic_base >> 11 & 1


@kernel
def is_x2apic(m: "State") -> int:
    """1 in x2APIC mode."""
    return m.cpu.apic_base >> 10 & m.cpu.apic_base >> 11 & 1


@kernel
def is_software_enabled(m: "State") -> int:
    """1 if the spurious-interrupt vector register enables it."""
    return m.platform.lapic.spurious >> 8 & 1


@kernel
def top_bit(value: int) -> int:
    """Number of the highest 1 of a non-zero 32-bit word."""
    number = u64(0)
    for step in range(5):
        half = u64(16) >> step
        if value >> half:
            value = value >> half
            number = number + half
    return number


@kernel
def highest(words: "Array[u64]") -> int:
    """The highest vector of a 256-bit register, NO_VECTOR if it is empty."""
    for step in range(8):
        word = u64(7) - step
        if words[word] != 0:
            return word << 5 | top_bit(words[word])
    return NO_VECTOR


@kernel
def processor_priority(m: "State") -> int:
    """PPR (SDM Vol. 3A, 'Task and Processor Priorities')."""
    service = highest(m.platform.lapic.service)
    if service == NO_VECTOR or m.cpu.tpr >> 4 >= service >> 4:
        return m.cpu.tpr
    return service & 0xF0


@kernel
def pending_vector(m: "State") -> int:
    """The fixed interrupt that the processor should take now, NO_VECTOR if none beats the processor priority."""
    vector = highest(m.platform.lapic.request)
    if vector == NO_VECTOR or is_software_enabled(m) == 0 or vector >> 4 <= processor_priority(m) >> 4:
        return NO_VECTOR
    return vector


@kernel
def acknowledge(m: "State") -> int:
    """Move the pending vector from IRR to ISR; the spurious vector if there is none."""
    vector = pending_vector(m)
    if vector == NO_VECTOR:
        return m.platform.lapic.spurious & 0xFF
    word, bit = vector >> 5, u64(1) << (vector & 31)
    m.platform.lapic.request[word] = m.platform.lapic.request[word] & ~bit
    m.platform.lapic.service[word] = m.platform.lapic.service[word] | bit
    return vector


@kernel
def accept(m: "State", vector: int, level_triggered: int) -> None:
    """A fixed interrupt arrives."""
    if is_enabled(m) == 0 or is_software_enabled(m) == 0:
        return
    if vector < FIRST_VECTOR:
        report_error(m, ERROR_RECEIVE_VECTOR)
        return
    _request(m, vector, level_triggered)


@kernel
def _request(m: "State", vector: int, level_triggered: int) -> None:
    lapic = m.platform.lapic
    word, bit = vector >> 5, u64(1) << (vector & 31)
    lapic.request[word] = lapic.request[word] | bit
    lapic.trigger[word] = lapic.trigger[word] | bit if level_triggered != 0 else lapic.trigger[word] & ~bit
    m.clock.attention = 1


@kernel
def report_error(m: "State", error: int) -> None:
    """An APIC error: one interrupt through the error LVT until software has read it."""
    lapic = m.platform.lapic
    fresh = lapic.error_pending & error == 0
    lapic.error_pending = lapic.error_pending | error
    entry = lapic.lvt[LVT_ERROR]
    if fresh and entry & MASKED == 0 and entry & 0xFF >= FIRST_VECTOR and is_enabled(m) != 0:
        _request(m, entry & 0xFF, u64(0))


@kernel
def deliver(m: "State", mode: int, vector: int, level_triggered: int, cause: int) -> None:
    """An interrupt message for this processor: fixed into IRR; SMI, NMI and INIT to the processor."""
    if mode == FIXED or mode == LOWEST:
        accept(m, vector, level_triggered)
    elif mode == DELIVER_SMI:
        raise_caused(m, SMI, 0, 0, cause, 0)
    elif mode == DELIVER_NMI:
        raise_caused(m, NMI, 0, 0, cause, 0)
    elif mode == INIT:
        m.cpu.init_pending = 1
        m.clock.attention = 1


@kernel
def fire(m: "State", entry: int) -> None:
    """The event of a local-vector-table entry (not LINT0's ExtINT, which `interrupts` passes through)."""
    if is_enabled(m) == 0:
        return
    lvt = m.platform.lapic.lvt[entry]
    if lvt & MASKED:
        return
    mode = lvt >> 8 & 7
    if entry == LVT_TIMER or entry == LVT_ERROR:
        mode = FIXED
    if entry == LVT_PERFORMANCE:  # masks itself, SDM Vol. 3A, 'Local Vector Table'
        m.platform.lapic.lvt[entry] = lvt | MASKED
    deliver(m, mode, lvt & 0xFF, u64(0), CAUSE_LAPIC)


@kernel
def deliver_cmci(m: "State") -> None:
    """Corrected machine-check interrupt through its LVT entry: what becomes of a CMCI that nobody trapped."""
    fire(m, LVT_CMCI)


@kernel
def passes_external(m: "State") -> int:
    """1 if LINT0 lets the 8259's INTR through: local APIC off, or ExtINT unmasked."""
    if is_enabled(m) == 0:
        return u64(1)
    lvt = m.platform.lapic.lvt[LVT_LINT0]
    return u64(1) if lvt & MASKED == 0 and lvt >> 8 & 7 == EXTINT else u64(0)


@kernel
def matches(m: "State", destination: int, logical: int) -> int:
    """1 if a message to this destination (8 bits; 32 in x2APIC mode) is for this processor."""
    lapic = m.platform.lapic
    if is_x2apic(m) != 0:
        if destination == 0xFFFF_FFFF:
            return u64(1)
        own = x2apic_logical_id(lapic.id)
        if logical != 0:
            return u64(1) if destination >> 16 == own >> 16 and destination & own & 0xFFFF else u64(0)
        return u64(1) if destination == lapic.id else u64(0)
    destination = destination & 0xFF
    if destination == 0xFF:
        return u64(1)
    if logical == 0:
        return u64(1) if destination == lapic.id else u64(0)
    own = lapic.logical_id >> 24
    if lapic.destination_format >> 28 == 0xF:  # flat model
        return u64(1) if destination & own else u64(0)
    return u64(1) if destination >> 4 == own >> 4 and destination & own & 0xF else u64(0)


@kernel
def x2apic_logical_id(number: int) -> int:
    """The logical x2APIC ID: cluster in 31:16, one bit of 15:0."""
    return number >> 4 << 16 | u64(1) << (number & 0xF)

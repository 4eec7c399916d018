"""I/O APIC with 24 pins at 0xFEC00000 (Intel 82093AA data sheet, with the EOI register of later versions).

Lines here are asserted or not: the polarity bit of an entry is kept and has no effect.
"""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.platform import lapic
from vmxemu.platform.layout import IOAPIC_PINS
from vmxemu.platform.management import CAUSE_IOAPIC

if TYPE_CHECKING:
    from vmxemu.state import State

PINS = u64(IOAPIC_PINS)
MASKED, LEVEL, REMOTE_IRR, LOGICAL = u64(1 << 16), u64(1 << 15), u64(1 << 14), u64(1 << 11)
READ_ONLY = u64(1 << 14 | 1 << 12)  # remote IRR, delivery status
WRITABLE = u64(0xFF00_0000_0001_AFFF)
VERSION = u64((IOAPIC_PINS - 1) << 16 | 0x20)
INDEX, WINDOW, EOI = u64(0x00), u64(0x10), u64(0x40)
ID, VERSION_REGISTER, ARBITRATION, FIRST_ENTRY = u64(0), u64(1), u64(2), u64(0x10)


@kernel
def power_on(m: "State") -> None:
    """Every pin masked."""
    ioapic = m.platform.ioapic
    ioapic.id = 0
    ioapic.index = 0
    ioapic.lines = 0
    for pin in range(PINS):
        ioapic.entry[pin] = MASKED


@kernel
def set_pin(m: "State", pin: int, level: int) -> None:
    """Level of an input pin."""
    ioapic = m.platform.ioapic
    bit = u64(1) << pin
    was = ioapic.lines & bit
    ioapic.lines = ioapic.lines | bit if level != 0 else ioapic.lines & ~bit
    if level == 0:
        return
    if ioapic.entry[pin] & LEVEL or was == 0:
        _send(m, pin)


@kernel
def _send(m: "State", pin: int) -> None:
    """Send the message of a pin whose line is asserted."""
    entry = m.platform.ioapic.entry[pin]
    mode = entry >> 8 & 7
    if entry & MASKED or mode == lapic.EXTINT:
        return
    if entry & LEVEL and entry & REMOTE_IRR:
        return
    if lapic.matches(m, entry >> 56, entry & LOGICAL) == 0:
        return
    level = u64(1) if entry & LEVEL else u64(0)
    if level != 0 and mode <= lapic.LOWEST:
        m.platform.ioapic.entry[pin] = entry | REMOTE_IRR
    lapic.deliver(m, mode, entry & 0xFF, level, CAUSE_IOAPIC)


@kernel
def end_of_interrupt(m: "State", vector: int) -> None:
    """The EOI broadcast of a local APIC: level-triggered pins with this vector may send again."""
    ioapic = m.platform.ioapic
    for pin in range(PINS):
        entry = ioapic.entry[pin]
        if entry & 0xFF == vector and entry & REMOTE_IRR:
            ioapic.entry[pin] = entry & ~REMOTE_IRR
            if ioapic.lines >> pin & 1:
                _send(m, pin)


@kernel
def passes_external(m: "State") -> int:
    """1 if pin 0, to which the 8259's INTR goes, is an unmasked ExtINT."""
    entry = m.platform.ioapic.entry[0]
    return u64(1) if entry & MASKED == 0 and entry >> 8 & 7 == lapic.EXTINT else u64(0)


@kernel
def read(m: "State", offset: int) -> int:
    """The doubleword at an offset of the register page."""
    ioapic = m.platform.ioapic
    if offset == INDEX:
        return ioapic.index
    if offset != WINDOW:
        return u64(0)
    index = ioapic.index
    if index == ID or index == ARBITRATION:
        return ioapic.id
    if index == VERSION_REGISTER:
        return VERSION
    pin = index - FIRST_ENTRY >> 1
    if index < FIRST_ENTRY or pin >= PINS:
        return u64(0)
    return ioapic.entry[pin] >> ((index & 1) << 5) & 0xFFFF_FFFF


@kernel
def write(m: "State", offset: int, value: int) -> None:
    """Store a doubleword at an offset of the register page."""
    ioapic = m.platform.ioapic
    if offset == INDEX:
        ioapic.index = value & 0xFF
    elif offset == EOI:
        end_of_interrupt(m, value & 0xFF)
    elif offset == WINDOW:
        if ioapic.index == ID:
            ioapic.id = value & 0x0F00_0000
        elif ioapic.index >= FIRST_ENTRY:
            _write_entry(m, ioapic.index - FIRST_ENTRY >> 1, ioapic.index & 1, value)


@kernel
def _write_entry(m: "State", pin: int, high: int, value: int) -> None:
    if pin >= PINS:
        return
    ioapic = m.platform.ioapic
    old = ioapic.entry[pin]
    shift = high << 5
    new = old & ~(u64(0xFFFF_FFFF) << shift) | value << shift
    new = new & WRITABLE | old & READ_ONLY
    if new & LEVEL == 0:
        new = new & ~REMOTE_IRR
    ioapic.entry[pin] = new
    if new & LEVEL and ioapic.lines >> pin & 1:
        _send(m, pin)

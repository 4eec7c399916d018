"""The local APIC's registers, by number: an xAPIC offset divided by 16, or an x2APIC MSR less 800h."""

from typing import TYPE_CHECKING

import numpy as np

from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.platform import ioapic, lapic, lapic_timer
from vmxemu.platform.lapic import MASKED
from vmxemu.platform.management import CAUSE_LAPIC

if TYPE_CHECKING:
    from vmxemu.state import State

ID, VERSION, TPR, ARBITRATION, PPR, EOI, LDR, DFR, SPURIOUS = (u64(i) for i in (2, 3, 8, 9, 10, 11, 13, 14, 15))
SERVICE, TRIGGER, REQUEST, ERROR, CMCI = (u64(i) for i in (16, 24, 32, 40, 47))
ICR, ICR_HIGH, FIRST_LVT, LAST_LVT = (u64(i) for i in (48, 49, 50, 55))
INITIAL_COUNT, CURRENT_COUNT, DIVIDE, SELF_IPI = (u64(i) for i in (56, 57, 62, 63))

# Version 15h, 7 LVT entries, EOI-broadcast suppression
VERSION_VALUE = u64(0x0106_0015)
SUPPRESS_EOI_BROADCAST = u64(1 << 12)
SPURIOUS_WRITABLE = u64(0x13FF)
LOW_32 = u64(0xFFFF_FFFF)
LVT_WRITABLE = np.array([0x107FF, 0x700FF, 0x107FF, 0x107FF, 0x1A7FF, 0x1A7FF, 0x100FF], dtype=np.uint64)
ICR_WRITABLE = u64(0xCCFFF)
INIT_DEASSERT = u64(0x8000)  # an INIT with trigger mode level and level 0 does nothing
SELF, ALL, OTHERS = u64(1), u64(2), u64(3)  # destination shorthands

_READABLE = (2, 3, 8, 9, 10, 13, 14, 15, *range(16, 41), 47, 48, 49, *range(50, 58), 62)
_WRITABLE = (2, 8, 11, 13, 14, 15, 40, 47, 48, 49, *range(50, 57), 62)
_ABSENT_IN_X2APIC = (9, 14, 49)  # arbitration priority, DFR, ICR high
READABLE = u64(sum(1 << number for number in _READABLE))
WRITABLE = u64(sum(1 << number for number in _WRITABLE))
X2APIC_READABLE = u64(sum(1 << number for number in _READABLE if number not in _ABSENT_IN_X2APIC))
X2APIC_WRITABLE = u64(sum(1 << number for number in _WRITABLE if number not in (*_ABSENT_IN_X2APIC, 2, 13)) | 1 << 63)


@kernel
def is_readable(m: "State", register: int) -> int:
    """1 if the register exists for reads in the current mode."""
    allowed = X2APIC_READABLE if lapic.is_x2apic(m) != 0 else READABLE
    return allowed >> register & 1 if register < 64 else u64(0)


@kernel
def is_writable(m: "State", register: int) -> int:
    """1 if the register exists for writes in the current mode."""
    allowed = X2APIC_WRITABLE if lapic.is_x2apic(m) != 0 else WRITABLE
    return allowed >> register & 1 if register < 64 else u64(0)


@kernel
def lvt_of(register: int) -> int:
    """The local vector table's entry behind a register."""
    return lapic.LVT_CMCI if register == CMCI else register - FIRST_LVT + 1


@kernel
def lvt_writable(entry: int) -> int:
    """Bits of an entry that software can set."""
    return LVT_WRITABLE[entry]  # type: ignore[no-any-return]


@kernel
def read(m: "State", register: int) -> int:
    """The value of a readable register."""
    state = m.platform.lapic
    x2apic = lapic.is_x2apic(m) != 0
    if SERVICE <= register < TRIGGER:
        return state.service[register & 7]
    if TRIGGER <= register < REQUEST:
        return state.trigger[register & 7]
    if REQUEST <= register < ERROR:
        return state.request[register & 7]
    if register == CMCI or FIRST_LVT <= register <= LAST_LVT:
        return state.lvt[lvt_of(register)]
    if register == ID:
        return state.id if x2apic else state.id << 24
    if register == VERSION:
        return VERSION_VALUE
    if register == TPR:
        return m.cpu.tpr
    if register == PPR or register == ARBITRATION:
        return lapic.processor_priority(m)
    if register == LDR:
        return lapic.x2apic_logical_id(state.id) if x2apic else state.logical_id
    if register == DFR:
        return state.destination_format
    if register == SPURIOUS:
        return state.spurious
    if register == ERROR:
        return state.error
    if register == ICR:
        return state.command if x2apic else state.command & LOW_32
    if register == ICR_HIGH:
        return state.command >> 32
    if register == INITIAL_COUNT:
        return state.initial_count
    if register == CURRENT_COUNT:
        return lapic_timer.current_count(m)
    return state.divide if register == DIVIDE else u64(0)


@kernel
def write(m: "State", register: int, value: int) -> None:
    """Store into a writable register. The ICR takes 64 bits in x2APIC mode."""
    state = m.platform.lapic
    if register == EOI:
        end_of_interrupt(m)
    elif register == TPR:
        m.cpu.tpr = value & 0xFF
        m.clock.attention = 1
    elif register == ICR:
        if lapic.is_x2apic(m) != 0:
            state.command = value & (LOW_32 << 32 | ICR_WRITABLE)
        else:
            state.command = state.command & (LOW_32 << 32) | value & ICR_WRITABLE
        send(m)
    elif register == ICR_HIGH:
        state.command = value << 32 & 0xFF00_0000_0000_0000 | state.command & LOW_32
    elif register == CMCI or FIRST_LVT <= register <= LAST_LVT:
        _write_lvt(m, lvt_of(register), value)
    elif register == INITIAL_COUNT:
        lapic_timer.start(m, value & LOW_32)
    elif register == DIVIDE:
        lapic_timer.set_divide(m, value)
    elif register == SELF_IPI:
        _send_fixed(m, value & 0xFF, u64(0))
    elif register == SPURIOUS:
        _write_spurious(m, value)
    elif register == ERROR:
        state.error = state.error_pending
        state.error_pending = 0
    elif register == ID:
        state.id = value >> 24
    elif register == LDR:
        state.logical_id = value & 0xFF00_0000
    elif register == DFR:
        state.destination_format = value | 0x0FFF_FFFF


@kernel
def end_of_interrupt(m: "State") -> None:
    """EOI: the highest vector in service is done; a level-triggered one is broadcast to the I/O APIC."""
    state = m.platform.lapic
    vector = lapic.highest(state.service)
    if vector == lapic.NO_VECTOR:
        return
    word, bit = vector >> 5, u64(1) << (vector & 31)
    state.service[word] = state.service[word] & ~bit
    if state.trigger[word] & bit and state.spurious & SUPPRESS_EOI_BROADCAST == 0:
        ioapic.end_of_interrupt(m, vector)
    m.clock.attention = 1


@kernel
def _write_spurious(m: "State", value: int) -> None:
    """Disabling by software masks the whole local vector table."""
    state = m.platform.lapic
    state.spurious = value & SPURIOUS_WRITABLE
    if lapic.is_software_enabled(m) == 0:
        for entry in range(7):
            state.lvt[entry] = state.lvt[entry] | MASKED
    m.clock.attention = 1


@kernel
def _write_lvt(m: "State", entry: int, value: int) -> None:
    state = m.platform.lapic
    value = value & lvt_writable(entry)
    if lapic.is_software_enabled(m) == 0:
        value = value | MASKED
    old_mode = lapic_timer.mode(m)
    state.lvt[entry] = value
    if entry == lapic.LVT_TIMER:
        lapic_timer.change_mode(m, old_mode)
    if value & 0xF0 == 0 and value & MASKED == 0 and value >> 8 & 7 == lapic.FIXED:
        lapic.report_error(m, lapic.ERROR_RECEIVE_VECTOR)
    m.clock.attention = 1


@kernel
def _send_fixed(m: "State", vector: int, level_triggered: int) -> None:
    if vector < lapic.FIRST_VECTOR:
        lapic.report_error(m, lapic.ERROR_SEND_VECTOR)
    else:
        lapic.accept(m, vector, level_triggered)


@kernel
def send(m: "State") -> None:
    """Send the ICR's message. The only processor that can get it is this one."""
    command = m.platform.lapic.command
    shorthand, mode = command >> 18 & 3, command >> 8 & 7
    if shorthand == OTHERS:
        return
    destination = command >> 32 if lapic.is_x2apic(m) != 0 else command >> 56
    if shorthand == 0 and lapic.matches(m, destination, command >> 11 & 1) == 0:
        return
    if mode == lapic.FIXED or mode == lapic.LOWEST:
        _send_fixed(m, command & 0xFF, u64(0))
    elif shorthand == 0 and (mode != lapic.INIT or command & 0xC000 != INIT_DEASSERT):
        lapic.deliver(m, mode, command & 0xFF, u64(0), CAUSE_LAPIC)

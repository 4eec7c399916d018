"""Memory-mapped devices: the local APIC's page and the I/O APIC's."""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, NOT_MINE
from vmxemu.platform import ioapic, lapic, lapic_registers

if TYPE_CHECKING:
    from vmxemu.state import State

LAPIC_PAGE, IOAPIC_PAGE = u64(1), u64(2)
IOAPIC_BASE = u64(0xFEC0_0000)
PAGE, OFFSET = u64(0xFFFF_FFFF_FFFF_F000), u64(0xFFF)


@kernel
def is_device(m: "State", hpa: int) -> int:
    """LAPIC_PAGE or IOAPIC_PAGE if a device is at the address, else 0."""
    page = hpa & PAGE
    if page == IOAPIC_BASE:
        return IOAPIC_PAGE
    if page == m.cpu.apic_base & PAGE and lapic.is_enabled(m) != 0 and lapic.is_x2apic(m) == 0:
        return LAPIC_PAGE
    return u64(0)


@kernel
def _doubleword(m: "State", device: int, offset: int) -> int:
    """The register at a doubleword's offset; only the first of each 16 bytes is one."""
    if offset & 0xC:
        return u64(0)
    if device == IOAPIC_PAGE:
        return ioapic.read(m, offset)
    register = offset >> 4
    if lapic_registers.is_readable(m, register) == 0:
        lapic.report_error(m, lapic.ERROR_REGISTER)
        return u64(0)
    return lapic_registers.read(m, register)


@kernel
def mmio_read(m: "State", hpa: int, size: int) -> int:
    """Read 1, 2, 4 or 8 bytes; the value is in m.walk.value. NOT_MINE, and all ones, if no device is there."""
    mask = ~u64(0) if size >= 8 else (u64(1) << (size << 3)) - 1
    device = is_device(m, hpa)
    if device == 0:
        m.walk.value = mask
        return NOT_MINE
    offset = hpa & OFFSET
    value = _doubleword(m, device, offset & ~u64(3)) >> ((offset & 3) << 3)
    if (offset & 3) + size > 4 and offset + 4 <= OFFSET:
        value = value | _doubleword(m, device, (offset & ~u64(3)) + 4) << (32 - ((offset & 3) << 3))
    m.walk.value = value & mask
    return DONE


@kernel
def mmio_write(m: "State", hpa: int, size: int, value: int) -> int:
    """Write. Only aligned doublewords reach a register, as the SDM demands of software; the rest is lost."""
    device = is_device(m, hpa)
    if device == 0:
        return NOT_MINE
    offset = hpa & OFFSET
    if offset & 0xF or size < 4:
        return DONE
    if device == IOAPIC_PAGE:
        ioapic.write(m, offset, value & 0xFFFF_FFFF)
        return DONE
    register = offset >> 4
    if lapic_registers.is_writable(m, register) == 0:
        lapic.report_error(m, lapic.ERROR_REGISTER)
        return DONE
    lapic_registers.write(m, register, value & 0xFFFF_FFFF)
    return DONE

"""I/O ports: an access goes to the device whose port it is; wider accesses to byte devices go to consecutive ports."""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, NOT_MINE
from vmxemu.platform import pic, pit, port_map, rtc, system_ports, uart
from vmxemu.platform.output import DEBUG_402, DEBUG_E9, put_byte
from vmxemu.platform.port_map import DEVICE_OF_PORT, NOBODY, SHUTDOWN_PORT, TABLE_PORTS

if TYPE_CHECKING:
    from vmxemu.state import State

ALL_ONES = u64(0xFF)
DEBUG_PRESENT = u64(0xE9)  # what a debug port reads as when there is one
MOST_BYTES = u64(4)


@kernel
def device_at(port: int) -> int:
    """The device of a port, port_map's number."""
    if port < TABLE_PORTS:
        return u64(DEVICE_OF_PORT[port])
    return port_map.SHUTDOWN if port == SHUTDOWN_PORT else NOBODY


@kernel
def port_in(m: "State", port: int, size: int) -> int:
    """IN of 1, 2 or 4 bytes; the value is in m.walk.value. NOT_MINE if there is no such device."""
    value = u64(0)
    for byte in range(min(size, MOST_BYTES)):
        outcome = _in_byte(m, port + byte & 0xFFFF)
        if outcome != DONE:
            m.walk.value = (u64(1) << (size << 3)) - 1
            return outcome
        value = value | m.walk.value << (byte << 3)
    m.walk.value = value
    return DONE


@kernel
def _in_byte(m: "State", port: int) -> int:
    device = device_at(port)
    value = ALL_ONES
    if device == port_map.UART:
        value = uart.read(m, port & 7)
    elif device == port_map.DEBUG_402 or device == port_map.DEBUG_E9:
        value = DEBUG_PRESENT
    elif device == port_map.PIT:
        if port & 3 != 3:
            value = pit.read_counter(m, port & 3)
    elif device == port_map.PIC_MASTER:
        value = pic.read(m, u64(0), port & 1)
    elif device == port_map.PIC_SLAVE:
        value = pic.read(m, u64(1), port & 1)
    elif device == port_map.TRIGGER:
        value = pic.read_trigger(m, port & 1)
    elif device == port_map.SYSTEM_61:
        value = system_ports.read_61(m)
    elif device == port_map.RTC:
        if port & 1:
            value = rtc.read(m)
    elif device == port_map.POST:
        value = m.platform.diagnostic[port & 0xF]
    elif device == port_map.PORT_92:
        value = m.platform.port_92
    elif device == port_map.APM:
        value = m.platform.smi_data if port & 1 else m.platform.smi_command
    elif device == port_map.PCI_ADDRESS:
        value = m.platform.pci_address >> ((port & 3) << 3) & 0xFF
    elif device == NOBODY or device == port_map.SHUTDOWN:
        return NOT_MINE
    m.walk.value = value
    return DONE


@kernel
def port_out(m: "State", port: int, size: int, value: int) -> int:
    """OUT of 1, 2 or 4 bytes. STOPPED if the guest ended the run, NOT_MINE if there is no such device."""
    device = device_at(port)
    if device == port_map.EXIT:
        return system_ports.write_exit(m, value & ((u64(1) << (size << 3)) - 1))
    if device == port_map.PCI_ADDRESS:
        # Only a doubleword is the address register; anything smaller belongs to other chipset functions.
        if size != 4:
            return NOT_MINE
        m.platform.pci_address = value & 0x80FF_FFFC
        return DONE
    for byte in range(min(size, MOST_BYTES)):
        outcome = _out_byte(m, port + byte & 0xFFFF, value >> (byte << 3) & 0xFF)
        if outcome != DONE:
            return outcome
    return DONE


@kernel
def _out_byte(m: "State", port: int, value: int) -> int:
    device = device_at(port)
    if device == port_map.UART:
        uart.write(m, port & 7, value)
    elif device == port_map.DEBUG_402:
        put_byte(m, DEBUG_402, value)
    elif device == port_map.DEBUG_E9:
        put_byte(m, DEBUG_E9, value)
    elif device == port_map.PIT:
        if port & 3 == 3:
            pit.write_control(m, value)
        else:
            pit.write_counter(m, port & 3, value)
    elif device == port_map.PIC_MASTER:
        pic.write(m, u64(0), port & 1, value)
    elif device == port_map.PIC_SLAVE:
        pic.write(m, u64(1), port & 1, value)
    elif device == port_map.TRIGGER:
        pic.write_trigger(m, port & 1, value)
    elif device == port_map.SYSTEM_61:
        system_ports.write_61(m, value)
    elif device == port_map.RTC:
        if port & 1:
            rtc.write(m, value)
        else:
            disabled = m.platform.rtc.nmi_disabled
            rtc.select(m, value)
            system_ports.enable_nmi(m, disabled)
    elif device == port_map.APM:
        if port & 1:
            m.platform.smi_data = value
        else:
            system_ports.write_apm(m, value)
    else:
        return _out_rare(m, device, port, value)
    return DONE


@kernel
def _out_rare(m: "State", device: int, port: int, value: int) -> int:
    if device == port_map.POST:
        m.platform.diagnostic[port & 0xF] = value
        return DONE
    if device == port_map.PORT_92:
        return system_ports.write_92(m, value)
    if device == port_map.SHUTDOWN:
        return system_ports.write_shutdown(m, value)
    return DONE if device == port_map.ABSENT else NOT_MINE

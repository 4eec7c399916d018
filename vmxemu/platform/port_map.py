"""Which device answers which I/O port. One table serves the dispatch, the reports and the documentation."""

from dataclasses import dataclass

import numpy as np

from vmxemu.layout import u64


@dataclass(frozen=True)
class Range:
    """Ports first..last belong to a device. `why` says, for absent ones, why software looks there all the same."""

    first: int
    last: int
    name: str
    why: str = ""


NOBODY, ABSENT, PIC_MASTER, PIC_SLAVE, PIT, SYSTEM_61, RTC, POST, PORT_92 = (u64(number) for number in range(9))
APM, DEBUG_E9, DEBUG_402, EXIT, UART, TRIGGER, PCI_ADDRESS, SHUTDOWN = (u64(number) for number in range(9, 17))
SHUTDOWN_PORT = u64(0x8900)
TABLE_PORTS = u64(0x1000)

DEVICES = {
    int(PIC_MASTER): (Range(0x20, 0x21, "8259 interrupt controller, master"),),
    int(PIT): (Range(0x40, 0x43, "8254 timer"),),
    int(SYSTEM_61): (Range(0x61, 0x61, "NMI status and speaker control"),),
    int(RTC): (Range(0x70, 0x71, "real-time clock and CMOS"),),
    int(POST): (Range(0x80, 0x80, "POST code"), Range(0x84, 0x86, "latch"), Range(0x88, 0x88, "latch"),
                Range(0x8C, 0x8E, "latch")),
    int(PORT_92): (Range(0x92, 0x92, "fast A20"),),
    int(PIC_SLAVE): (Range(0xA0, 0xA1, "8259 interrupt controller, slave"),),
    int(APM): (Range(0xB2, 0xB3, "APM: SMI command and data"),),
    int(DEBUG_E9): (Range(0xE9, 0xE9, "debug output"),),
    int(EXIT): (Range(0xF4, 0xF7, "exit"),),
    int(UART): (Range(0x3F8, 0x3FF, "16550 serial port"),),
    int(DEBUG_402): (Range(0x402, 0x402, "debug output"),),
    int(TRIGGER): (Range(0x4D0, 0x4D1, "interrupt edge/level control"),),
    int(PCI_ADDRESS): (Range(0xCF8, 0xCFB, "PCI configuration address"),),
}  # fmt: skip

# This machine does not have them and says so as a PC does: reads give all ones, writes vanish. Software probes them.
ABSENT_RANGES = (
    Range(0xED, 0xED, "delay port", "written for the time the access takes; no device on a PC"),
    Range(0x278, 0x27A, "parallel port 2", "firmware writes a pattern and reads it back"),
    Range(0x2E8, 0x2EF, "serial port 4", "probed by its scratch and interrupt-enable registers"),
    Range(0x2F8, 0x2FF, "serial port 2", "probed by its scratch and interrupt-enable registers"),
    Range(0x378, 0x37A, "parallel port 1", "firmware writes a pattern and reads it back"),
    Range(0x3BC, 0x3BE, "parallel port 3", "firmware writes a pattern and reads it back"),
    Range(0x3E8, 0x3EF, "serial port 3", "probed by its scratch and interrupt-enable registers"),
    Range(0x510, 0x511, "QEMU fw_cfg", "probed by the signature that it would return"),
    Range(0xCFC, 0xCFF, "PCI configuration data", "no function answers: vendor FFFFh. There is no host bridge either"),
)

# Not modelled: using one stops the run with this name.
UNMODELLED_RANGES = (
    Range(0x00, 0x0F, "8237 DMA controller, channels 0-3"),
    Range(0x60, 0x60, "8042 keyboard controller, data"),
    Range(0x64, 0x64, "8042 keyboard controller, command and status"),
    Range(0x81, 0x8F, "DMA page register"),
    Range(0x92, 0x92, "processor reset through port 0x92"),
    Range(0xC0, 0xDF, "8237 DMA controller, channels 4-7"),
    Range(0xF0, 0xF1, "x87 error latch"),
    Range(0x170, 0x177, "IDE controller, secondary"),
    Range(0x1CE, 0x1CF, "VBE display"),
    Range(0x1F0, 0x1F7, "IDE controller, primary"),
    Range(0x376, 0x376, "IDE controller, secondary"),
    Range(0x3B0, 0x3BB, "MDA display"),
    Range(0x3C0, 0x3DF, "VGA"),
    Range(0x3F0, 0x3F5, "floppy controller"),
    Range(0x3F6, 0x3F6, "IDE controller, primary"),
    Range(0x3F7, 0x3F7, "floppy controller"),
    Range(0x600, 0x67F, "ACPI power management"),
    Range(0x700, 0x73F, "SMBus"),
    Range(0xAE00, 0xAE1F, "ACPI hot-plug controller"),
    Range(0xB000, 0xB03F, "ACPI power management"),
)


def _table() -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    table = np.full(int(TABLE_PORTS), int(NOBODY), np.uint8)
    for device, ranges in ((int(ABSENT), ABSENT_RANGES), *DEVICES.items()):
        for each in ranges:
            table[each.first : each.last + 1] = device
    return table


DEVICE_OF_PORT = _table()


def port_name(port: int) -> str:
    """What is, or on a PC would be, at this port. For reports."""
    for ranges in (UNMODELLED_RANGES, ABSENT_RANGES, *DEVICES.values()):
        for each in ranges:
            if each.first <= port <= each.last:
                return each.name
    return "unknown device"

"""Power-on."""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.platform import ioapic, lapic, mca, pic, pit, rtc, uart

if TYPE_CHECKING:
    from vmxemu.state import State

USUAL_TSC_HZ, USUAL_LAPIC_HZ = u64(2_100_000_000), u64(25_000_000)  # where no profile has set them
USUAL_START = u64(24 * 365 * 86400 + 6 * 86400)  # 1 January 2024
APIC_BASE = u64(0xFEE0_0000) | lapic.GLOBAL_ENABLE | lapic.BOOTSTRAP


@kernel
def reset(m: "State") -> None:
    """Every device as after power-on. Configuration, the injection schedule and undrained output stay."""
    platform = m.platform
    if platform.tsc_hz == 0:
        platform.tsc_hz = USUAL_TSC_HZ
    if platform.lapic_hz == 0:
        platform.lapic_hz = USUAL_LAPIC_HZ
    if platform.rtc.start == 0:
        platform.rtc.start = USUAL_START
    platform.smi_command = 0
    platform.smi_data = 0
    platform.nmi_control = 0
    platform.nmi_status = 0
    platform.port_92 = 2
    platform.pci_address = 0
    platform.shutdown_matched = 0
    for latch in range(16):
        platform.diagnostic[latch] = 0
    platform.management.count = 0
    platform.management.lost = 0
    m.cpu.smi_pending = 0
    m.cpu.nmi_pending = 0
    m.cpu.mce_pending = 0
    m.cpu.apic_base = APIC_BASE
    pic.power_on(m)
    pit.power_on(m)
    rtc.power_on(m)
    uart.power_on(m)
    lapic.power_on(m)
    ioapic.power_on(m)
    mca.power_on(m)

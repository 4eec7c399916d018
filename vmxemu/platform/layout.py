"""Devices' state. Unless a comment says otherwise every field is power-on zero; `platform.reset` sets the rest."""

from vmxemu.layout import Array, Layout, array, u8, u64

OUTPUT_BYTES = 1 << 16
INJECTIONS = 1 << 16
MANAGEMENT_EVENTS = 64
RECEIVE_BYTES = 64
MCA_BANKS = 32  # room; how many exist is in Mca.capabilities
IOAPIC_PINS = 24

NEVER = u64(0xFFFF_FFFF_FFFF_FFFF)  # a due time that does not come


class Output(Layout):
    """What the guest wrote since Python last set `count` to 0: bytes with the channel each came through."""

    count: u64
    lost: u64
    byte: Array[u8] = array(OUTPUT_BYTES)
    channel: Array[u8] = array(OUTPUT_BYTES)  # platform.output.SERIAL, DEBUG_E9, DEBUG_402


class Uart(Layout):
    """16550A."""

    interrupt_enable: u64
    fifo_control: u64
    line_control: u64
    modem_control: u64
    scratch: u64
    divisor: u64
    transmit_pending: u64  # "transmitter empty" interrupt not yet acknowledged
    overrun: u64
    receive_head: u64
    receive_count: u64
    receive: Array[u8] = array(RECEIVE_BYTES)


class Pic(Layout):
    """One 8259A."""

    lines: u64  # levels of the eight inputs
    request: u64  # IRR
    service: u64  # ISR
    mask: u64  # IMR
    level_triggered: u64  # ELCR
    vector_base: u64
    lowest: u64  # input with the lowest priority
    initialising: u64  # next ICW expected: 0 none, 2, 3, 4
    wants_icw4: u64
    single: u64
    read_service: u64
    poll: u64
    special_mask: u64
    automatic_eoi: u64
    rotate_on_eoi: u64
    fully_nested: u64  # special fully nested mode


class PitChannel(Layout):
    """One counter of the 8254. Times in periods of its clock since power-on."""

    mode: u64
    access: u64  # 1 low byte, 2 high byte, 3 both
    bcd: u64
    reload: u64  # 1..65536 (10000 in BCD)
    running: u64
    start: u64
    gate: u64
    held: u64  # elapsed periods when the gate closed
    write_high: u64  # the low byte has come
    write_low: u64
    read_high: u64
    latched: u64  # bytes of the latched count left to read
    latch: u64
    status_latched: u64
    status: u64
    due: u64  # ticks of the next rising edge of OUT, channel 0 only


class Pit(Layout):
    """8254."""

    channel: Array[PitChannel] = array(3)


class Rtc(Layout):
    """MC146818 with 128 bytes of CMOS."""

    index: u64
    nmi_disabled: u64
    start: u64  # seconds since 2000-01-01 at power-on
    cmos: Array[u8] = array(128)


class Lapic(Layout):
    """Local APIC. TPR is m.cpu.tpr, the base m.cpu.apic_base, the TSC deadline m.cpu.tsc_deadline."""

    id: u64
    logical_id: u64
    destination_format: u64
    spurious: u64
    error: u64  # ESR as software reads it
    error_pending: u64
    command: u64  # ICR
    initial_count: u64
    divide: u64
    timer_start: u64  # timer clock periods since power-on
    timer_due: u64  # ticks
    request: Array[u64] = array(8)  # IRR, 32 vectors each
    service: Array[u64] = array(8)
    trigger: Array[u64] = array(8)
    lvt: Array[u64] = array(7)  # CMCI, timer, thermal, performance, LINT0, LINT1, error


class Ioapic(Layout):
    """I/O APIC."""

    id: u64
    index: u64
    lines: u64
    entry: Array[u64] = array(IOAPIC_PINS)


class McaBank(Layout):
    """One error-reporting bank."""

    control: u64
    status: u64
    addr: u64  # ADDR register
    misc: u64
    control2: u64


class Mca(Layout):
    """Machine-check architecture."""

    capabilities: u64  # IA32_MCG_CAP
    status: u64  # IA32_MCG_STATUS
    control: u64  # IA32_MCG_CTL
    bank: Array[McaBank] = array(MCA_BANKS)


class ManagementEvent(Layout):
    """A management interrupt on its way to the processor."""

    kind: u64  # trace.events.SMI, MC, CMCI, NMI, PMI
    serial: u64
    hpa: u64  # 0 = none
    detail: u64  # SMI and PMI: command; #MC and CMCI: bank; NMI: 0x61 status bits
    cause: u64  # platform.management.CAUSE_*
    flags: u64  # #MC: RIPV and EIPV for IA32_MCG_STATUS


class Management(Layout):
    """Pending management interrupts, oldest first."""

    count: u64
    serial: u64  # of the latest one
    lost: u64
    event: Array[ManagementEvent] = array(MANAGEMENT_EVENTS)
    taken: ManagementEvent  # the one that take_management removed last


class Injection(Layout):
    """One scheduled error or event; see platform.injection for kinds and which fields each uses."""

    kind: u64
    due: u64  # ticks
    hpa: u64
    bank: u64
    status: u64  # 0 = the kind's usual IA32_MCi_STATUS
    misc: u64  # 0 = physical address, 64-byte line
    flags: u64
    serial: u64


class Injections(Layout):
    """The schedule: entries head..count-1 are to come, in order of their due time."""

    head: u64
    count: u64
    serial: u64
    entry: Array[Injection] = array(INJECTIONS)


class Platform(Layout):
    """All devices, and the rates that relate their clocks to ticks."""

    tsc_hz: u64  # configuration: cycles a second
    lapic_hz: u64  # configuration: LAPIC timer clock before its divider
    smi_command: u64  # port 0xB2
    smi_data: u64  # port 0xB3
    nmi_control: u64  # port 0x61 bits 3:0 as written
    nmi_status: u64  # port 0x61 bits 7:6
    port_92: u64
    pci_address: u64  # port 0xCF8
    shutdown_matched: u64  # letters of "Shutdown" seen on port 0x8900
    post_code: u64
    diagnostic: Array[u64] = array(16)  # ports 0x80..0x8F that hold a byte
    pic: Array[Pic] = array(2)
    pit: Pit
    rtc: Rtc
    uart: Uart
    lapic: Lapic
    ioapic: Ioapic
    mca: Mca
    management: Management
    output: Output
    injections: Injections

"""16550A serial port at 0x3F8, IRQ 4 (PC16550D data sheet). Bytes leave at once; input comes from Python."""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.platform.irq import IRQ_UART, set_irq
from vmxemu.platform.layout import RECEIVE_BYTES
from vmxemu.platform.output import SERIAL, put_byte

if TYPE_CHECKING:
    from vmxemu.state import State

DATA, INTERRUPT_ENABLE, IDENTIFICATION, LINE_CONTROL = (u64(i) for i in range(4))
MODEM_CONTROL, LINE_STATUS, MODEM_STATUS, SCRATCH = (u64(i) for i in range(4, 8))
DIVISOR_ACCESS = u64(0x80)
FIFO_ON, CLEAR_RECEIVE = u64(1), u64(2)
LOOPBACK, OUT2 = u64(0x10), u64(8)
DATA_READY, OVERRUN, TRANSMITTER_EMPTY = u64(1), u64(2), u64(0x60)
ENABLE_RECEIVE, ENABLE_TRANSMIT, ENABLE_LINE = u64(1), u64(2), u64(4)
ID_NONE, ID_TRANSMIT, ID_RECEIVE, ID_LINE, ID_FIFO = u64(1), u64(2), u64(4), u64(6), u64(0xC0)
CONNECTED = u64(0xB0)  # DCD, DSR, CTS: somebody is there
FIFO_BYTES = u64(16)
BUFFER_BYTES = u64(RECEIVE_BYTES)


@kernel
def power_on(m: "State") -> None:
    """Registers after reset: 9600 baud and nothing enabled."""
    uart = m.platform.uart
    uart.interrupt_enable = 0
    uart.fifo_control = 0
    uart.line_control = 0
    uart.modem_control = 0
    uart.scratch = 0
    uart.divisor = 12
    uart.transmit_pending = 0
    uart.overrun = 0
    uart.receive_head = 0
    uart.receive_count = 0


@kernel
def _cause(m: "State") -> int:
    """The interrupt to identify first, ID_NONE if there is none."""
    uart = m.platform.uart
    if uart.interrupt_enable & ENABLE_LINE and uart.overrun != 0:
        return ID_LINE
    if uart.interrupt_enable & ENABLE_RECEIVE and uart.receive_count != 0:
        return ID_RECEIVE
    if uart.interrupt_enable & ENABLE_TRANSMIT and uart.transmit_pending != 0:
        return ID_TRANSMIT
    return ID_NONE


@kernel
def _drive(m: "State") -> None:
    """OUT2 connects the interrupt to the bus, as on every PC."""
    asks = _cause(m) != ID_NONE and m.platform.uart.modem_control & (OUT2 | LOOPBACK) == OUT2
    set_irq(m, IRQ_UART, u64(1) if asks else u64(0))


@kernel
def receive(m: "State", value: int) -> int:
    """One byte comes in; gives 1 if there was room. With room lacking the caller keeps the byte: nothing is lost."""
    uart = m.platform.uart
    if uart.receive_count >= BUFFER_BYTES:
        return u64(0)
    uart.receive[(uart.receive_head + uart.receive_count) % BUFFER_BYTES] = value
    uart.receive_count = uart.receive_count + 1
    _drive(m)
    return u64(1)


@kernel
def _take(m: "State") -> int:
    uart = m.platform.uart
    if uart.receive_count == 0:
        return u64(0)
    value = uart.receive[uart.receive_head]
    uart.receive_head = (uart.receive_head + 1) % BUFFER_BYTES
    uart.receive_count = uart.receive_count - 1
    return value


@kernel
def read(m: "State", register: int) -> int:
    """IN from 0x3F8 + register."""
    uart = m.platform.uart
    value = u64(0)
    if register <= INTERRUPT_ENABLE and uart.line_control & DIVISOR_ACCESS:
        value = uart.divisor >> (register << 3) & 0xFF
    elif register == DATA:
        value = _take(m)
    elif register == INTERRUPT_ENABLE:
        value = uart.interrupt_enable
    elif register == IDENTIFICATION:
        value = _cause(m)
        if value == ID_TRANSMIT:
            uart.transmit_pending = 0
        if uart.fifo_control & FIFO_ON:
            value = value | ID_FIFO
    elif register == LINE_CONTROL:
        value = uart.line_control
    elif register == MODEM_CONTROL:
        value = uart.modem_control
    elif register == LINE_STATUS:
        value = TRANSMITTER_EMPTY | uart.overrun << 1 | (DATA_READY if uart.receive_count != 0 else u64(0))
        uart.overrun = 0
    elif register == MODEM_STATUS:
        value = _modem_status(uart.modem_control)
    else:
        value = uart.scratch
    _drive(m)
    return value


@kernel
def _modem_status(control: int) -> int:
    """In loopback DTR, RTS, OUT1, OUT2 come back as DSR, CTS, RI, DCD."""
    if control & LOOPBACK == 0:
        return CONNECTED
    return (control & 1) << 5 | (control & 2) << 3 | (control & 4) << 4 | (control & 8) << 4


@kernel
def write(m: "State", register: int, value: int) -> None:
    """OUT to 0x3F8 + register."""
    uart = m.platform.uart
    if register <= INTERRUPT_ENABLE and uart.line_control & DIVISOR_ACCESS:
        shift = register << 3
        uart.divisor = uart.divisor & ~(u64(0xFF) << shift) | value << shift
    elif register == DATA:
        _send(m, value)
    elif register == INTERRUPT_ENABLE:
        if value & ENABLE_TRANSMIT and uart.interrupt_enable & ENABLE_TRANSMIT == 0:
            uart.transmit_pending = 1
        uart.interrupt_enable = value & 0xF
    elif register == IDENTIFICATION:
        if value & CLEAR_RECEIVE or (value ^ uart.fifo_control) & FIFO_ON:
            uart.receive_count = 0
        uart.fifo_control = value & 0xC9
    elif register == LINE_CONTROL:
        uart.line_control = value
    elif register == MODEM_CONTROL:
        uart.modem_control = value & 0x1F
    elif register == SCRATCH:
        uart.scratch = value
    _drive(m)


@kernel
def _send(m: "State", value: int) -> None:
    uart = m.platform.uart
    uart.transmit_pending = 1
    if uart.modem_control & LOOPBACK == 0:
        put_byte(m, SERIAL, value)
        return
    room = FIFO_BYTES if uart.fifo_control & FIFO_ON else u64(1)
    if uart.receive_count >= room:
        uart.overrun = 1
    else:
        receive(m, value)

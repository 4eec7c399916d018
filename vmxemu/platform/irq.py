"""The 16 ISA interrupt lines: each goes to the 8259 pair and to an I/O APIC pin."""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.platform import ioapic, pic

if TYPE_CHECKING:
    from vmxemu.state import State

IRQ_PIT, IRQ_UART, IRQ_RTC = u64(0), u64(4), u64(8)
PIN_OF_IRQ0 = u64(2)  # as the usual ACPI interrupt source override says


@kernel
def set_irq(m: "State", irq: int, level: int) -> None:
    """Drive one line."""
    pic.set_line(m, irq, level)
    ioapic.set_pin(m, PIN_OF_IRQ0 if irq == 0 else irq, level)


@kernel
def pulse_irq(m: "State", irq: int) -> None:
    """A rising edge; the line stays high until the next one, as the 8254's output nearly does."""
    set_irq(m, irq, 0)
    set_irq(m, irq, 1)

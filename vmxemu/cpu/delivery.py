"""Delivery of interrupts and exceptions through the IVT or the IDT. SDM Vol. 3A, 'Interrupt and Exception Handling'.

A delivery that fails leaves the registers as they were and returns the fault; the caller combines it with the event
(`escalate`).
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.delivery_long import deliver_long
from vmxemu.cpu.delivery_protected import deliver_protected
from vmxemu.cpu.delivery_real import deliver_real
from vmxemu.cpu.mode import end_interrupt_shadow, refresh_mode
from vmxemu.cpu.nmi import block_nmi
from vmxemu.isa import exceptions
from vmxemu.isa.bits import CR0_PE, DR7_GD, EFER_LMA
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
EXTERNAL_INTERRUPT, NMI, HARDWARE_EXCEPTION, SOFTWARE_INTERRUPT, PRIVILEGED_SOFTWARE_EXCEPTION, SOFTWARE_EXCEPTION = (
    U(kind) for kind in (0, 2, 3, 4, 5, 6)
)
TRIPLE = U(0x100)
BENIGN, CONTRIBUTORY, PAGE_FAULT = U(0), U(1), U(2)


@kernel
def kind_of_event(info: int) -> int:
    """The event's type, in the format of the VM-entry interruption-information field."""
    return info >> 8 & 7


@kernel
def _begin(m: "State", vector: int, kind: int) -> None:
    d = m.cpu.delivery
    d.external = 0 if kind == SOFTWARE_INTERRUPT or kind == SOFTWARE_EXCEPTION else 1
    d.gate_error = vector << 3 | 2 | d.external
    d.failure = 0


@kernel
def deliver_once(m: "State", vector: int, info: int, error_code: int, next_rip: int) -> int:
    """Deliver one event; `next_rip` is the return address.

    Outcomes: DONE, a fault on the way, what else its memory accesses met, UNMODELLED (task gate).
    """
    kind = kind_of_event(info)
    _begin(m, vector, kind)
    if m.r.cr[0] & CR0_PE == 0:
        outcome = deliver_real(m, vector, next_rip)
    elif m.r.efer & EFER_LMA != 0:
        outcome = deliver_long(m, vector, info, error_code, next_rip)
    else:
        outcome = deliver_protected(m, vector, info, error_code, next_rip)
    if outcome != DONE:
        return outcome
    if kind == NMI:
        block_nmi(m)
    if kind == HARDWARE_EXCEPTION and vector == exceptions.PF:
        m.r.cr[2] = m.cpu.event_gla
    if vector == exceptions.DB and (kind == HARDWARE_EXCEPTION or kind == PRIVILEGED_SOFTWARE_EXCEPTION):
        m.r.dr[7] = m.r.dr[7] & ~DR7_GD
    end_interrupt_shadow(m)
    refresh_mode(m)
    return DONE


@kernel
def severity(vector: int) -> int:
    """Class of an exception in the double-fault rules."""
    if vector > 31:
        return BENIGN
    if exceptions.CONTRIBUTORY_MASK >> vector & 1 != 0:
        return CONTRIBUTORY
    return PAGE_FAULT if exceptions.PAGE_FAULT_MASK >> vector & 1 != 0 else BENIGN


@kernel
def escalate(first: int, second: int) -> int:
    """What a fault `second` during the delivery of exception `first` becomes: itself, #DF, or 100h for a triple fault.

    SDM Vol. 3A, 'Interrupt 8 - Double Fault Exception (#DF)'.
    """
    if first == exceptions.DF:
        return TRIPLE if severity(second) != BENIGN else second
    earlier = severity(first)
    later = severity(second)
    if earlier == CONTRIBUTORY and later == CONTRIBUTORY:
        return exceptions.DF
    if earlier == PAGE_FAULT and later != BENIGN:
        return exceptions.DF
    return second

"""The handler's code segment, as gates of every IDT check it. SDM Vol. 2A, 'INT n': protected mode and IA-32e mode."""

from typing import TYPE_CHECKING

from vmxemu.cpu.descriptors import (
    ACCESSED,
    BIG,
    CODE,
    CODE_OR_DATA,
    CONFORMING,
    LONG_CODE,
    PRESENT,
    dpl_of,
    is_null,
    is_within_table,
    load_segment,
    read_descriptor,
    set_descriptor_bits,
)
from vmxemu.cpu.flags import IF, NT, RF, TF, VM
from vmxemu.cpu.layout import CS
from vmxemu.cpu.mode import cpl
from vmxemu.isa import exceptions
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, fault_with

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
SELECTOR_ERROR = U(0xFFFC)
PRESENT_GATE, GATE_SYSTEM = U(1 << 47), U(1 << 44)
INTERRUPT_GATE_BIT = U(1)  # clear in the type of an interrupt gate, set in a trap gate's
LONG_OR_BIG = LONG_CODE | BIG


@kernel
def read_gate(m: "State", gate: int) -> None:
    """Fill the work record from the low eight bytes of a gate."""
    d = m.cpu.delivery
    d.gate_type = gate >> 40 & 0x1F  # the S bit makes an invalid type
    d.gate_dpl = dpl_of(gate)
    d.gate_ist = gate >> 32 & 7
    d.selector = gate >> 16 & 0xFFFF
    d.offset = gate & 0xFFFF | gate >> 32 & 0xFFFF0000


@kernel
def check_gate(m: "State", gate: int, info: int) -> int:
    """Privilege of software interrupts, then presence."""
    d = m.cpu.delivery
    if d.external == 0 and d.gate_dpl < cpl(m):
        return fault_with(exceptions.GP, d.gate_error)
    if gate & PRESENT_GATE == 0:
        return fault_with(exceptions.NP, d.gate_error)
    return DONE


@kernel
def selector_error(m: "State", selector: int) -> int:
    """Error code that names a selector."""
    return selector & SELECTOR_ERROR | m.cpu.delivery.external


@kernel
def read_handler_segment(m: "State", long_mode: int) -> int:
    """The code segment of the gate into d.code, and the handler's privilege."""
    d = m.cpu.delivery
    if is_null(d.selector):
        return fault_with(exceptions.GP, d.external)
    error = selector_error(m, d.selector)
    if not is_within_table(m, d.selector, 8):
        return fault_with(exceptions.GP, error)
    outcome = read_descriptor(m, d.selector)
    if outcome != DONE:
        return outcome
    d.code = m.cpu.descriptor
    if d.code & CODE_OR_DATA == 0 or d.code & CODE == 0 or dpl_of(d.code) > cpl(m):
        return fault_with(exceptions.GP, error)
    if long_mode != 0 and d.code & LONG_OR_BIG != LONG_CODE:
        return fault_with(exceptions.GP, error)
    if d.code & PRESENT == 0:
        return fault_with(exceptions.NP, error)
    d.new_cpl = cpl(m) if d.code & CONFORMING != 0 else dpl_of(d.code)
    return DONE


@kernel
def enter_handler(m: "State") -> int:
    """The last fallible step, then CS, RIP and RFLAGS."""
    d = m.cpu.delivery
    outcome = set_descriptor_bits(m, d.selector, d.code, ACCESSED)
    if outcome != DONE:
        return outcome
    load_segment(m, CS, d.selector & SELECTOR_ERROR | d.new_cpl, d.code | ACCESSED)
    m.r.rip = d.offset
    m.r.eflags = m.r.eflags & ~(TF | NT | RF | VM)
    if d.gate_type & INTERRUPT_GATE_BIT == 0:
        m.r.eflags = m.r.eflags & ~IF
    return DONE

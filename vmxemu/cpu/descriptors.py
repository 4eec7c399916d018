"""Segment descriptors: reading them from GDT or LDT, and what their bits say. SDM Vol. 3A, 'Segment Descriptors'."""

from typing import TYPE_CHECKING

from vmxemu.cpu.layout import GDTR, LDTR, SEG_P
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE
from vmxemu.translation.access import read_linear, write_linear
from vmxemu.translation.layout import IMPLICIT_SUPERVISOR, READ, WRITE

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
TABLE_INDICATOR = U(4)
INDEX_MASK = U(0xFFF8)
FLAGS_MASK = U(0x00F0FF00)
# Bits of a descriptor as one 64-bit word
ACCESSED, WRITABLE, CONFORMING, CODE, CODE_OR_DATA, PRESENT = (U(1 << bit) for bit in (40, 41, 42, 43, 44, 47))
LONG_CODE, BIG, GRANULARITY = (U(1 << bit) for bit in (53, 54, 55))
SYSTEM_READ, SYSTEM_WRITE = READ | IMPLICIT_SUPERVISOR, WRITE | IMPLICIT_SUPERVISOR


@kernel
def is_null(selector: int) -> bool:
    """Whether a selector is null, whatever its RPL."""
    return selector & 0xFFFC == 0


@kernel
def descriptor_address(m: "State", selector: int) -> int:
    """Linear address of the descriptor."""
    table = LDTR if selector & TABLE_INDICATOR != 0 else GDTR
    return m.r.seg[table].base + (selector & INDEX_MASK)


@kernel
def is_within_table(m: "State", selector: int, size: int) -> bool:
    """Whether a descriptor of `size` bytes lies within the table's limit."""
    last = (selector & INDEX_MASK) + size - 1
    if selector & TABLE_INDICATOR != 0:
        return m.r.seg[LDTR].flags & SEG_P != 0 and last <= m.r.seg[LDTR].limit
    return last <= m.r.seg[GDTR].limit


@kernel
def read_descriptor(m: "State", selector: int) -> int:
    """The descriptor into m.cpu.descriptor. Outcomes: DONE or the access's."""
    outcome = read_linear(m, descriptor_address(m, selector), 8, SYSTEM_READ)
    m.cpu.descriptor = m.walk.value
    return outcome


@kernel
def read_long_descriptor(m: "State", selector: int) -> int:
    """A 16-byte system descriptor of IA-32e mode into m.cpu.descriptor and descriptor_high."""
    outcome = read_descriptor(m, selector)
    if outcome != DONE:
        return outcome
    outcome = read_linear(m, descriptor_address(m, selector) + 8, 8, SYSTEM_READ)
    m.cpu.descriptor_high = m.walk.value
    return outcome


@kernel
def set_descriptor_bits(m: "State", selector: int, descriptor: int, put: int) -> int:
    """Set bits of a descriptor in memory (accessed, busy) unless they are set."""
    if descriptor & put == put:
        return DONE
    return write_linear(m, descriptor_address(m, selector) + 5, 1, (descriptor | put) >> 40 & 0xFF, SYSTEM_WRITE)


@kernel
def base_of(descriptor: int) -> int:
    """Base, 32 bits."""
    return descriptor >> 16 & 0xFFFFFF | descriptor >> 32 & 0xFF000000


@kernel
def limit_of(descriptor: int) -> int:
    """Limit in bytes."""
    limit = descriptor & 0xFFFF | descriptor >> 32 & 0xF0000
    return limit << 12 | 0xFFF if descriptor & GRANULARITY != 0 else limit


@kernel
def flags_of(descriptor: int) -> int:
    """The flags as Unicorn keeps them."""
    return descriptor >> 32 & FLAGS_MASK


@kernel
def dpl_of(descriptor: int) -> int:
    """Descriptor privilege level."""
    return descriptor >> 45 & 3


@kernel
def system_type(descriptor: int) -> int:
    """Type of a system descriptor, 0 for code and data."""
    return 0 if descriptor & CODE_OR_DATA != 0 else descriptor >> 40 & 15


@kernel
def load_segment(m: "State", register: int, selector: int, descriptor: int) -> None:
    """Fill a segment register from a descriptor."""
    segment = m.r.seg[register]
    segment.selector = selector
    segment.base = base_of(descriptor)
    segment.limit = limit_of(descriptor)
    segment.flags = flags_of(descriptor)


@kernel
def load_null(m: "State", register: int, selector: int, dpl: int) -> None:
    """A segment register with a null selector: unusable."""
    segment = m.r.seg[register]
    segment.selector = selector
    segment.base = 0
    segment.limit = 0
    segment.flags = dpl << 13

"""Segment access rights: between the VMCS's format and Unicorn's segment flags, and their fields. SDM Vol. 3C, 'Guest
Register State'.

The VMCS has type, S, DPL and P in bits 7:0, AVL L D/B G in bits 15:12 and "unusable" in bit 16. Unicorn keeps the
descriptor's high
doubleword, whose bit 0 it ignores: there we keep "unusable".
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.layout import HF_CPL, LDTR, SEG_P, SS, TR
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.vmx.vmcs import GUEST_BASES, GUEST_LIMITS, GUEST_RIGHTS, GUEST_SELECTORS, set_slot, slot_value

if TYPE_CHECKING:
    from vmxemu.state import State
    from vmxemu.vmx.vmcs import Vmcs

TYPE, ACCESSED, BUSY, CODE, S, DPL, P, L, DB, G, UNUSABLE = (
    U(0xF),
    U(1),
    U(2),
    U(8),
    U(1 << 4),
    U(3 << 5),
    U(1 << 7),
    U(1 << 13),
    U(1 << 14),
    U(1 << 15),
    U(1 << 16),
)
DPL_SHIFT = U(5)
RESERVED = U(0xFFFE_0F00)
TI = U(4)
FLAG_UNUSABLE = U(1)


@kernel
def is_usable(rights: int) -> bool:
    """Whether the register may be used for access."""
    return rights & UNUSABLE == 0


@kernel
def dpl_of(rights: int) -> int:
    """Descriptor privilege level."""
    return rights >> DPL_SHIFT & 3


@kernel
def granularity_fits(rights: int, limit: int) -> bool:
    """Whether G agrees with the limit: 0 if any of limit bits 11:0 is 0, 1 if any of bits 31:20 is 1."""
    if rights & G != 0:
        return limit & 0xFFF == 0xFFF
    return limit >> 20 == 0


@kernel
def flags_of(rights: int) -> int:
    """Unicorn's flags of these access rights. An unusable register is not present, whatever its other rights."""
    flags = (rights & 0xFF) << 8 | (rights & 0xF000) << 8
    return flags & ~SEG_P | FLAG_UNUSABLE if rights & UNUSABLE != 0 else flags


@kernel
def rights_of(flags: int) -> int:
    """Access rights of Unicorn's flags; a register that is not present is unusable."""
    rights = flags >> 8 & 0xF0FF
    return rights | UNUSABLE if flags & SEG_P == 0 else rights


@kernel
def load_segment(m: "State", v: "Vmcs", number: int) -> None:
    """Load one segment register from the guest-state area."""
    segment = m.r.seg[number]
    rights = slot_value(v, GUEST_RIGHTS, number)
    segment.selector = slot_value(v, GUEST_SELECTORS, number)
    segment.base = slot_value(v, GUEST_BASES, number)
    segment.limit = slot_value(v, GUEST_LIMITS, number)
    segment.flags = flags_of(rights)


@kernel
def save_segment(m: "State", v: "Vmcs", number: int) -> None:
    """Save one segment register into the guest-state area."""
    segment = m.r.seg[number]
    rights = rights_of(segment.flags)
    if number == SS:
        rights = rights & ~DPL | (m.r.mode & HF_CPL) << DPL_SHIFT  # the DPL of SS is the CPL, even where SS is unusable
    # Unicorn does not always set "accessed" and "busy" in the loaded register, as it does in the descriptor.
    if rights & UNUSABLE == 0:
        if number == TR:
            rights = rights | BUSY
        elif number != LDTR and rights & S != 0:
            rights = rights | ACCESSED
    set_slot(v, GUEST_SELECTORS, number, segment.selector)
    set_slot(v, GUEST_BASES, number, segment.base)
    set_slot(v, GUEST_LIMITS, number, segment.limit)
    set_slot(v, GUEST_RIGHTS, number, rights)

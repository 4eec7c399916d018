"""The walk in every mode: of the guest's tables, or of EPT alone with paging off."""

from typing import TYPE_CHECKING

from vmxemu.isa import exceptions
from vmxemu.layout import u64 as U
from vmxemu.outcome import fault_with
from vmxemu.translation.bits import CR0_PG, CR4_LA57, EFER_LMA, FRAME_MASK
from vmxemu.translation.ept_failure import FAILED
from vmxemu.translation.ept_page import ANSWER_TYPE_SHIFT, page_class
from vmxemu.translation.finish import page_through_ept
from vmxemu.translation.guest import walk_guest
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.rights import CLASS_SHIFT, EPT_TYPE_SHIFT, GUEST_CLASS_SHIFT, SUPERVISOR, rights_of

if TYPE_CHECKING:
    from vmxemu.state import State

GP = exceptions.GP
EVERYTHING = U(0xFFFFFFFFFFFFFFFF)


@apart
def walk(m: "State", gla: int, access: int, required: int) -> int:
    """The word of the page (translation.rights), or FAILED with the outcome."""
    if m.r.cr[0] & CR0_PG != 0:
        if m.r.efer & EFER_LMA != 0 and not is_canonical(m, gla):
            return FAILED | fault_with(GP, 0)
        return walk_guest(m, gla, access, required)
    # Without paging every linear address is a user-mode, read-write, executable one. SDM Vol. 3C, table of exit
    # qualifications for EPT violations.
    answer = page_through_ept(m, m.paging.ept_pointer, gla, access, EVERYTHING, U(0))
    m.walk.gpa = gla if answer & FAILED == 0 else m.walk.gpa
    return answer if answer & FAILED != 0 else unpaged_word(answer)


@inlined
def unpaged_word(answer: int) -> int:
    """The TLB's word for a guest-physical page: everybody's, with the rights that EPT gives."""
    size = page_class(answer)
    low = ((1 << (size * 9 + 12)) - 1) & FRAME_MASK
    everybody = rights_of(EVERYTHING, 0, 1, answer) | SUPERVISOR
    kind = answer >> ANSWER_TYPE_SHIFT << EPT_TYPE_SHIFT & (0xF << EPT_TYPE_SHIFT)
    return answer & FRAME_MASK & ~low | everybody | size << CLASS_SHIFT | size << GUEST_CLASS_SHIFT | kind


@inlined
def is_canonical(m: "State", gla: int) -> bool:
    """Whether the bits above the linear-address width repeat its highest bit."""
    top = gla >> 56 if m.r.cr[4] & CR4_LA57 != 0 else gla >> 47
    return top == 0 or top == (0xFF if m.r.cr[4] & CR4_LA57 != 0 else 0x1FFFF)

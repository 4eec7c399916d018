"""Sub-page write permissions: 128 bytes at a time. SDM Vol. 3C, 'Sub-Page Write Permissions'."""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import read64
from vmxemu.translation.bits import EPT_READ, EPT_SUBPAGES, EPT_WRITE, FRAME_MASK, SPP_MISS
from vmxemu.translation.ept_failure import SUBPAGE_EVENT, WANT_LINEAR, WANT_SHADOW_STACK, violation
from vmxemu.translation.inline import apart
from vmxemu.translation.journal import note
from vmxemu.translation.layout import EPT_SUBPAGE_WRITE, STEP_SPP

if TYPE_CHECKING:
    from vmxemu.state import State

VALID = U(1)
TABLE_RESERVED = U(0xFFE)  # bits 11:1 of an entry that references a table
VECTOR_RESERVED = U(0xAAAA_AAAA_AAAA_AAAA)  # the odd bits of the vector
EVERYTHING = U(0xFFFF_FFFF_FFFF_FFFF)


@kernel
def eligible_for_subpages(m: "State", want: int, both: int, entry: int, shift: int) -> bool:
    """Whether a store that EPT does not permit is to be decided by the sub-page permission table."""
    kind = want & (EPT_WRITE | WANT_LINEAR | WANT_SHADOW_STACK)
    return (
        m.paging.ept_extensions & EPT_SUBPAGE_WRITE != 0
        and kind == EPT_WRITE | WANT_LINEAR
        and shift == 9
        and entry & EPT_SUBPAGES != 0
        and both & (EPT_READ | EPT_WRITE) == EPT_READ
    )


@apart
def subpage_outcome(m: "State", gpa: int, want: int, both: int, entry: int) -> int:
    """0 if the table permits the store to the sub-page, else a failed walk's answer."""
    reserved = TABLE_RESERVED | EVERYTHING << m.cpu.physical_bits
    table = m.paging.spp_table & FRAME_MASK
    shift = U(36)
    while True:
        at = table | (gpa >> shift & 0xFF8)
        found = read64(m, at)
        if m.walk.recording != 0:
            note(m, STEP_SPP, shift * 57 >> 9, U(0), gpa, at, found, U(0))
        if shift == 9:
            break
        if found & VALID == 0:
            return _event(m, gpa, SPP_MISS)
        if found & reserved != 0:
            return _event(m, gpa, U(0))
        table = found & FRAME_MASK
        shift = shift - 9
    if found & VECTOR_RESERVED != 0:
        return _event(m, gpa, U(0))
    if found >> (gpa >> 7 & 31) * 2 & 1 != 0:
        return U(0)
    return violation(m, gpa, want, both, entry)


@kernel
def _event(m: "State", gpa: int, qualification: int) -> int:
    """An SPP-related event: the table has no answer (miss), or a misconfigured one."""
    m.walk.gpa = gpa
    m.walk.qualification = qualification
    return SUBPAGE_EVENT

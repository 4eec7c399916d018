"""Accessed and dirty flags for EPT, and the page-modification log. SDM Vol. 3C, 'Accessed and Dirty Flags for EPT' and
'Page-Modification Logging'.
"""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import read64, write64
from vmxemu.translation.bits import EPT_A, EPT_D, EPT_WRITE, FRAME_MASK
from vmxemu.translation.ept_failure import LOG_FULL
from vmxemu.translation.inline import apart
from vmxemu.translation.journal import note
from vmxemu.translation.layout import EPT_PAGE_MODIFICATION_LOG, STEP_FLAGS, STEP_PML

if TYPE_CHECKING:
    from vmxemu.state import State

LOG_ENTRIES = U(512)
INDEX_MASK = U(0xFFFF)


@apart
def set_ept_flags(m: "State", eptp: int, gpa: int, leaf_shift: int, want: int, leaf: int, guest_level: int) -> int:
    """Set the accessed flags on the way to a page that the walk has found, and its dirty flag for a store; some flag is to be
    set. 0, or LOG_FULL and nothing was changed: with the log in force, any flag needs room in it.
    """
    if m.tlb.probing != 0:
        return U(0)
    logged = m.paging.ept_extensions & EPT_PAGE_MODIFICATION_LOG != 0
    if logged and m.paging.pml_index >= LOG_ENTRIES:
        m.walk.gpa = gpa
        m.walk.qualification = 0
        return LOG_FULL
    dirties = want & EPT_WRITE != 0 and leaf & EPT_D == 0
    shift = ((eptp >> 3 & 7) + 1) * 9
    table = eptp & FRAME_MASK
    while True:
        at = table | (gpa >> shift & 0xFF8)
        entry = read64(m, at)
        new = entry | EPT_A
        if shift == leaf_shift and want & EPT_WRITE != 0:
            new = new | EPT_D
        if new != entry:
            write64(m, at, new)
            if m.walk.recording != 0:
                note(m, STEP_FLAGS, shift * 57 >> 9, guest_level, gpa, at, new, U(0))
        if shift == leaf_shift:
            if logged and dirties:
                _log(m, gpa, guest_level)
            return U(0)
        table = entry & FRAME_MASK
        shift = shift - 9


@kernel
def _log(m: "State", gpa: int, guest_level: int) -> None:
    """Log a page that has become dirty."""
    index = m.paging.pml_index
    at = m.paging.pml_address + (index << 3)
    write64(m, at, gpa & FRAME_MASK)
    m.paging.pml_index = index - 1 & INDEX_MASK
    if m.walk.recording != 0:
        note(m, STEP_PML, U(0), guest_level, gpa, at, gpa & FRAME_MASK, U(0))

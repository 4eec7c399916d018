"""The closer look at a cached translation, where its rights alone do not decide: protection keys, shadow stacks, the
journal, and the search for stale translations.
"""

from typing import TYPE_CHECKING

from vmxemu.layout import u64 as U
from vmxemu.translation.bits import FRAME_MASK
from vmxemu.translation.inline import apart
from vmxemu.translation.journal import note
from vmxemu.translation.layout import SHADOW_STACK, STEP_STLB, STEP_TLB
from vmxemu.translation.rights import LOOK_CLOSER, key_denies, page_permits
from vmxemu.translation.stale import check_hit
from vmxemu.translation.tlb_layout import STLB

if TYPE_CHECKING:
    from vmxemu.state import State


@apart
def permitted_after_all(m: "State", slot: int, gla: int, access: int, required: int) -> bool:
    """Whether an entry whose rights alone do not permit an access does so on a closer look."""
    if required & LOOK_CLOSER == 0 or access & SHADOW_STACK != 0:  # a shadow-stack page is known to a walk only
        return False
    value = m.tlb.entries[slot]
    if not page_permits(value.word, required) or key_denies(m, value.word, required, access):
        return False
    if m.walk.recording != 0:
        kind = STEP_TLB if slot < m.tlb.arrays[STLB * 3].first else STEP_STLB
        m.walk.gla = gla
        note(m, kind, U(0), U(0), value.gpa, value.word & FRAME_MASK, value.word, U(0))
    if m.tlb.checking != 0:
        check_hit(m, slot, gla, access, required)
    return True

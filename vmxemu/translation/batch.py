"""Translation of arrays of addresses in one call."""

from typing import TYPE_CHECKING, Any

from vmxemu.jit import kernel
from vmxemu.translation.bits import CR0_PG, FRAME_MASK
from vmxemu.translation.rights import page_offset, permitted, requirement
from vmxemu.translation.tlb import MISS, current_pcid, drop, find, linear_space, stamp
from vmxemu.translation.translate import translate, translate_missed, truncate

if TYPE_CHECKING:
    from vmxemu.state import State


@kernel
def translate_many(m: "State", glas: Any, access: int, hpas_out: Any, status_out: Any) -> int:
    """Translate `glas` one after the other with the state of now. Returns how many succeeded; others have hpa 0 and
    their outcome.
    """
    if m.r.cr[0] & CR0_PG == 0:
        return _one_by_one(m, glas, access, hpas_out, status_out)
    pcid, space, required = current_pcid(m), linear_space(m), requirement(m, access)
    group = access >> 1 & 1
    succeeded = group ^ group
    for i in range(len(glas)):
        gla = truncate(m, glas[i], access)
        # the common case, without the results in m.walk
        slot = find(m, group, gla, pcid, space)
        m.tlb.clock = m.tlb.clock + 1
        if slot != MISS:
            word = m.tlb.values[slot].word
            if permitted(word, required):
                stamp(m, slot)
                hpas_out[i] = word & FRAME_MASK | gla & page_offset(word)
                status_out[i] = 0
                succeeded = succeeded + 1
                continue
            drop(m, slot)
        outcome = translate_missed(m, gla, access, pcid, space, required)
        status_out[i] = outcome
        hpas_out[i] = m.walk.hpa if outcome == 0 else 0
        succeeded = succeeded + (1 if outcome == 0 else 0)
    return succeeded


@kernel
def _one_by_one(m: "State", glas: Any, access: int, hpas_out: Any, status_out: Any) -> int:
    succeeded = access ^ access
    for i in range(len(glas)):
        outcome = translate(m, glas[i], access)
        status_out[i] = outcome
        hpas_out[i] = m.walk.hpa if outcome == 0 else 0
        succeeded = succeeded + (1 if outcome == 0 else 0)
    return succeeded

"""Effective memory types. SDM Vol. 3A, 'Memory Cache Control'; Vol. 3C, 'EPT and Memory Typing'."""

from typing import TYPE_CHECKING

import numpy as np

from vmxemu.isa import memory_types
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.translation.bits import CR0_CD, CR0_PG, FRAME_MASK, MTRR_ENABLE, MTRR_FIXED_ENABLE, MTRR_MASK_VALID
from vmxemu.translation.ept_page import ANSWER_TYPE_SHIFT
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.rights import EPT_TYPE_SHIFT, IGNORE_PAT, PAT_SHIFT

if TYPE_CHECKING:
    from vmxemu.state import State

UNCACHEABLE, WRITE_THROUGH, WRITE_BACK, UNCACHED = (
    U(memory_types.NUMBERS[name]) for name in ("UC", "WT", "WB", "UC-")
)
# index: type of the region (MTRR or EPT) * 8 + type of PAT
COMBINED = np.array(memory_types.combined(), dtype=np.uint64)
NO_EPT_TYPE = U(7)  # in a word: there is no EPT
FIRST_MIB = U(1 << 20)
FIXED_64K_END, FIXED_16K_END = U(0x80000), U(0xC0000)
VARIABLE_RANGES = U(10)
NONE = U(8)


@apart
def mtrr_type(m: "State", hpa: int) -> int:
    """Memory type of a physical address by the MTRRs. SDM Vol. 3A, 'MTRR Precedences'."""
    control = m.cpu.mtrr_def_type
    if control & MTRR_ENABLE == 0:
        return UNCACHEABLE
    if hpa < FIRST_MIB and control & MTRR_FIXED_ENABLE != 0:
        if hpa < FIXED_64K_END:
            return m.cpu.mtrr_fixed[0] >> (hpa >> 16) * 8 & 0xFF
        if hpa < FIXED_16K_END:
            offset = hpa - FIXED_64K_END
            return m.cpu.mtrr_fixed[1 + (offset >> 17)] >> (offset >> 14 & 7) * 8 & 0xFF
        offset = hpa - FIXED_16K_END
        return m.cpu.mtrr_fixed[3 + (offset >> 15)] >> (offset >> 12 & 7) * 8 & 0xFF
    found = NONE
    for number in range(VARIABLE_RANGES):
        mask = m.cpu.mtrr_mask[number]
        if mask & MTRR_MASK_VALID != 0 and (hpa ^ m.cpu.mtrr_base[number]) & mask & FRAME_MASK == 0:
            found = _overlap(found, m.cpu.mtrr_base[number] & 0xFF)
    return control & 0xFF if found == NONE else found


@kernel
def _overlap(one: int, other: int) -> int:
    """Type where variable ranges overlap: UC wins, WT wins over WB; other pairs are undefined, the lower number is taken."""
    if one == NONE:
        return other
    return min(one, other)


@inlined
def effective_type(m: "State", pat_index: int, ept_type: int, ignore_pat: int, hpa: int) -> int:
    """Memory type of an access. `ept_type`: of the EPT entry, or NO_EPT_TYPE."""
    if m.r.cr[0] & CR0_CD != 0:
        return UNCACHEABLE
    pat = WRITE_BACK
    if m.r.cr[0] & CR0_PG != 0:
        pat = m.r.pat >> pat_index * 8 & 7
    if ept_type == NO_EPT_TYPE:
        ept_type, ignore_pat = mtrr_type(m, hpa) & 7, U(0)
    if ignore_pat != 0:
        return ept_type
    combined: int = COMBINED[ept_type << 3 | pat]
    return combined


@kernel
def memory_type(m: "State") -> int:
    """Memory type of the page of the latest translation, which succeeded: a number of isa/memory_types.csv."""
    word = m.walk.word
    return effective_type(m, word >> PAT_SHIFT & 7, word >> EPT_TYPE_SHIFT & 7, word & IGNORE_PAT, m.walk.hpa)


@inlined
def structure_type(m: "State", higher: int, answer: int, hpa: int) -> int:
    """Memory type of a guest paging structure. SDM Vol. 3A, 'Paging and Memory Typing'. `higher`: CR3 or the entry that
    refers to it; `answer`: the EPT walk's, or as much of it as is cached.
    """
    if m.paging.ept_pointer == 0:
        return effective_type(m, higher >> 3 & 3, NO_EPT_TYPE, U(0), hpa)
    return effective_type(m, higher >> 3 & 3, answer >> ANSWER_TYPE_SHIFT & 7, answer >> 10 & 1, hpa)

"""The EPT walk: guest-physical to host-physical. SDM Vol. 3C, 'The Extended Page Table Mechanism (EPT)'.

A walk answers with one word: bits 51:12 the 4-KiB frame of the address, 2:0 the permissions R W X of the whole walk, bit 3 set if a
store needs no dirty flag any more, 5:4 the page-size class (4K, 2M, 1G). Bit 63 set says that it failed: the rest is the outcome.
"""

from typing import TYPE_CHECKING

import numpy as np

from vmxemu.jit import kernel
from vmxemu.memory.physical import read64, write64
from vmxemu.outcome import EPT_MISCONFIG, EPT_VIOLATION
from vmxemu.translation.bits import (
    ADDRESS_MASK,
    CAP_1G,
    CAP_2M,
    CAP_EXECUTE_ONLY,
    EPT_A,
    EPT_D,
    EPT_LARGE,
    EPT_VPID_CAP,
    EPT_WRITE,
    EPTP_AD,
    FRAME_MASK,
)

if TYPE_CHECKING:
    from vmxemu.state import State

U = np.uint64
FAILED = U(1 << 63)
STORE_READY = U(1 << 3)
RWX_UNUSUAL = U(0b01010100)  # bit n: permissions n (2 = W, 4 = X, 6 = WX) need a look
BAD_MEMORY_TYPES = U(0b10001100)  # 2, 3 and 7 are reserved
NOT_A_TABLE = U(0x78)  # bits 6:3 of an entry that references a table are reserved; so is 7 where there is no large page
EVERYTHING = U(0xFFFFFFFFFFFFFFFF)


@kernel
def ept_walk(m: "State", eptp: int, gpa: int, want: int, guest_level: int) -> int:
    """Translate `gpa` for the access `want` (bits R W X), counting references. `guest_level`: whose entry is at `gpa`, 0 = none."""
    levels = (eptp >> 3 & 7) + 1
    shift = levels * 9
    if gpa >> shift >> 12 != 0:
        return _violation(m, gpa, want, 0)
    reserved = ADDRESS_MASK & EVERYTHING << m.cpu.physical_bits
    table = eptp & FRAME_MASK
    both = EVERYTHING
    while True:
        entry = read64(m, table | (gpa >> shift & 0xFF8))
        rights = entry & 7
        if rights == 0 or RWX_UNUSUAL >> rights & 1 != 0 or entry & reserved != 0:
            if rights == 0:
                _count(m, guest_level, levels, shift)
                return _violation(m, gpa, want, 0)
            if entry & reserved != 0 or rights != 4 or m.cpu.vmx_msr[EPT_VPID_CAP] & CAP_EXECUTE_ONLY == 0:
                _count(m, guest_level, levels, shift)
                return _misconfiguration(m, gpa)
        both = both & entry
        if shift == 9 or entry & EPT_LARGE != 0:
            break
        if entry & NOT_A_TABLE != 0:
            _count(m, guest_level, levels, shift)
            return _misconfiguration(m, gpa)
        table = entry & FRAME_MASK
        shift = shift - 9
    _count(m, guest_level, levels, shift)
    if BAD_MEMORY_TYPES >> (entry >> 3 & 7) & 1 != 0 or (shift != 9 and _bad_large_page(m, entry, shift)):
        return _misconfiguration(m, gpa)
    if both & want != want:
        return _violation(m, gpa, want, both & 7)
    ready = STORE_READY
    if eptp & EPTP_AD != 0:
        if both & EPT_A == 0 or (want & EPT_WRITE != 0 and entry & EPT_D == 0):
            _set_flags(m, eptp, gpa, shift, want)
            entry = entry | EPT_D if want & EPT_WRITE != 0 else entry
        ready = STORE_READY if entry & EPT_D != 0 else 0
    offset = ((1 << (shift + 3)) - 1) & FRAME_MASK
    return (entry & FRAME_MASK & ~offset) | (gpa & offset) | (both & 7) | ready | (shift // 9 - 1) << 4


@kernel
def page_class(answer: int) -> int:
    """Page-size class of a walk's answer."""
    return answer >> 4 & 3


@kernel
def _count(m: "State", guest_level: int, levels: int, shift: int) -> None:
    last = shift // 9
    m.walk.references = m.walk.references + (levels - last + 1)
    index = guest_level * 8 + last
    m.tlb.ept_walks[index] = m.tlb.ept_walks[index] + 1


@kernel
def _bad_large_page(m: "State", entry: int, shift: int) -> bool:
    """Whether an entry that claims to map a 2M or 1G page is misconfigured: no such page, or address bits below its size."""
    needed = CAP_2M if shift == 18 else CAP_1G
    low = ((1 << (shift + 3)) - 1) & FRAME_MASK
    return shift > 27 or m.cpu.vmx_msr[EPT_VPID_CAP] & needed == 0 or entry & low != 0


@kernel
def _violation(m: "State", gpa: int, want: int, permitted: int) -> int:
    m.walk.gpa = gpa
    m.walk.qualification = want | permitted << 3
    return FAILED | EPT_VIOLATION


@kernel
def _misconfiguration(m: "State", gpa: int) -> int:
    m.walk.gpa = gpa
    m.walk.qualification = 0
    return FAILED | EPT_MISCONFIG


@kernel
def _set_flags(m: "State", eptp: int, gpa: int, leaf_shift: int, want: int) -> None:
    """Set the accessed flags on the way to a page that the walk has found, and its dirty flag for a store."""
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
        if shift == leaf_shift:
            return
        table = entry & FRAME_MASK
        shift = shift - 9

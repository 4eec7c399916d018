"""The end of a guest walk: it has come to the entry that maps the page. Rights, flags, then the page through EPT.

Flags are set when the walk has found that the access is permitted, before the page itself is translated. SDM Vol. 3A,
'Access Rights', 'Accessed and Dirty Flags', 'Shadow-Stack Accesses', 'Page-Fault Exceptions'.
"""

from typing import TYPE_CHECKING

from vmxemu.isa import exceptions
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import read32, read64, write32, write64
from vmxemu.outcome import fault_with
from vmxemu.translation.bits import (
    CAP_ADVANCED_INFORMATION,
    CR4_PAE,
    CR4_PGE,
    CR4_SMEP,
    EFER_NXE,
    EPT_USER_EXECUTE,
    EPT_VPID_CAP,
    EPTP_SHADOW_STACK,
    EXECUTE_DISABLE_LINEAR,
    FRAME_MASK,
    GLA_VALID,
    IS_TRANSLATION,
    PF_FETCH,
    PF_KEY,
    PF_PRESENT,
    PF_SHADOW_STACK,
    PF_USER,
    PF_WRITE,
    READ_WRITE_LINEAR,
    RW,
    SHADOW_STACK_ACCESS,
    US,
    USER_MODE_LINEAR,
    XD,
    A,
    D,
    G,
)
from vmxemu.translation.ept import ept_walk, plain_ram, walk_from
from vmxemu.translation.ept_failure import FAILED, VIOLATION, WANT_LINEAR, WANT_SHADOW_STACK
from vmxemu.translation.ept_page import ANSWER_TYPE_SHIFT, ANSWER_USER_EXECUTE_SHIFT, STORE_READY, page_class, reserved_bits
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.journal import note
from vmxemu.translation.layout import EPT_MODE_BASED_EXECUTE, FETCH, SHADOW_STACK, STEP_FLAGS, WRITE
from vmxemu.translation.rights import (
    CLASS_SHIFT,
    EPT_TYPE_SHIFT,
    GLOBAL,
    GUEST_CLASS_SHIFT,
    KEY_BITS,
    PAT_SHIFT,
    is_user_access,
    key_denies,
    page_permits,
    rights_of,
)
from vmxemu.translation.tlb_layout import CLASS_4M, NESTED_PAGES
from vmxemu.translation.walk_caches import NOWHERE, find_nested, keep_nested

if TYPE_CHECKING:
    from vmxemu.state import State

PF = exceptions.PF
NINE, TEN = U(9), U(10)
NO_EPT = U(7) | STORE_READY | U(1 << 6) | U(7 << 7)  # the answer of a walk where there is nothing to walk
READ_OR_WRITE = U(3)
FLAG_UPDATE = U(7)  # row of tlb.ept_walks for the walks that stores to flags take
EXECUTE = U(4)


@inlined
def finish(
    m: "State",
    gla: int,
    access: int,
    required: int,
    first: int,
    step: int,
    level: int,
    upper: int,
    either: int,
    entry: int,
) -> int:
    """The word of the page, or FAILED with the outcome. `upper` and `either`: the entries above the last one and-ed and
    or-ed; `first`: the level of the first entry that was read.
    """
    both, either = upper & entry, either | entry
    denied = _denial(m, access, required, upper, both, either, entry)
    if denied != 0:
        return page_fault(m, access, denied)
    eptp = m.paging.ept_pointer
    is_write = access & 3 == WRITE
    if both & A == 0 or (is_write and entry & D == 0 and access & SHADOW_STACK == 0):
        failed = _set_flags(m, eptp, access, first, step, level)
        if failed != 0:
            return failed
    gpa = _page_address(gla, entry, level, step)
    m.walk.gpa = gpa
    answer = NO_EPT | (gpa & FRAME_MASK)
    size = level - 1 if level < 4 else 0
    if eptp != 0:
        answer = page_through_ept(m, eptp, gpa, access, both, either)
        if answer & FAILED != 0:
            return answer
        size = page_class(answer) if page_class(answer) < size else size
    dirty = 1 if is_write or entry & D != 0 else 0
    guest_class = CLASS_4M if step == TEN and level == 2 else level - 1
    low = ((1 << (size * 9 + 12)) - 1) & FRAME_MASK
    word = (answer & FRAME_MASK & ~low) | size << CLASS_SHIFT | guest_class << GUEST_CLASS_SHIFT
    if entry & G != 0 and m.r.cr[4] & CR4_PGE != 0:
        word = word | GLOBAL
    word = word | answer >> ANSWER_TYPE_SHIFT << EPT_TYPE_SHIFT & (0xF << EPT_TYPE_SHIFT)
    pat = (entry >> 12 if level > 1 else entry >> 7) & 1
    word = word | (pat << 2 | entry >> 3 & 3) << PAT_SHIFT
    if step == NINE:
        word = word | entry & KEY_BITS
    return word | rights_of(both, either, dirty, answer)


@inlined
def _denial(m: "State", access: int, required: int, upper: int, both: int, either: int, entry: int) -> int:
    """0 if the guest's tables permit the access, else the cause in a page fault's error code."""
    word = rights_of(both, either, 1, NO_EPT) | entry & KEY_BITS
    if access & SHADOW_STACK != 0:
        permits = _is_shadow_stack(m, access, upper, both, entry)
    else:
        permits = page_permits(word, required)
    by_key = key_denies(m, word, required, access)
    if permits and not by_key:
        return U(0)
    return PF_PRESENT | PF_KEY if by_key else PF_PRESENT


@apart
def _is_shadow_stack(m: "State", access: int, upper: int, both: int, entry: int) -> bool:
    """Whether the page is a shadow-stack page of the access's privilege."""
    if upper & RW == 0 or entry & (RW | D) != D:
        return False
    return (both & US != 0) == is_user_access(m, access)


@inlined
def page_through_ept(m: "State", eptp: int, gpa: int, access: int, both: int, either: int) -> int:
    """The EPT walk of the page itself, or what the nested TLB knows of it; bit 2 says whether this linear address may
    be executed. `both` and `either`: the guest's entries.
    """
    mode_based = m.paging.ept_extensions & EPT_MODE_BASED_EXECUTE != 0 and both & US != 0
    want = 1 << (access & 3) | WANT_LINEAR
    if mode_based and access & 3 == FETCH:
        want = EPT_USER_EXECUTE | WANT_LINEAR
    if access & SHADOW_STACK != 0 and eptp & EPTP_SHADOW_STACK != 0 and not is_user_access(m, access):
        want = want | WANT_SHADOW_STACK
    answer = find_nested(m, NESTED_PAGES, gpa, 0, want) if m.tlb.nested_pages_on != 0 else NOWHERE
    if answer == NOWHERE:
        failed, hpa, low = walk_from(m, eptp, gpa, want, U(0), m.memory.ram, plain_ram(m), reserved_bits(m))
        if failed != 0:
            if failed == VIOLATION:
                _qualify(m, access, both, either)
            return failed
        answer = hpa & FRAME_MASK | low
        if m.tlb.nested_pages_on != 0:
            keep_nested(m, NESTED_PAGES, gpa, answer)
    if mode_based:
        executable = answer >> ANSWER_USER_EXECUTE_SHIFT & 1
        answer = answer & ~EXECUTE | executable << 2
    return answer


@apart
def _qualify(m: "State", access: int, both: int, either: int) -> None:
    """Complete the qualification of an EPT violation of the page itself."""
    more = GLA_VALID | IS_TRANSLATION
    if access & SHADOW_STACK != 0:
        more = more | SHADOW_STACK_ACCESS
    if m.cpu.vmx_msr[EPT_VPID_CAP] & CAP_ADVANCED_INFORMATION != 0:
        if both & US != 0:
            more = more | USER_MODE_LINEAR
        if both & RW != 0:
            more = more | READ_WRITE_LINEAR
        if either & XD != 0:
            more = more | EXECUTE_DISABLE_LINEAR
    m.walk.qualification = m.walk.qualification | more


@inlined
def _page_address(gla: int, entry: int, level: int, step: int) -> int:
    """Guest-physical address from the entry that maps a page. Bits 20:13 of a 4M entry are address bits 39:32
    (PSE-36).
    """
    if step == TEN and level == 2:
        return (entry & 0xFFC00000) | (entry >> 13 & 0xFF) << 32 | (gla & 0x3FFFFF)
    offset = (1 << (level * 9 + 3)) - 1
    return (entry & FRAME_MASK & ~offset) | (gla & offset)


@apart
def _set_flags(m: "State", eptp: int, access: int, levels: int, step: int, leaf: int) -> int:
    """Set the accessed flags on the way and, for a write, the last entry's dirty flag. 0, or FAILED where EPT forbids
    the store.
    """
    if m.tlb.probing == 1:
        return U(0)
    references, cycles = m.walk.references, m.walk.memory_cycles
    dirties = access & 3 == WRITE and access & SHADOW_STACK == 0
    failed = U(0)
    level = levels
    while level >= leaf and failed == 0:
        at = m.walk.entry_hpa[level]
        entry = read64(m, at) if step == NINE else read32(m, at)
        new = entry | A | D if dirties and level == leaf else entry | A
        if new != entry:
            if eptp != 0:
                answer = ept_walk(m, eptp, m.walk.entry_gpa[level], READ_OR_WRITE, FLAG_UPDATE)
                if answer & FAILED != 0:
                    m.walk.qualification = m.walk.qualification | GLA_VALID
                    failed = answer
            if failed == 0 and m.tlb.probing == 0:
                _store_flags(m, level, at, new, step)
        level = level - 1
    m.walk.references = references  # the entries are counted, and charged, once
    m.walk.memory_cycles = cycles
    return failed


@inlined
def _store_flags(m: "State", level: int, at: int, new: int, step: int) -> None:
    if step == NINE:
        write64(m, at, new)
    else:
        write32(m, at, new)
    if m.walk.recording != 0:
        note(m, STEP_FLAGS, level, level, m.walk.entry_gpa[level], at, new, U(0))


@apart
def page_fault(m: "State", access: int, cause: int) -> int:
    """FAILED with #PF and its error code. SDM Vol. 3A, 'Page-Fault Exceptions'."""
    code = cause
    if access & 3 == WRITE:
        code = code | PF_WRITE
    if is_user_access(m, access):
        code = code | PF_USER
    if access & SHADOW_STACK != 0:
        code = code | PF_SHADOW_STACK
    if access & 3 == FETCH and (m.r.cr[4] & CR4_SMEP != 0 or (m.r.cr[4] & CR4_PAE != 0 and m.r.efer & EFER_NXE != 0)):
        code = code | PF_FETCH
    return FAILED | fault_with(PF, code)

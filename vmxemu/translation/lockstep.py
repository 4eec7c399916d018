"""Walks for sixteen addresses in lockstep: 64-bit mode, 4 levels, through a 4-level EPT or none.

The walks have no effects. A lane in which anything is out of the ordinary (a fault, a flag to be set, a table outside
of plain RAM) comes back as not done and is walked again, alone, by translation.guest. What is checked, and why, is
said there and in translation.ept. Results stand in `m.tlb.ahead_*`.
"""

from typing import TYPE_CHECKING, Any

from vmxemu.jit import address_of, kernel
from vmxemu.layout import u64 as U
from vmxemu.translation.bits import (
    ADDRESS_MASK,
    CAP_1G,
    CAP_2M,
    CR0_PG,
    CR4_LA57,
    CR4_PGE,
    EFER_LMA,
    EFER_NXE,
    EPT_LARGE,
    EPT_READ,
    EPT_VPID_CAP,
    EPT_WRITE,
    EPTP_AD,
    EPTP_LENGTH,
    EPTP_LENGTH_4,
    FRAME_MASK,
    PS,
    XD,
    A,
    D,
    G,
    P,
)
from vmxemu.translation.ept import plain_ram
from vmxemu.translation.ept_page import BAD_MEMORY_TYPES, NO_TABLE_AT_ALL, STORE_READY, reserved_bits
from vmxemu.translation.finish import NO_EPT, READ_OR_WRITE
from vmxemu.translation.guest import ABOVE_PAT
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.lanes import below, choose, equal, gather, lane_bits, load_lanes, spread, store_lanes
from vmxemu.translation.layout import EPT_MODE_BASED_EXECUTE, WRITE
from vmxemu.translation.rights import CLASS_SHIFT, EPT_TYPE_SHIFT, GUEST_CLASS_SHIFT, KEY_BITS, PAT_SHIFT, RIGHTS
from vmxemu.translation.tlb_layout import Tlb

if TYPE_CHECKING:
    from vmxemu.state import State

AHEAD_GLA, AHEAD_WORD, AHEAD_GPA, AHEAD_SHAPE, AHEAD_REFERENCES = (
    U(Tlb.FIELDS[f"ahead_{name}"].offset) for name in ("gla", "word", "gpa", "shape", "references")
)
ABOVE_48 = U(0x000F_0000_0000_0000)  # of a guest-physical address: beyond 4 levels of EPT
OFFSET_4K, OFFSET_2M, OFFSET_1G = U((1 << 12) - 1), U((1 << 21) - 1), U((1 << 30) - 1)
GUEST_SHAPE = U(10)  # in a shape: bits 2n+1:2n class of the EPT page below guest level n, 11:10 class of the guest page
EVERYTHING = U(0xFFFFFFFFFFFFFFFF)


@kernel
def lockstep_possible(m: "State") -> bool:
    """Whether the present modes are those that `walk_ahead` knows, and no walk depends on what those before it have left in
    caches.
    """
    eptp, cr3, tlb = m.paging.ept_pointer, m.r.cr[3], m.tlb
    helped = tlb.tables_on | tlb.ept_tables_on | tlb.nested_on | tlb.nested_pages_on
    if helped | tlb.watch_frames | m.caches.on | m.walk.recording != 0:
        return False
    if m.paging.ept_extensions & EPT_MODE_BASED_EXECUTE != 0:
        return False
    if m.r.cr[0] & CR0_PG == 0 or m.r.efer & EFER_LMA == 0 or m.r.cr[4] & CR4_LA57 != 0:
        return False
    return eptp == 0 or (eptp & EPTP_LENGTH == EPTP_LENGTH_4 and cr3 & ABOVE_48 == 0)


@inlined
def _unless(mask: Any) -> Any:
    return mask ^ EVERYTHING


@inlined
def _ept_lanes(m: "State", eptp: int, gpa: Any, want: int, go: Any, ram: int, plain: int) -> Any:
    """EPT walks in the lanes `go`: addresses, R W X and STORE_READY as an EPT walk's answer has them, offset masks of
    the EPT pages, their classes, and what is wrong (0 = nothing).
    """
    nothing = spread(0)
    at = gpa >> 36 & 0xFF8 | eptp & FRAME_MASK
    entry = gather(ram, at, go & below(at, plain), nothing)
    both, tables = entry, entry
    at = entry & FRAME_MASK | gpa >> 27 & 0xFF8
    entry = gather(ram, at, go & below(at, plain), nothing)
    both = both & entry
    huge = _unless(equal(entry & EPT_LARGE, 0))
    tables = tables | entry & _unless(huge)
    large = huge
    left = go & _unless(huge)
    if lane_bits(left) != 0:
        at = entry & FRAME_MASK | gpa >> 18 & 0xFF8
        entry = gather(ram, at, left & below(at, plain), entry & huge)
        both = both & entry
        large = _unless(equal(entry & EPT_LARGE, 0))
        tables = tables | entry & _unless(large)
        left = left & _unless(large)
        if lane_bits(left) != 0:
            at = entry & FRAME_MASK | gpa >> 9 & 0xFF8
            entry = gather(ram, at, left & below(at, plain), entry & large)
            both = both & entry
    offset = huge & OFFSET_1G | large & OFFSET_2M | OFFSET_4K
    needed = want | EPT_READ | (eptp & EPTP_AD) << 2
    dirty = (eptp & EPTP_AD) << 3 & (want & EPT_WRITE) << 8
    capabilities = m.cpu.vmx_msr[EPT_VPID_CAP]
    no_2m = EVERYTHING if capabilities & CAP_2M == 0 else 0
    no_1g = EVERYTHING if capabilities & CAP_1G == 0 else 0
    wrong = both & needed ^ needed | entry & dirty ^ dirty
    wrong = wrong | (tables | entry) & reserved_bits(m) | tables & NO_TABLE_AT_ALL
    wrong = wrong | entry & offset & FRAME_MASK | spread(BAD_MEMORY_TYPES) >> (entry >> 3 & 7) & 1
    wrong = (wrong | large & _unless(huge) & no_2m | huge & no_1g) & go
    ready = spread(STORE_READY) if eptp & EPTP_AD == 0 else entry >> 6 & STORE_READY
    hpa = entry & ADDRESS_MASK & _unless(offset) | gpa & offset
    return hpa, both & 7 | ready | (entry & 0x78) << 4, offset, (large & 1) + (huge & 1), wrong


@apart
def walk_ahead(m: "State", mask: int, access: int, required: int) -> int:
    """Walk for the addresses in `m.tlb.ahead_gla`, and-ed with `mask`. Gives the lanes that are done, as bits."""
    tlb = address_of(m.tlb)
    gla = load_lanes(tlb + AHEAD_GLA) & mask
    eptp = m.paging.ept_pointer
    ram, plain = m.memory.ram, plain_ram(m)
    table_access = READ_OR_WRITE if eptp & EPTP_AD != 0 else 1
    no_huge = m.paging.no_1g_pages
    reserved = reserved_bits(m) if m.r.efer & EFER_NXE != 0 else reserved_bits(m) | XD
    reserved = reserved if eptp == 0 else reserved | ABOVE_48
    go, entry, either, wrong = spread(EVERYTHING), spread(0), spread(0), spread(0)
    both, table, shape = go, entry, entry
    table = entry | m.r.cr[3] & FRAME_MASK
    references, guest_class, guest_offset = entry, entry, spread(OFFSET_4K)
    level = U(4)
    while level != 0 and lane_bits(go) != 0:
        at = table | gla >> level * 9 & 0xFF8
        if eptp != 0:
            at, _, _, size, trouble = _ept_lanes(m, eptp, at, table_access, go, ram, plain)
            wrong = wrong | trouble
            shape = shape | (size & go) << level * 2
            references = references + (spread(4) - size & go)
        entry = gather(ram, at, go & below(at, plain), entry & _unless(go))
        references = references + (go & 1)
        both, either = both & entry, either | entry
        if level != 1:
            pages = entry & go & PS
            if level == 4 or (level == 3 and no_huge != 0):
                wrong = wrong | pages
            else:
                found = _unless(equal(pages, 0))
                guest_class = guest_class | found & level - 1
                guest_offset = guest_offset | found & (1 << level * 9 + 3) - 1
                go = go & _unless(found)
        table = entry & FRAME_MASK
        level = level - 1
    gpa = entry & FRAME_MASK & _unless(guest_offset) | gla & guest_offset
    hpa, answer, offset, size = gpa, spread(NO_EPT), guest_offset, guest_class
    if eptp != 0:
        hpa, answer, offset, size, trouble = _ept_lanes(m, eptp, gpa, 1 << (access & 3), spread(EVERYTHING), ram, plain)
        wrong = wrong | trouble
        shape = shape | size
        references = references + (spread(4) - size)
        size = choose(below(size, guest_class), size, guest_class)
        offset = offset & guest_offset
    needed = P | A
    dirty = D if access & 3 == WRITE else 0
    wrong = wrong | both & needed ^ needed | entry & dirty ^ dirty | either & reserved
    wrong = wrong | entry & guest_offset & ABOVE_PAT | gla + 0x800000000000 >> 48
    word = _rights(both, either, entry >> 6, answer)
    wrong = wrong | word & (required & RIGHTS) ^ required & RIGHTS
    pat = choose(equal(guest_class, 0), entry >> 7, entry >> 12) & 1
    word = word | entry & KEY_BITS | (pat << 2 | entry >> 3 & 3) << PAT_SHIFT | (answer >> 7 & 0xF) << EPT_TYPE_SHIFT
    word = word | hpa & FRAME_MASK & _unless(offset) | size << CLASS_SHIFT | guest_class << GUEST_CLASS_SHIFT
    if m.r.cr[4] & CR4_PGE != 0:
        word = word | (entry & G) << 2
    store_lanes(tlb + AHEAD_WORD, word)
    store_lanes(tlb + AHEAD_GPA, gpa & _unless(offset))
    store_lanes(tlb + AHEAD_SHAPE, shape | guest_class << GUEST_SHAPE)
    store_lanes(tlb + AHEAD_REFERENCES, references)
    return lane_bits(equal(wrong, 0))


@inlined
def _rights(both: Any, either: Any, dirty: Any, ept: Any) -> Any:
    """`rights_of`, in lanes."""
    store = ept >> 1 & ept >> 3 & dirty & 1
    rights = ept & 1 | store << 5 | store << 1 & both | ept & 4 & _unless(either >> 61)
    return rights | spread(16) - (both << 1 & 8)


@apart
def count_walks(m: "State", shape: int, times: int) -> None:
    """Count walks of one shape in the TLB's histograms."""
    guest_class = shape >> GUEST_SHAPE
    at = guest_class + 33  # 8 * 4 levels + the last level read
    m.tlb.guest_walks[at] = m.tlb.guest_walks[at] + times
    if m.paging.ept_pointer == 0:
        return
    level = U(5)
    while level != 0:
        level = level - 1
        if level == 0 or level > guest_class:
            at = level * 64 + (shape >> level * 2 & 3) * 9 + 9
            m.tlb.ept_walks[at] = m.tlb.ept_walks[at] + times

"""Removal of cached translations. SDM Vol. 3A, 'Invalidation of TLBs and Paging-Structure Caches' and 'Invalidating the
Translation Lookaside Buffers'; Vol. 3C, 'Invalidating Cached Translation Information'.

Each operation removes what the manual demands, all parts of a large page included, and tells the engine to forget its
own. What it need not remove stays, but for these:

- where the manual says "CR4.PSE may" in one place and "does" in the other, it does; the same for CR0.PE and CR0.PG 0 to 1;
- INVEPT takes EP4TAs that agree in bits 45:12 for the same;
- a VM entry that fails before guest state is loaded drops VPID 0, whatever the VPID control says;
- an entry that does not permit an access is dropped before the walk (translation.translate), so no page fault ever comes
  from a TLB entry that has fewer rights than memory.

What page faults and EPT violations take with them: translation.forget.
"""

from typing import TYPE_CHECKING

import numpy as np

from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.translation.bits import CR3_NO_FLUSH, CR4_PAE, CR4_PCIDE, PCID_MASK
from vmxemu.translation.replacement import drop
from vmxemu.translation.rights import GUEST_CLASS_SHIFT
from vmxemu.translation.tlb import EP4TA_MASK, GLOBAL_TAG, LINEAR, THROUGH_EPT, current_pcid, vpid_bits
from vmxemu.translation.tlb_layout import TABLES

if TYPE_CHECKING:
    from vmxemu.state import State

INVEPT_SINGLE, INVEPT_ALL = U(1), U(2)
INVVPID_ADDRESS, INVVPID_SINGLE, INVVPID_ALL, INVVPID_RETAIN_GLOBALS = U(0), U(1), U(2), U(3)
INVPCID_ADDRESS, INVPCID_SINGLE, INVPCID_ALL, INVPCID_RETAIN_GLOBALS = U(0), U(1), U(2), U(3)
VPID_FIELD = U(0x003F_C000_0000_0FFF)
VPID_ABOVE_FFFF = U(0x003C_0000_0000_0000)  # numbers that stand for VPID 0
EVERY_PCID = U(0xFFFF)
GUEST_PAGE_SHIFT = np.array([12, 21, 30, 22], dtype=np.uint64)  # by page-size class
PAGE = U(12)
LAST_LEVEL = U(5)


@kernel
def invalidate_all(m: "State") -> None:
    """Everything, whatever its tags: reset."""
    _noted(m)
    if m.tlb.live != 0 or m.tlb.pages_end != m.tlb.used:
        drop_all(m)


@kernel
def on_cr3_write(m: "State", old: int, new: int) -> None:
    """MOV to CR3: non-global translations of the PCID that is loaded (bit 63 of `new` keeps them if CR4.PCIDE = 1)."""
    _noted(m)
    pcid = U(0)
    if m.r.cr[4] & CR4_PCIDE != 0:
        if new & CR3_NO_FLUSH != 0:
            return
        pcid = new & PCID_MASK
    _drop_pcid(m, pcid)


@kernel
def on_paging_change(m: "State") -> None:
    """Changes of CR0.PG and PE, CR4.PGE, PAE and PSE, of CR4.PCIDE to 0, and of an MTRR: all translations of the current
    VPID, globals included.
    """
    _noted(m)
    _drop_vpid(m, vpid_bits(m, m.paging.vpid), U(0))


@kernel
def on_smep_set(m: "State") -> None:
    """CR4.SMEP changes to 1: all translations of the current PCID, globals included."""
    _noted(m)
    vpid, pcid = vpid_bits(m, m.paging.vpid), current_pcid(m)
    slot = U(0)
    while slot < m.tlb.used:
        tag, space = m.tlb.entries[slot].tag, m.tlb.entries[slot].space
        if (tag & PCID_MASK == pcid or space & GLOBAL_TAG != 0) and space & LINEAR != 0 and space & VPID_FIELD == vpid:
            drop(m, slot)
        slot = slot + 1


@kernel
def on_rights_change(m: "State") -> None:
    """CR0.WP, CR4.SMAP, IA32_EFER.NXE and the like, and EPTP switching: what an access requires, or which translations it
    uses, is another, but none has to go. What the engine was told is not right any more.
    """
    if m.tlb.eager != 0:
        _noted(m)
    m.engine.flush = 1


@kernel
def invlpg(m: "State", gla: int) -> None:
    """INVLPG: the page of `gla` in the current PCID, and a global page of any; paging-structure caches of the current
    PCID, whatever the address.
    """
    _noted(m)
    vpid = vpid_bits(m, m.paging.vpid)
    drop_address(m, gla, vpid, current_pcid(m), True)
    _drop_tables(m, vpid, current_pcid(m))


@kernel
def invpcid(m: "State", kind: int, pcid: int, gla: int) -> None:
    """INVPCID, its four types. Only individual-address and single-context look at `pcid`; neither removes global
    translations. Unlike INVLPG, individual-address is not about paging-structure caches of other addresses.
    """
    _noted(m)
    vpid = vpid_bits(m, m.paging.vpid)
    if kind == INVPCID_ADDRESS:
        drop_address(m, gla, vpid, pcid, False)
        drop_tables_of(m, gla, vpid, pcid)
    elif kind == INVPCID_SINGLE:
        _drop_pcid(m, pcid)
    else:
        _drop_vpid(m, vpid, 1 if kind == INVPCID_RETAIN_GLOBALS else 0)


@kernel
def invept(m: "State", kind: int, eptp: int) -> None:
    """INVEPT: guest-physical and combined translations, of one EP4TA (single-context) or all."""
    _noted(m)
    slot = U(0)
    while slot < m.tlb.used:
        space = m.tlb.entries[slot].space
        if space & THROUGH_EPT != 0 and (kind == INVEPT_ALL or (space ^ eptp) & EP4TA_MASK == 0):
            drop(m, slot)
        slot = slot + 1


@kernel
def invvpid(m: "State", kind: int, vpid: int, gla: int) -> None:
    """INVVPID, its four types; all-contexts spares VPID 0."""
    _noted(m)
    if kind == INVVPID_ADDRESS:
        drop_address(m, gla, vpid_bits(m, vpid), EVERY_PCID, True)
        drop_tables_of(m, gla, vpid_bits(m, vpid), EVERY_PCID)
    elif kind == INVVPID_ALL:
        slot = U(0)
        while slot < m.tlb.used:
            space = m.tlb.entries[slot].space
            if space & LINEAR != 0 and space & VPID_ABOVE_FFFF == 0:
                drop(m, slot)
            slot = slot + 1
    else:
        _drop_vpid(m, vpid_bits(m, vpid), 1 if kind == INVVPID_RETAIN_GLOBALS else 0)


@kernel
def on_vm_transition(m: "State") -> None:
    """VM entry or exit, after `m.paging` has changed: without VPIDs (0 before and after) everything tagged VPID 0
    goes.
    """
    if m.paging.vpid == 0 and m.tlb.transition_vpid == 0:
        _noted(m)
        drop_vpid0(m)
    elif m.tlb.eager != 0:
        _noted(m)
    m.tlb.transition_vpid = m.paging.vpid


@kernel
def on_smi(m: "State") -> None:
    """An SMI is delivered, outside VMX operation by now: everything tagged VPID 0. SDM Vol. 3C, 'Default Treatment of SMI
    Delivery'.
    """
    _noted(m)
    drop_vpid0(m)


@kernel
def on_rsm(m: "State") -> None:
    """RSM: the linear addresses of all VPIDs; what is known of guest-physical addresses stays. SDM Vol. 3C, 'Default
    Treatment of RSM'.
    """
    _noted(m)
    slot = U(0)
    while slot < m.tlb.used:
        if m.tlb.entries[slot].space & LINEAR != 0:
            drop(m, slot)
        slot = slot + 1


@kernel
def drop_vpid0(m: "State") -> None:
    """Everything tagged VPID 0: it gets a new number. When the numbers come round, old translations must be gone for
    good.
    """
    m.tlb.vpid0_generation = m.tlb.vpid0_generation + 1
    if m.tlb.vpid0_generation & 0x7FFFF == 0:
        drop_all(m)


@kernel
def _noted(m: "State") -> None:
    """Count an invalidation and have the engine forget its own translations. An eager TLB loses all that it holds: the
    manual lets a processor drop more than was asked for, at any time.
    """
    m.engine.flush = 1
    m.tlb.invalidations = m.tlb.invalidations + 1
    if m.tlb.eager != 0:
        drop_all(m)


@kernel
def drop_all(m: "State") -> None:
    """Leave nothing."""
    slot = U(0)
    while slot < m.tlb.used:
        if m.tlb.entries[slot].space != 0:  # what only fills up a stride stays as it is
            drop(m, slot)
        slot = slot + 1
    m.tlb.live = 0
    for group in range(3):
        m.tlb.large_regions[group] = 0


@kernel
def _drop_pcid(m: "State", pcid: int) -> None:
    """Non-global translations of a PCID of the current VPID."""
    vpid = vpid_bits(m, m.paging.vpid)
    slot = U(0)
    while slot < m.tlb.used:
        tag, space = m.tlb.entries[slot].tag, m.tlb.entries[slot].space
        if tag & PCID_MASK == pcid and space & LINEAR != 0 and space & VPID_FIELD == vpid and space & GLOBAL_TAG == 0:
            drop(m, slot)
        slot = slot + 1


@kernel
def _drop_vpid(m: "State", vpid: int, keep_globals: int) -> None:
    """All translations of linear addresses under a VPID, perhaps without the global ones."""
    if keep_globals == 0 and vpid & VPID_ABOVE_FFFF != 0:
        drop_vpid0(m)
        return
    slot = U(0)
    while slot < m.tlb.used:
        space = m.tlb.entries[slot].space
        if space & LINEAR != 0 and space & VPID_FIELD == vpid and (keep_globals == 0 or space & GLOBAL_TAG == 0):
            drop(m, slot)
        slot = slot + 1


@kernel
def drop_address(m: "State", gla: int, vpid: int, pcid: int, globals_too: bool) -> int:
    """One guest page under a VPID (as vpid_bits has it), in all parts in which it may be cached. Gives the number of parts."""
    dropped = U(0)
    slot = U(0)
    while slot < m.tlb.pages_end:
        tag, space = m.tlb.entries[slot].tag, m.tlb.entries[slot].space
        if space & LINEAR != 0 and space & VPID_FIELD == vpid:
            shift = GUEST_PAGE_SHIFT[m.tlb.entries[slot].word >> GUEST_CLASS_SHIFT & 3]
            if (tag ^ gla) >> shift == 0:
                is_global = space & GLOBAL_TAG != 0
                if (is_global and globals_too) or (not is_global and (pcid == EVERY_PCID or tag & PCID_MASK == pcid)):
                    drop(m, slot)
                    dropped = dropped + 1
        slot = slot + 1
    return dropped


@kernel
def _drop_tables(m: "State", vpid: int, pcid: int) -> None:
    """Paging-structure caches under a VPID and a PCID, whatever the address."""
    slot = m.tlb.pages_end
    while slot < m.tlb.used:
        space = m.tlb.entries[slot].space
        if space & LINEAR != 0 and space & VPID_FIELD == vpid and m.tlb.entries[slot].tag & PCID_MASK == pcid:
            drop(m, slot)
        slot = slot + 1


@kernel
def drop_tables_of(m: "State", gla: int, vpid: int, pcid: int) -> None:
    """Those of them that would be used for an address; for EVERY_PCID (INVVPID), whichever the paging mode was."""
    short = m.r.cr[4] & CR4_PAE == 0  # entries of four bytes
    for level in range(2, LAST_LEVEL + 1):
        array = m.tlb.arrays[TABLES + level]
        slot = array.first
        end = slot + (array.set_mask + 1) * array.stride
        page = gla >> (level - 1) * 9 + PAGE
        page_32 = gla >> 10 + PAGE if level == 2 and (short or pcid == EVERY_PCID) else page
        page = page_32 if short and pcid != EVERY_PCID else page
        while slot < end:
            tag, space = m.tlb.entries[slot].tag, m.tlb.entries[slot].space
            if space & LINEAR != 0 and space & VPID_FIELD == vpid and (pcid == EVERY_PCID or tag & PCID_MASK == pcid):
                if tag >> PAGE == page or tag >> PAGE == page_32:
                    drop(m, slot)
            slot = slot + 1

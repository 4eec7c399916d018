"""Removal of cached translations. SDM Vol. 3A, 'Invalidation of TLBs and Paging-Structure Caches'; Vol. 3C,
'Invalidating Cached Translation Information'. Each removes what the manual demands, large and split pages
included, and tells the engine to forget its own.
"""

from typing import TYPE_CHECKING

import numpy as np

from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.translation.bits import CR3_NO_FLUSH, CR4_PCIDE, PCID_MASK
from vmxemu.translation.rights import GUEST_CLASS_SHIFT
from vmxemu.translation.tlb import EP4TA_MASK, GLOBAL_TAG, LINEAR, THROUGH_EPT, drop, vpid_bits

if TYPE_CHECKING:
    from vmxemu.state import State

INVEPT_SINGLE, INVEPT_ALL = U(1), U(2)
INVVPID_ADDRESS, INVVPID_SINGLE, INVVPID_ALL, INVVPID_RETAIN_GLOBALS = U(0), U(1), U(2), U(3)
INVPCID_ADDRESS, INVPCID_SINGLE, INVPCID_ALL, INVPCID_RETAIN_GLOBALS = U(0), U(1), U(2), U(3)
VPID_FIELD = U(0x003F_C000_0000_0FFF)
VPID_ABOVE_FFFF = U(0x003C_0000_0000_0000)  # numbers that stand for VPID 0
EVERY_PCID = U(0xFFFF)
GUEST_PAGE_SHIFT = np.array([12, 21, 30, 22], dtype=np.uint64)  # by page-size class


@kernel
def invalidate_all(m: "State") -> None:
    """Everything, whatever its tags: reset, SMM transitions, changes of CR0 or CR4 that reach beyond one address
    space.
    """
    _noted(m)
    if m.tlb.live != 0 or m.tlb.pages_end != m.tlb.used:
        _drop_all(m)


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
    """Changes of CR0.PG, CR0.WP's friends, CR4.PGE, PAE, PSE, PCIDE, SMEP: all translations of the current VPID,
    globals included.
    """
    _noted(m)
    _drop_vpid(m, vpid_bits(m, m.paging.vpid), U(0))


@kernel
def invlpg(m: "State", gla: int) -> None:
    """INVLPG: the page of `gla` in the current PCID, and a global page of any; paging-structure caches of the current
    PCID, whatever the address.
    """
    _noted(m)
    vpid = vpid_bits(m, m.paging.vpid)
    _drop_address(m, gla, vpid, _pcid(m), True)
    _drop_tables(m, vpid, _pcid(m))


@kernel
def invpcid(m: "State", kind: int, pcid: int, gla: int) -> None:
    """INVPCID, its four types. Only individual-address and single-context look at `pcid`; neither removes global
    translations.
    """
    _noted(m)
    vpid = vpid_bits(m, m.paging.vpid)
    if kind == INVPCID_ADDRESS:
        _drop_address(m, gla, vpid, pcid, False)
        _drop_tables(m, vpid, pcid)
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
        space = m.tlb.spaces[slot]
        if space & THROUGH_EPT != 0 and (kind == INVEPT_ALL or (space ^ eptp) & EP4TA_MASK == 0):
            drop(m, slot)
        slot = slot + 1


@kernel
def invvpid(m: "State", kind: int, vpid: int, gla: int) -> None:
    """INVVPID, its four types; all-contexts spares VPID 0."""
    _noted(m)
    if kind == INVVPID_ADDRESS:
        _drop_address(m, gla, vpid_bits(m, vpid), EVERY_PCID, True)
        _drop_tables(m, vpid_bits(m, vpid), EVERY_PCID)
    elif kind == INVVPID_ALL:
        slot = U(0)
        while slot < m.tlb.used:
            space = m.tlb.spaces[slot]
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
def drop_vpid0(m: "State") -> None:
    """Everything tagged VPID 0: it gets a new number. When the numbers come round, old translations must be gone for
    good.
    """
    m.tlb.vpid0_generation = m.tlb.vpid0_generation + 1
    if m.tlb.vpid0_generation & 0x7FFFF == 0:
        _drop_all(m)


@kernel
def _noted(m: "State") -> None:
    """Count an invalidation and have the engine forget its own translations. An eager TLB loses all that it holds: the
    manual lets a processor drop more than was asked for, at any time.
    """
    m.engine.flush = 1
    m.tlb.invalidations = m.tlb.invalidations + 1
    if m.tlb.eager != 0:
        _drop_all(m)


@kernel
def _drop_all(m: "State") -> None:
    slot = U(0)
    while slot < m.tlb.used:
        drop(m, slot)
        slot = slot + 1
    m.tlb.live = 0


@kernel
def _pcid(m: "State") -> int:
    return m.r.cr[3] & PCID_MASK if m.r.cr[4] & CR4_PCIDE != 0 else 0


@kernel
def _drop_pcid(m: "State", pcid: int) -> None:
    """Non-global translations of a PCID of the current VPID."""
    vpid = vpid_bits(m, m.paging.vpid)
    slot = U(0)
    while slot < m.tlb.used:
        tag, space = m.tlb.tags[slot], m.tlb.spaces[slot]
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
        space = m.tlb.spaces[slot]
        if space & LINEAR != 0 and space & VPID_FIELD == vpid and (keep_globals == 0 or space & GLOBAL_TAG == 0):
            drop(m, slot)
        slot = slot + 1


@kernel
def _drop_address(m: "State", gla: int, vpid: int, pcid: int, globals_too: bool) -> None:
    """One guest page under a VPID, in all parts in which it may be cached."""
    slot = U(0)
    while slot < m.tlb.pages_end:
        tag, space = m.tlb.tags[slot], m.tlb.spaces[slot]
        if space & LINEAR != 0 and space & VPID_FIELD == vpid:
            shift = GUEST_PAGE_SHIFT[m.tlb.values[slot].word >> GUEST_CLASS_SHIFT & 3]
            if (tag ^ gla) >> shift == 0:
                is_global = space & GLOBAL_TAG != 0
                if (is_global and globals_too) or (not is_global and (pcid == EVERY_PCID or tag & PCID_MASK == pcid)):
                    drop(m, slot)
        slot = slot + 1


@kernel
def _drop_tables(m: "State", vpid: int, pcid: int) -> None:
    """Paging-structure caches under a VPID and a PCID."""
    slot = m.tlb.pages_end
    while slot < m.tlb.used:
        space = m.tlb.spaces[slot]
        if space & LINEAR != 0 and space & VPID_FIELD == vpid:
            if pcid == EVERY_PCID or m.tlb.tags[slot] & PCID_MASK == pcid:
                drop(m, slot)
        slot = slot + 1

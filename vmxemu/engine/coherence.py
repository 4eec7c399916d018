"""Keeping Unicorn's caches true: the softmmu's translations, the translated code, and whose address space each TLB holds.

Unicorn has three softmmu TLBs: user (CPL 3), supervisor, and supervisor "with SMAP" (mode bit 23). Permissions are decided by our
own fill, so that bit is free to tag an address space: VMX root operation uses the tagged TLB, a guest the plain one, and a world
switch between the two needs no flush. Each TLB has an owner; another world that wants it flushes first.
"""

from typing import TYPE_CHECKING

import numpy as np

from vmxemu.cpu.layout import HF_SMAP
from vmxemu.engine.library import CONTROL_TB_FLUSH, CONTROL_TB_REMOVE, CONTROL_TLB_FLUSH, uc_control, uc_control_range
from vmxemu.jit import kernel, load8, load64, store8, store64
from vmxemu.layout import u64 as U
from vmxemu.memory.layout import HOLDS_CODE
from vmxemu.memory.physical import ALL_ONES, DIRTY_CODE_CAPACITY, frame_index

if TYPE_CHECKING:
    from vmxemu.state import State

TLB_FLUSH, TB_FLUSH, TB_REMOVE = np.int32(CONTROL_TLB_FLUSH), np.int32(CONTROL_TB_FLUSH), np.int32(CONTROL_TB_REMOVE)
PHYSICAL_WINDOW = U(
    0x8000_0000_0000
)  # while window_open is set, the fill maps these linear addresses to physical memory one to one
AC = U(1 << 18)
WINDOW_NEVER_ENDS = U(1 << 62)  # its beginning, in nanoseconds since 1970


@kernel
def flush_translations(m: "State") -> None:
    """Forget every translation that Unicorn has cached.

    Unicorn takes a flush as an occasion to shrink a TLB that was little used in the last 100 ms of the host's time. Which
    pages the guest
    misses would depend on the host, so these windows never end.
    """
    engine = m.engine
    for index in range(3):
        store64(engine.tlb_windows[index], WINDOW_NEVER_ENDS)
    engine.flush = 0
    engine.flush_at_block_end = 0
    engine.owner0 = 0
    engine.owner1 = 0
    engine.owner_user = 0
    engine.flushes = engine.flushes + 1
    uc_control(engine.uc, TLB_FLUSH)


@kernel
def enter_world(m: "State") -> None:
    """Make Unicorn use the TLBs of the address space that runs now; flush what another one has left there.

    World identities: 1 outside VMX and in SMM, 2 VMX root operation, otherwise derived from EPTP and VPID.
    """
    engine = m.engine
    tagged = 0
    world = 1
    if m.vmx.non_root != 0:
        world = m.paging.ept_pointer ^ m.paging.vpid << 48 ^ 1 << 63
    elif m.vmx.on != 0 and m.cpu.in_smm == 0:
        world = 2
        tagged = 1 if m.r.eflags & AC == 0 else 0
    if world != engine.world:
        engine.world = world
    if tagged != 0:
        if engine.owner1 != world:
            if engine.owner1 != 0:
                engine.flush = 1
            engine.owner1 = world
        m.r.mode = m.r.mode | HF_SMAP
    else:
        if engine.owner0 != world:
            if engine.owner0 != 0:
                engine.flush = 1
            engine.owner0 = world
        m.r.mode = m.r.mode & ~HF_SMAP
    if engine.owner_user != 0 and engine.owner_user != world:
        engine.flush = 1
    if engine.flush != 0:
        flush_translations(m)
        if tagged != 0:
            engine.owner1 = world
        else:
            engine.owner0 = world


@kernel
def drop_written_code(m: "State") -> None:
    """Drop the translated blocks of frames that were written behind Unicorn's back."""
    memory = m.memory
    m.engine.previous_block = 0
    memory.code_written = 0
    if memory.dirty_code_count > DIRTY_CODE_CAPACITY or m.engine.drop_all_code != 0:
        m.engine.drop_all_code = 0
        uc_control(m.engine.uc, TB_FLUSH)
    else:
        for i in range(memory.dirty_code_count):
            drop_code(m, load64(memory.dirty_code + i * 8), 4096)
    memory.dirty_code_count = 0


@kernel
def drop_code(m: "State", hpa: int, size: int) -> None:
    """Drop the translated blocks that touch [hpa, hpa + size)."""
    m.engine.previous_block = 0
    m.engine.window_open = 1
    uc_control_range(m.engine.uc, TB_REMOVE, PHYSICAL_WINDOW + hpa, PHYSICAL_WINDOW + hpa + size)
    m.engine.window_open = 0


@kernel
def note_code_frame(m: "State", hpa: int) -> None:
    """An instruction fetch reached this frame. If a fast writable entry for it may exist, forget it: it would hide stores to
    code."""
    index = frame_index(m, hpa)
    if index == ALL_ONES:
        return
    at = m.memory.frames + index
    state = load8(at)
    if state & HOLDS_CODE == 0:
        store8(at, state | HOLDS_CODE)
        m.engine.flush_at_block_end = 1

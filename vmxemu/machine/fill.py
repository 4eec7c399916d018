"""Fills: which page Unicorn shall use for a linear address, and what it may do there without asking again."""

from typing import TYPE_CHECKING

from vmxemu.engine.coherence import PHYSICAL_WINDOW, note_code_frame
from vmxemu.engine.unicorn_engine import POISON_WINDOW_HPA as _POISON_WINDOW
from vmxemu.engine.unicorn_engine import ROM_SINK_HPA as _ROM_SINK
from vmxemu.engine.unicorn_engine import VOID_HPA as _VOID
from vmxemu.jit import copy_bytes, kernel, load8, store64
from vmxemu.layout import u64 as U
from vmxemu.machine.faults import FILL_NOWHERE, FILL_POISON, FILL_TRANSLATION
from vmxemu.machine.stale_uses import trace_stale_uses
from vmxemu.machine.subpages import translate_for_fill
from vmxemu.memory.layout import MAPPED_ON_BEHALF, POISONED, RETIRED
from vmxemu.memory.physical import ALL_ONES, hidden_smram, ram_offset
from vmxemu.outcome import DONE
from vmxemu.platform.mmio import is_device
from vmxemu.trace import events
from vmxemu.trace.emit import emit
from vmxemu.translation.layout import FETCH, IMPLICIT_SUPERVISOR, PERMIT_EXECUTE, PERMIT_READ, PERMIT_WRITE, WRITE
from vmxemu.translation.translate import translate

if TYPE_CHECKING:
    from vmxemu.state import State

VOID_HPA, ROM_SINK_HPA, POISON_WINDOW_HPA = U(_VOID), U(_ROM_SINK), U(_POISON_WINDOW)
PAGE, OFFSET_MASK = U(4096), U(0xFFF)


@kernel
def fill(m: "State", page: int, access: int, result: int) -> bool:
    """Answer a fill for READ, WRITE or FETCH; False: refused, `m.engine.fill_failed` says why."""
    engine = m.engine
    if engine.window_open != 0 and page - PHYSICAL_WINDOW < PHYSICAL_WINDOW:
        store64(result, page - PHYSICAL_WINDOW)
        store64(result + 8, 7)
        return True
    engine.fills = engine.fills + 1
    outcome = translate_for_fill(m, page, access)
    if outcome != DONE and engine.system_access & 1 != 0 and access != FETCH:
        engine.system_access = engine.system_access & 2  # for this one fill; the instruction asks again for the next
        outcome = translate(m, page, access | IMPLICIT_SUPERVISOR)
    m.clock.ticks = m.clock.ticks + (m.walk.cycles << 4)
    if m.tlb.checking != 0:
        trace_stale_uses(m)
    if outcome != DONE or access == WRITE and m.walk.permissions & PERMIT_WRITE == 0:
        engine.fill_failed = FILL_TRANSLATION
        engine.fill_access = access
        return False
    if m.r.mode & 3 == 3:
        engine.owner_user = engine.world
    if m.tlb.checking != 0 and access != FETCH:
        # What the engine keeps would hide uses: let it keep nothing for longer than a block.
        engine.flush_at_block_end = 1
        m.clock.deadline = 0
    return fill_physical(m, access, result)


@kernel
def fill_physical(m: "State", access: int, result: int) -> bool:
    """Answer a fill whose translation is in m.walk: which page Unicorn shall use, and what it may do there without asking again."""
    hpa = m.walk.hpa & ~OFFSET_MASK
    permissions = m.walk.permissions
    engine = m.engine
    granted = permissions & (PERMIT_READ | PERMIT_WRITE)
    offset = ram_offset(m, hpa)
    if offset != ALL_ONES and not hidden_smram(m, hpa):
        state = load8(m.memory.frames + (offset >> 12))
        if state & 0x7F >= RETIRED and state & 0x7F != MAPPED_ON_BEHALF and m.vmx.non_root != 0 and m.outer.up != 0:
            forbidden_use(m, hpa, state & 0x7F)
        if state & 0x7F == POISONED:
            if engine.system_access & 2 == 0:
                engine.fill_failed = FILL_POISON
                engine.fill_access = access
                return False
            engine.flush_at_block_end = 1
            m.clock.deadline = 0
            if access != FETCH:  # until then every access to the frame is looked at
                store64(result, POISON_WINDOW_HPA + hpa)
                store64(result + 8, granted)
                return True
        if access == FETCH:
            note_code_frame(m, hpa)
            if engine.flush_at_block_end != 0:
                m.clock.deadline = 0
            granted = permissions & (PERMIT_READ | PERMIT_EXECUTE)
        elif state & 0x80 != 0 and granted & PERMIT_WRITE != 0:
            granted = granted | PERMIT_EXECUTE  # so that Unicorn sees every store to translated code
    elif hpa - m.memory.rom_base < m.memory.rom_bytes:
        if access == FETCH:
            granted = permissions & (PERMIT_READ | PERMIT_EXECUTE)
        elif access == WRITE:
            copy_bytes(m.memory.rom_sink, m.memory.rom + (hpa - m.memory.rom_base), PAGE)
            hpa = ROM_SINK_HPA
            engine.flush_at_block_end = 1
            m.clock.deadline = 0
        else:
            granted = PERMIT_READ
    else:
        if access == FETCH:
            engine.fill_failed = FILL_NOWHERE
            engine.fill_access = access
            return False
        if is_device(m, hpa) == 0:
            hpa = VOID_HPA
    store64(result, hpa)
    store64(result + 8, granted)
    return True


@kernel
def forbidden_use(m: "State", hpa: int, state: int) -> None:
    """A virtual machine reaches a frame that is retired or sequestered: a translation has outlived its mapping. It is recorded."""
    m.outer.retired_uses = m.outer.retired_uses + 1
    emit(m, events.FORBIDDEN, state, hpa, m.walk.gpa, m.walk.gla, 0)

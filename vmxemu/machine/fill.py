"""A miss in Unicorn's softmmu TLBs: translate, then say which page it shall use and what it may do there without asking again."""

from numba import types
from unicorn.unicorn_const import UC_PROT_ALL

from vmxemu.engine.code import block_may
from vmxemu.engine.coherence import PHYSICAL_WINDOW, note_code_frame
from vmxemu.engine.layout import ANSWER_NONE, ANSWER_PAGE, ANSWER_REFUSE
from vmxemu.engine.library import find_rip, unicorn_fill
from vmxemu.engine.softmmu import OWNER_IN_CPU, enter_page
from vmxemu.engine.unicorn_engine import POISON_WINDOW_HPA as _POISON_WINDOW
from vmxemu.engine.unicorn_engine import ROM_SINK_HPA as _ROM_SINK
from vmxemu.engine.unicorn_engine import VOID_HPA as _VOID
from vmxemu.jit import cast_to, copy_bytes, kernel, load8, load64, native_callback, store64
from vmxemu.layout import u64 as U
from vmxemu.machine.faults import FILL_NOWHERE, FILL_POISON, FILL_TRANSLATION
from vmxemu.machine.intent import intended_access
from vmxemu.machine.stale_uses import trace_stale_uses
from vmxemu.machine.subpages import translate_for_fill
from vmxemu.memory.layout import HEALTHY, HOLDS_CODE, MAPPED_ON_BEHALF, POISONED, RETIRED
from vmxemu.memory.physical import ALL_ONES, FOUR_GIB, hidden_smram, ram_offset
from vmxemu.outcome import DONE
from vmxemu.platform.mmio import is_device
from vmxemu.state import State
from vmxemu.trace import events
from vmxemu.trace.emit import emit
from vmxemu.translation.inline import apart
from vmxemu.translation.layout import FETCH, IMPLICIT_SUPERVISOR, PERMIT_EXECUTE, PERMIT_READ, PERMIT_WRITE, READ, WRITE
from vmxemu.translation.translate import translate

U32, U64, I32 = types.uint32, types.uint64, types.int32
state_at = cast_to(State)
VOID_HPA, ROM_SINK_HPA, POISON_WINDOW_HPA = U(_VOID), U(_ROM_SINK), U(_POISON_WINDOW)
PAGE = U(4096)
OFFSET_MASK = U(0xFFF)
ALL_RIGHTS = U(UC_PROT_ALL)
DATA = PERMIT_READ | PERMIT_WRITE
STATE = U(0x7F)  # of a frame's byte; the rest is HOLDS_CODE


# For C the result is a truth value. A number of one byte on its way back here would hold the processor up: it is stored as a byte
# and loaded as a part of eight.
@native_callback(U64(U64, U64, I32, I32, I32, U32, U64))
def on_miss(cpu: int, address: int, size: int, kind: int, table: int, probe: int, caller: int) -> int:
    """Unicorn misses a translation of `kind` READ, WRITE or FETCH in TLB `table`: enter one (1), or let the access fail (0).

    The straight way is data in healthy RAM. `caller` is the host address that stands for RIP until somebody finds out.
    """
    m = state_at(load64(cpu + OWNER_IN_CPU))
    engine = m.engine
    access = U(kind)
    if engine.window_open != 0 and address - PHYSICAL_WINDOW < PHYSICAL_WINDOW:
        return unicorn_fill(cpu, address, size, kind, table, probe, caller)
    engine.fills = engine.fills + 1
    if m.tlb.checking != 0:
        find_rip(cpu, caller, 0)  # uses of stale translations say where
    page = address & ~OFFSET_MASK
    if access == READ and block_may(m) != 0:
        find_rip(cpu, caller, 0)
        access = intended_access(m, page)
    outcome = translate_for_fill(m, page, access)
    if outcome == DONE and access != FETCH and m.walk.permissions >> (access & 3) & 1 != 0 and m.tlb.checking == 0:
        hpa = m.walk.hpa & ~OFFSET_MASK
        offset = ram_offset(m, hpa)
        if offset != ALL_ONES and not hidden_smram(m, hpa):
            frame = load8(m.memory.frames + (offset >> 12))
            if frame & STATE == HEALTHY:
                m.clock.ticks = m.clock.ticks + (m.walk.cycles << 4)
                if m.r.mode & 3 == 3:
                    engine.owner_user = engine.world
                granted = m.walk.permissions & DATA
                if frame & HOLDS_CODE != 0 and granted & PERMIT_WRITE != 0:
                    granted = ALL_RIGHTS  # so that Unicorn sees every store to translated code
                enter_ram(m, U(table), page, hpa, offset, granted)
                return 1
    if not resolve(m, cpu, page, access, caller, outcome):
        engine.answer = ANSWER_REFUSE
    else:
        offset = ram_offset(m, engine.answer_hpa)
        if offset != ALL_ONES:
            enter_ram(m, U(table), page, engine.answer_hpa, offset, engine.answer_granted)
            return 1
        engine.answer = ANSWER_PAGE
    return unicorn_fill(cpu, address, size, kind, table, probe, caller)


@native_callback(types.boolean(U64, U64, I32, U64, U64))
def on_fill(uc: int, page: int, kind: int, result: int, state: int) -> bool:
    """Unicorn's own fill asks; what it is to hear stands ready, except where the engine looks through its window."""
    m = state_at(state)
    engine = m.engine
    if engine.window_open != 0 and page - PHYSICAL_WINDOW < PHYSICAL_WINDOW:
        store64(result, page - PHYSICAL_WINDOW)
        store64(result + 8, ALL_RIGHTS)
        return True
    answer = engine.answer
    engine.answer = ANSWER_NONE
    store64(result, engine.answer_hpa)
    store64(result + 8, engine.answer_granted)
    return answer == ANSWER_PAGE


@kernel
def enter_ram(m: "State", table: int, page: int, hpa: int, offset: int, granted: int) -> None:
    """Enter the page of RAM at `offset` in Unicorn's TLB."""
    backing = m.engine.low_backing + hpa if hpa < FOUR_GIB else m.engine.high_backing + (hpa - FOUR_GIB)
    enter_page(m, table, page, hpa, m.memory.ram + offset, backing, granted)


@apart
def resolve(m: "State", cpu: int, page: int, access: int, caller: int, outcome: int) -> bool:
    """What the straight way does not know: refusals (False), code, and memory that is not healthy RAM."""
    engine = m.engine
    if outcome != DONE and engine.system_access & 1 != 0 and access != FETCH:
        engine.system_access = engine.system_access & 2  # for this one fill; the instruction asks again for the next
        outcome = translate(m, page, access | IMPLICIT_SUPERVISOR)
    m.clock.ticks = m.clock.ticks + (m.walk.cycles << 4)
    if m.tlb.checking != 0:
        trace_stale_uses(m)
    if outcome != DONE or access == WRITE and m.walk.permissions & PERMIT_WRITE == 0:
        return refuse(m, FILL_TRANSLATION, access)
    if m.r.mode & 3 == 3:
        engine.owner_user = engine.world
    if m.tlb.checking != 0 and access != FETCH:
        # What the engine keeps would hide uses: let it keep nothing for longer than a block.
        engine.flush_at_block_end = 1
        m.clock.deadline = 0
    find_rip(cpu, caller, 0)  # events say where
    return admit(m, access)


@kernel
def admit(m: "State", access: int) -> bool:
    """Decide on a page whose translation is in m.walk: its frame and what is granted, in engine.answer_*; False = refuse."""
    hpa = m.walk.hpa & ~OFFSET_MASK
    permissions = m.walk.permissions
    engine = m.engine
    granted = permissions & DATA
    offset = ram_offset(m, hpa)
    if offset != ALL_ONES and not hidden_smram(m, hpa):
        frame = load8(m.memory.frames + (offset >> 12))
        state = frame & STATE
        if state >= RETIRED and state != MAPPED_ON_BEHALF and m.vmx.non_root != 0 and m.outer.up != 0:
            forbidden_use(m, hpa, state)
        if state == POISONED:
            if engine.system_access & 2 == 0:
                return refuse(m, FILL_POISON, access)
            engine.flush_at_block_end = 1
            m.clock.deadline = 0
            if access != FETCH:  # until then every access to the frame is looked at
                return grant(m, POISON_WINDOW_HPA + hpa, granted)
        if access == FETCH:
            note_code_frame(m, hpa)
            if engine.flush_at_block_end != 0:
                m.clock.deadline = 0
            granted = permissions & (PERMIT_READ | PERMIT_EXECUTE)
        elif frame & HOLDS_CODE != 0 and granted & PERMIT_WRITE != 0:
            granted = granted | PERMIT_EXECUTE
        return grant(m, hpa, granted)
    if hpa - m.memory.rom_base < m.memory.rom_bytes:
        if access == FETCH:
            return grant(m, hpa, permissions & (PERMIT_READ | PERMIT_EXECUTE))
        if access != WRITE:
            return grant(m, hpa, PERMIT_READ)
        copy_bytes(m.memory.rom_sink, m.memory.rom + (hpa - m.memory.rom_base), PAGE)
        engine.flush_at_block_end = 1
        m.clock.deadline = 0
        return grant(m, ROM_SINK_HPA, granted)
    if access == FETCH:
        return refuse(m, FILL_NOWHERE, access)
    return grant(m, hpa if is_device(m, hpa) != 0 else VOID_HPA, granted)


@kernel
def grant(m: "State", hpa: int, granted: int) -> bool:
    """The page is Unicorn's."""
    m.engine.answer_hpa = hpa
    m.engine.answer_granted = granted
    return True


@kernel
def refuse(m: "State", why: int, access: int) -> bool:
    """The access ends here; the run loop will ask why."""
    m.engine.fill_failed = why
    m.engine.fill_access = access
    return False


@kernel
def forbidden_use(m: "State", hpa: int, state: int) -> None:
    """A virtual machine reaches a frame that is retired or sequestered: a translation has outlived its mapping. It is recorded."""
    m.outer.retired_uses = m.outer.retired_uses + 1
    emit(m, events.FORBIDDEN, state, hpa, m.walk.gpa, m.walk.gla, 0)

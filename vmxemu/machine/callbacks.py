"""What Unicorn calls while it executes: traps, blocks, new translations, I/O sites. Misses of its TLBs: machine.fill.

`vmxemu_step` and `vmxemu_translate` are compiled once and called by symbol, from here and from the run loop.
"""

from collections.abc import Callable

from numba import types

from vmxemu.cpu.layout import CS, HF_CS64, HF_INHIBIT_IRQ
from vmxemu.engine.code import ANYTHING, block_slot, is_io_code, mark_block, survey_block
from vmxemu.engine.coherence import drop_written_code, enter_world, flush_translations
from vmxemu.engine.library import emu_stop
from vmxemu.jit import (
    cast_to,
    copy_bytes,
    kernel,
    load8,
    load64,
    native_callback,
    store64,
)
from vmxemu.layout import u64 as U
from vmxemu.machine import event_poll
from vmxemu.machine.stale_uses import trace_stale_uses
from vmxemu.machine.subpages import end_step
from vmxemu.machine.traps import settle, take
from vmxemu.memory.physical import ALL_ONES, ram_offset
from vmxemu.outcome import DONE, NOT_MINE
from vmxemu.state import State
from vmxemu.timing.layout import AFTER_SHADOW
from vmxemu.translation.layout import FETCH
from vmxemu.translation.translate import translate

U32, U64, I32 = types.uint32, types.uint64, types.int32
state_at = cast_to(State)
POLL_TRAP = U(0x1001)
IO_TRAP, SYSTEM_CALL_TRAP = U(0x17B), U(0x1002)
PAGE = U(4096)
OFFSET_MASK = U(0xFFF)

step_symbol: Callable[[int, int], int] = types.ExternalFunction("vmxemu_step", U64(U64, U64))
translate_symbol: Callable[[int, int, int], int] = types.ExternalFunction("vmxemu_translate", U64(U64, U64, U64))


@native_callback(U64(U64, U64), symbol="vmxemu_step")
def vmxemu_step(state: int, trap: int) -> int:
    """Handle one trap, or poll for events, to the point where the guest can go on."""
    m = state_at(state)
    if trap == POLL_TRAP:
        outcome = event_poll.poll(m)
        if outcome == NOT_MINE:
            return NOT_MINE
        if m.engine.stepping != 0:
            end_step(m, False)  # the event comes first
        outcome = settle(m, outcome)
    else:
        outcome = settle(m, take(m, trap))
    if m.tlb.checking != 0:
        trace_stale_uses(m)
    return outcome


@native_callback(U64(U64, U64, U64), symbol="vmxemu_translate")
def vmxemu_translate(state: int, gla: int, access: int) -> int:
    """translation.walk.translate by symbol."""
    return translate(state_at(state), gla, access)


@kernel
def before_guest(m: "State") -> None:
    """Make Unicorn's caches true to the state in which the guest goes on."""
    if m.memory.code_written != 0 or m.engine.drop_all_code != 0:
        drop_written_code(m)
    # While stale translations are looked for this is so after nearly every block; an instruction that is repeated for one
    # access to a descriptor table must find what it was given for another.
    if m.engine.flush_at_block_end != 0 and (m.tlb.checking == 0 or m.engine.system_access & 1 == 0):
        m.engine.flush = 1
    enter_world(m)
    if m.engine.previous_block == 0:
        m.clock.deadline = 0


@native_callback(types.void(U64, U32, U64))
def on_trap(uc: int, number: int, state: int) -> None:
    """An interception or exception: handle it here and let the guest go on, or leave to the run loop."""
    m = state_at(state)
    m.engine.traps = m.engine.traps + 1
    outcome = step_symbol(U(state), U(number))
    if outcome != DONE:
        m.engine.stop = 1
        emu_stop(uc)
        return
    if m.cpu.activity != 0 or m.engine.stop != 0:
        emu_stop(uc)
        return
    look_again(m)
    before_guest(m)


@kernel
def look_again(m: "State") -> None:
    """After a trap: what it changed may be due earlier than the run loop knows."""
    clock = m.clock
    due = clock.next_stop
    if clock.attention != 0 or m.engine.trap_may_raise != 0:
        m.engine.trap_may_raise = 0
        due = 0
    if m.vmx.non_root != 0 and m.vmx.preemption_deadline != 0 and m.vmx.preemption_deadline < due:
        due = m.vmx.preemption_deadline
    clock.next_stop = due
    clock.deadline = due


@kernel
def block_pause(m: "State", address: int, size: int) -> bool:
    """The slow path of the block hook: True if the run loop is wanted before this block runs."""
    engine = m.engine
    clock = m.clock
    if engine.previous_block == 0:
        engine.previous_block = 1
        look_at_block(m, address, size)
    if engine.retranslate != 0 or engine.stop != 0:
        return True
    if engine.flush_at_block_end != 0:
        owner = engine.owner1 != 0
        world = engine.world
        flush_translations(m)
        if owner:
            engine.owner1 = world
        else:
            engine.owner0 = world
    engine.system_access = 0
    if clock.ticks >= clock.next_stop:
        return True
    if clock.attention != 0:
        return m.r.mode & HF_INHIBIT_IRQ == 0 and (m.r.eflags & 0x200 != 0 or clock.attention == AFTER_SHADOW)
    clock.deadline = clock.next_stop
    return False


@native_callback(types.void(U64, U64, U32, U64))
def on_block(uc: int, address: int, size: int, state: int) -> None:
    """A block is about to run: pause if something is due, else charge it."""
    m = state_at(state)
    clock = m.clock
    if clock.ticks >= clock.deadline:
        if block_pause(m, address, U(size)):
            emu_stop(uc)
            return
    m.engine.current_block = address
    block = m.engine.block[block_slot(address)]
    if block.linear == address and block.size == size:
        clock.ticks = clock.ticks + block.ticks
        clock.instructions = clock.instructions + block.instructions
    else:
        clock.ticks = clock.ticks + (U(size) << 2)
        clock.instructions = clock.instructions + (U(size) >> 2) + 1
    clock.blocks = clock.blocks + 1


@native_callback(types.void(U64, U64, U64, U64))
def on_translation(uc: int, block: int, previous: int, state: int) -> None:
    """Unicorn has translated a new block: look at its code once."""
    look_at_block(state_at(state), load64(block), load64(block + 8) >> 16 & 0xFFFF)


@kernel
def look_at_block(m: "State", linear: int, size: int) -> None:
    """Enter a block in the cost table; if it has I/O instructions that were not known, it must be translated again."""
    buffer = m.engine.code_buffer
    if size > 2 * PAGE:
        size = 2 * PAGE
        mark_block(m, linear, ANYTHING)
    first = PAGE - (linear & OFFSET_MASK)
    if first > size:
        first = size
    if not copy_code(m, linear, buffer, first):
        mark_block(m, linear, ANYTHING)
        return
    hpa = m.walk.hpa
    if first < size and not copy_code(m, linear + first, buffer + first, size - first):
        mark_block(m, linear, ANYTHING)
        return
    if survey_block(m, linear, size, buffer):
        m.engine.retranslate = 1
        m.engine.retranslate_hpa = hpa
        m.engine.retranslate_bytes = first
        m.clock.deadline = 0


@kernel
def copy_code(m: "State", linear: int, target: int, size: int) -> bool:
    """Copy code bytes (within one page) to the host address `target`; m.walk.hpa is where they stand."""
    state = m.engine.state_address
    if translate_symbol(state, linear, FETCH) != DONE:
        return False
    hpa = m.walk.hpa
    offset = ram_offset(m, hpa)
    if offset != ALL_ONES:
        copy_bytes(target, m.memory.ram + offset, size)
        return True
    if hpa - m.memory.rom_base < m.memory.rom_bytes:
        copy_bytes(target, m.memory.rom + (hpa - m.memory.rom_base), size)
        return True
    return False


@native_callback(types.void(U64, U64, U32, U64))
def on_io_site(uc: int, address: int, size: int, state: int) -> None:
    """Execution reached an address where an I/O or PKRU instruction was once seen: trap it if one is still there."""
    m = state_at(state)
    buffer = m.engine.code_buffer
    first = PAGE - (address & OFFSET_MASK)
    if first > 16:
        first = U(16)
    if not copy_code(m, address, buffer, first):
        return
    if first < 16 and not copy_code(m, address + first, buffer + first, 16 - first):
        store64(buffer + first, 0)
    if is_io_code(buffer):
        m.engine.trap = IO_TRAP
        emu_stop(uc)


@native_callback(types.void(U64, U64))
def on_system_call(uc: int, state: int) -> None:
    """SYSCALL or SYSENTER is about to have no effect: Unicorn adds its length to RIP when we return, so take that off in
    advance."""
    m = state_at(state)
    buffer = m.engine.code_buffer
    linear = m.r.rip if m.r.mode & HF_CS64 != 0 else (m.r.rip + m.r.seg[CS].base) & 0xFFFFFFFF
    first = PAGE - (linear & OFFSET_MASK)
    if first > 16:
        first = U(16)
    copy_code(m, linear, buffer, first)
    if first < 16:
        copy_code(m, linear + first, buffer + first, 16 - first)
    length = U(2)
    while load8(buffer + length - 2) != 0x0F and length < 15:
        length = length + 1
    m.r.rip = m.r.rip - length
    m.engine.trap = SYSTEM_CALL_TRAP
    emu_stop(uc)

"""Frames of the sequestered region. The firmware builds its structures at the region's bottom; VMM1 hands frames out from the top.

The region, bottom to top: the firmware's part, the arena of EPT02 table pages, the pool, VMM1's own pages with the door.
"""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel, store64
from vmxemu.layout import u64 as U
from vmxemu.memory.frames import frame_state, set_frame_state
from vmxemu.memory.layout import MAPPED_ON_BEHALF, RESERVED_FREE, VMM1_OWN
from vmxemu.memory.physical import host_address
from vmxemu.trace import events
from vmxemu.trace.emit import emit

if TYPE_CHECKING:
    from vmxemu.state import State

FIRMWARE_BYTES = U(2 << 20)
ENGINE_ROOM_BYTES = U(0x10000)
LEAST_BYTES = U(1 << 20)
FRAME = U(4096)
NO_FRAME = U(0)


@kernel
def has_room(m: "State") -> bool:
    """Whether the region is large enough for VMM1 to work at all."""
    return m.memory.sequestered_bytes >= FIRMWARE_BYTES + ENGINE_ROOM_BYTES + LEAST_BYTES


@kernel
def open_pool(m: "State") -> None:
    """Divide the region: a quarter of what the firmware leaves is the arena of EPT02, the rest the pool."""
    outer = m.outer
    base = m.memory.sequestered_base + FIRMWARE_BYTES
    end = m.memory.sequestered_base + m.memory.sequestered_bytes - ENGINE_ROOM_BYTES
    outer.arena_base = base
    outer.arena_next = base
    outer.arena_end = base + ((end - base) >> 2 >> 12 << 12)
    outer.pool_end = outer.arena_end
    outer.pool_next = end
    outer.pool_free = (end - outer.arena_end) >> 12
    own(m, m.memory.sequestered_base, FIRMWARE_BYTES)
    own(m, base, outer.arena_end - base)


@kernel
def own(m: "State", hpa: int, size: int) -> None:
    """Mark frames as VMM1's own."""
    for offset in range(0, size, FRAME):
        set_frame_state(m, hpa + offset, VMM1_OWN)


@kernel
def take_frame(m: "State", state: int) -> int:
    """A zeroed frame of the pool, marked as `state`; NO_FRAME if the pool is exhausted."""
    outer = m.outer
    while outer.pool_next > outer.pool_end:
        outer.pool_next = outer.pool_next - FRAME
        hpa = outer.pool_next
        if frame_state(m, hpa) == RESERVED_FREE:
            outer.pool_free = outer.pool_free - 1
            set_frame_state(m, hpa, state)
            clear_frame(m, hpa)
            if state == MAPPED_ON_BEHALF:
                emit(m, events.FRAME, state, hpa, 0, 0, 0)
            return hpa
    return NO_FRAME


@kernel
def take_table(m: "State") -> int:
    """A zeroed table page of the EPT02 arena; NO_FRAME if the arena is full."""
    outer = m.outer
    if outer.arena_next >= outer.arena_end:
        return NO_FRAME
    hpa = outer.arena_next
    outer.arena_next = hpa + FRAME
    clear_frame(m, hpa)
    return hpa


@kernel
def clear_frame(m: "State", hpa: int) -> None:
    """Fill a frame with zeros."""
    fill_frame(m, hpa, 0)


@kernel
def fill_frame(m: "State", hpa: int, value: int) -> None:
    """Fill a frame with a 64-bit value."""
    host = host_address(m, hpa)
    if host != 0:
        for offset in range(0, 4096, 8):
            store64(host + offset, value)

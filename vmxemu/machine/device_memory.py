"""Memory that is not plain RAM: devices, frames with a poisoned line, and where nothing is. Unicorn calls these for each access."""

from numba import types

from vmxemu.jit import load8, load16, load32, load64, native_callback, store8, store16, store32, store64
from vmxemu.layout import u64 as U
from vmxemu.machine.callbacks import U32, U64, state_at
from vmxemu.memory.frames import is_poisoned
from vmxemu.memory.physical import ALL_ONES, host_address, note_write
from vmxemu.platform.mca import log_late_consumption
from vmxemu.platform.mmio import mmio_read, mmio_write


@native_callback(U64(U64, U64, U32, U64))
def on_device_read(uc: int, offset: int, size: int, state: int) -> int:
    """A load from device memory; the whole device window is one mapping."""
    m = state_at(state)
    mmio_read(m, m.memory.device_base + offset, U(size))
    return m.walk.value


@native_callback(types.void(U64, U64, U32, U64, U64))
def on_device_write(uc: int, offset: int, size: int, value: int, state: int) -> None:
    """A store to device memory. It may raise or clear an interrupt, so the run loop looks at the next block boundary."""
    m = state_at(state)
    mmio_write(m, m.memory.device_base + offset, U(size), value)
    m.clock.next_stop = 0
    m.clock.deadline = 0


@native_callback(U64(U64, U64, U32, U64))
def on_poisoned_read(uc: int, hpa: int, size: int, state: int) -> int:
    """A load from a frame with a poisoned line, after another access to the frame in the same block. A first access to the bad
    line is refused; here the instruction cannot be stopped any more, so the machine check says that the context is corrupt."""
    m = state_at(state)
    if is_poisoned(m, hpa, U(size)):
        if m.cpu.mce_pending == 0:  # Unicorn splits a load of eight bytes
            log_late_consumption(m, hpa)
        m.clock.next_stop = 0
        m.clock.deadline = 0
        return ALL_ONES
    host = host_address(m, hpa)
    return load64(host) if size == 8 else load32(host) if size == 4 else load16(host) if size == 2 else load8(host)


@native_callback(types.void(U64, U64, U32, U64, U64))
def on_poisoned_write(uc: int, hpa: int, size: int, value: int, state: int) -> None:
    """A store to such a frame: it consumes nothing, and a line that is overwritten in part stays poisoned."""
    m = state_at(state)
    host = host_address(m, hpa)
    if size == 8:
        store64(host, value)
    elif size == 4:
        store32(host, value)
    elif size == 2:
        store16(host, value)
    else:
        store8(host, value)
    note_write(m, hpa)


@native_callback(U64(U64, U64, U32, U64))
def on_void_read(uc: int, offset: int, size: int, state: int) -> int:
    """A load where there is no memory."""
    return ALL_ONES


@native_callback(types.void(U64, U64, U32, U64, U64))
def on_void_write(uc: int, offset: int, size: int, value: int, state: int) -> None:
    """A store where there is no memory."""

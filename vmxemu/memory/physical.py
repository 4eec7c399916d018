"""The physical map as the processor sees it: RAM, ROM, the SMRAM view, and nothing.

Host-physical addresses that are neither RAM nor ROM have no host address: devices answer there, or nobody.
"""

from typing import TYPE_CHECKING

from vmxemu.jit import copy_bytes, kernel, load8, load16, load32, load64, store8, store16, store32, store64
from vmxemu.layout import u64 as U
from vmxemu.memory.layout import HOLDS_CODE

if TYPE_CHECKING:
    from vmxemu.state import State

FOUR_GIB = U(1 << 32)
DIRTY_CODE_CAPACITY = U(4096)
ALL_ONES = U(0xFFFFFFFFFFFFFFFF)


@kernel
def ram_offset(m: "State", hpa: int) -> int:
    """Offset of `hpa` in RAM (SMRAM included, whoever asks), all ones where there is no RAM."""
    memory = m.memory
    if hpa < memory.low_bytes:
        return hpa
    if hpa >= FOUR_GIB and hpa - FOUR_GIB < memory.high_bytes:
        return hpa - FOUR_GIB + memory.low_bytes
    return ALL_ONES


@kernel
def hidden_smram(m: "State", hpa: int) -> bool:
    """Whether `hpa` lies in SMRAM and the processor may not see it now: SMRAM is locked and this is not SMM."""
    memory = m.memory
    return hpa - memory.tseg_base < memory.tseg_bytes and memory.smram_locked != 0 and m.cpu.in_smm == 0


@kernel
def host_address(m: "State", hpa: int) -> int:
    """Host address of the RAM or ROM byte at `hpa`, 0 where there is none or where SMRAM hides it."""
    memory = m.memory
    offset = ram_offset(m, hpa)
    if offset != ALL_ONES:
        return 0 if hidden_smram(m, hpa) else memory.ram + offset
    if hpa - memory.rom_base < memory.rom_bytes:
        return memory.rom + (hpa - memory.rom_base)
    return 0


@kernel
def is_ram(m: "State", hpa: int) -> bool:
    """Whether a store to `hpa` reaches RAM."""
    return ram_offset(m, hpa) != ALL_ONES and not hidden_smram(m, hpa)


@kernel
def frame_index(m: "State", hpa: int) -> int:
    """Index of the frame-state byte of `hpa`, all ones outside RAM."""
    offset = ram_offset(m, hpa)
    return offset if offset == ALL_ONES else offset >> 12


@kernel
def note_write(m: "State", hpa: int) -> None:
    """Tell the engine that a frame was written behind Unicorn's back, if Unicorn may have translated code of it."""
    memory = m.memory
    index = frame_index(m, hpa)
    if index == ALL_ONES or load8(memory.frames + index) & HOLDS_CODE == 0:
        return
    memory.code_written = 1
    count = memory.dirty_code_count
    if count > 0 and load64(memory.dirty_code + (count - 1) * 8) == hpa >> 12 << 12:
        return
    if count < DIRTY_CODE_CAPACITY:
        store64(memory.dirty_code + count * 8, hpa >> 12 << 12)
    memory.dirty_code_count = count + 1  # beyond the capacity: the engine drops everything


@kernel
def read64(m: "State", hpa: int) -> int:
    """Eight bytes at `hpa` (within one page); all ones where there is no memory."""
    host = host_address(m, hpa)
    return load64(host) if host != 0 else ALL_ONES


@kernel
def read32(m: "State", hpa: int) -> int:
    """Four bytes at `hpa`."""
    host = host_address(m, hpa)
    return load32(host) if host != 0 else 0xFFFFFFFF


@kernel
def read16(m: "State", hpa: int) -> int:
    """Two bytes at `hpa`."""
    host = host_address(m, hpa)
    return load16(host) if host != 0 else 0xFFFF


@kernel
def read8(m: "State", hpa: int) -> int:
    """One byte at `hpa`."""
    host = host_address(m, hpa)
    return load8(host) if host != 0 else 0xFF


@kernel
def write64(m: "State", hpa: int, value: int) -> None:
    """Store eight bytes (within one page); dropped where there is no RAM."""
    if is_ram(m, hpa):
        store64(host_address(m, hpa), value)
        note_write(m, hpa)


@kernel
def write32(m: "State", hpa: int, value: int) -> None:
    """Store four bytes."""
    if is_ram(m, hpa):
        store32(host_address(m, hpa), value)
        note_write(m, hpa)


@kernel
def write16(m: "State", hpa: int, value: int) -> None:
    """Store two bytes."""
    if is_ram(m, hpa):
        store16(host_address(m, hpa), value)
        note_write(m, hpa)


@kernel
def write8(m: "State", hpa: int, value: int) -> None:
    """Store one byte."""
    if is_ram(m, hpa):
        store8(host_address(m, hpa), value)
        note_write(m, hpa)


@kernel
def copy_out(m: "State", hpa: int, target: int, size: int) -> bool:
    """Copy `size` bytes (within one page) from `hpa` to the host address `target`; False where there is no memory."""
    host = host_address(m, hpa)
    if host == 0:
        return False
    copy_bytes(target, host, size)
    return True


@kernel
def copy_in(m: "State", hpa: int, source: int, size: int) -> bool:
    """Copy `size` bytes (within one page) from the host address `source` to RAM at `hpa`; False where there is no RAM."""
    if not is_ram(m, hpa):
        return False
    copy_bytes(host_address(m, hpa), source, size)
    note_write(m, hpa)
    return True

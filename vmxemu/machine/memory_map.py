"""Host memory behind the machine: RAM, ROM, frame states, and where each is mapped."""

from typing import Any

import numpy as np

from vmxemu.configuration import InputError, quantities
from vmxemu.engine.unicorn_engine import UnicornEngine
from vmxemu.layout import Record
from vmxemu.memory.frames import POISON_CAPACITY
from vmxemu.memory.layout import RESERVED_FREE, VMM1_OWN
from vmxemu.memory.physical import DIRTY_CODE_CAPACITY
from vmxemu.memory.reservation import reserve

FOUR_GIB = 1 << 32
DEVICE_BASE, DEVICE_BYTES = 0xFEC0_0000, 0x0030_0000  # IOAPIC, (HPET), LAPIC: one window
LEGACY_BIOS, LEGACY_BYTES = 0xC0000, 0x40000  # the ROM's end, shadowed in RAM below 1 MiB: no chipset registers switch it on
IN_LARGE_PAGES = 1 << 30  # bytes of RAM that may take large pages of the host: a guest may touch all of its memory, but thinly
ENGINE_ROOM = 0x10000  # bytes at the top of the sequestered region that VMM1's native part keeps for itself: the door


class MemoryMap:
    """Allocates and maps; keeps the buffers alive. Untouched memory costs nothing: it is anonymous, zero, and not reserved."""

    def __init__(self, m: Record, engine: UnicornEngine, memory: Any, image: bytes, firmware: bytes = b"") -> None:
        """`firmware`, if any, stands behind the image in the ROM and owns the reset vector."""
        m.memory.image_bytes = len(image) if firmware else 0
        low, high = memory.low_bytes, memory.high_bytes
        try:
            self.ram = reserve(low + high, IN_LARGE_PAGES)
        except OSError as problem:
            size = quantities.show_size(low + high)
            raise InputError("memory", f"the host does not give {size} of address space: {problem.strerror}") from None
        rom = image + firmware
        rom_bytes = -(-len(rom) // 4096) * 4096
        self.rom = reserve(rom_bytes)
        self.rom[rom_bytes - len(rom) :] = np.frombuffer(rom, np.uint8)
        self.frames = reserve((low + high) // 4096)
        self.poison = np.zeros(int(POISON_CAPACITY), np.uint64)
        self.dirty_code = np.zeros(int(DIRTY_CODE_CAPACITY), np.uint64)
        shadow = min(len(image), LEGACY_BYTES)
        self.ram[LEGACY_BIOS + LEGACY_BYTES - shadow : LEGACY_BIOS + LEGACY_BYTES] = np.frombuffer(image[-shadow:], np.uint8)
        self._describe(m, engine, memory, low, high, rom_bytes)
        engine.map_memory(0, self.ram[:low])
        if high:
            engine.map_memory(FOUR_GIB, self.ram[low:])
        engine.map_memory(FOUR_GIB - rom_bytes, self.rom, writable=False)

    def _describe(self, m: Record, engine: UnicornEngine, memory: Any, low: int, high: int, rom_bytes: int) -> None:
        physical = m.memory
        physical.ram, physical.low_bytes, physical.high_bytes = self.ram.ctypes.data, low, high
        physical.rom, physical.rom_base, physical.rom_bytes = self.rom.ctypes.data, FOUR_GIB - rom_bytes, rom_bytes
        physical.frames, physical.frame_count = self.frames.ctypes.data, len(self.frames)
        physical.poison_lines, physical.dirty_code = self.poison.ctypes.data, self.dirty_code.ctypes.data
        physical.rom_sink = engine.rom_sink.ctypes.data
        physical.device_base, physical.device_bytes = DEVICE_BASE, DEVICE_BYTES
        physical.tseg_bytes, physical.sequestered_bytes = memory.tseg, memory.sequestered
        physical.tseg_base = low - memory.tseg
        physical.sequestered_base = low - memory.tseg - memory.sequestered
        first = int(physical.sequestered_base) >> 12
        count = memory.sequestered >> 12
        self.frames[first : first + count] = int(RESERVED_FREE)
        self.frames[first + count - (ENGINE_ROOM >> 12) : first + count] = int(VMM1_OWN)
        m.outer.door = int(physical.sequestered_base) + memory.sequestered - 0x1000

"""A processor state over a small RAM, without Unicorn: what the tests of this room work on."""

from typing import Any

import numpy as np

from vmxemu.cpu.layout import CS, DS, ES, FS, GS, LDTR, SEG_DB, SEG_G, SEG_L, SEG_P, SEG_S, SS, TR, Registers
from vmxemu.cpu.mode import refresh_mode
from vmxemu.layout import Record
from vmxemu.state import State

RAM_BYTES = 1 << 20
PML4, PDPT, PD = (
    0xFD000,
    0xFE000,
    0xFF000,
)  # IA-32e mode: the lowest GiB is mapped one to one, for everybody, all flags set
CODE = int(SEG_P | SEG_S) | 0xB00
DATA = int(SEG_P | SEG_S) | 0x300


class Processor:
    """Owns the records and the RAM; `m` is what kernels take."""

    def __init__(self) -> None:
        self.m: Any = Record(State)
        self.registers = Record(Registers)
        self.ram = np.zeros(RAM_BYTES, np.uint8)
        self.frames = np.zeros(RAM_BYTES >> 12, np.uint8)
        m = self.m
        object.__setattr__(m, "_keep", (m._keep, self))  # `m` alone keeps everything alive
        m.r = self.registers.address
        m.memory.ram, m.memory.low_bytes, m.memory.frames = self.ram.ctypes.data, RAM_BYTES, self.frames.ctypes.data
        m.memory.frame_count = RAM_BYTES >> 12
        m.memory.rom_base = 0xFFFF0000
        m.cpu.physical_bits, m.cpu.linear_bits = 40, 48
        m.cpu.cr4_allowed = 0x3727FF
        m.cpu.efer_allowed = 0xD01
        m.r.eflags, m.r.df, m.r.cc_op = 2, 1, 1
        m.r.cr[0] = 0x10

    def segment(self, index: Any, selector: int, base: int, limit: int, flags: int) -> None:
        target = self.m.r.seg[index]
        target.selector, target.base, target.limit, target.flags = selector, base, limit, flags

    def poke(self, address: int, data: bytes) -> None:
        self.ram[address : address + len(data)] = np.frombuffer(data, np.uint8)

    def peek(self, address: int, size: int) -> int:
        return int.from_bytes(self.ram[address : address + size].tobytes(), "little")

    def real(self) -> "Processor":
        m = self.m
        m.r.cr[0], m.r.cr[4], m.r.efer = 0x10, 0, 0
        for index in (ES, CS, SS, DS, FS, GS):
            self.segment(index, 0, 0, 0xFFFF, DATA)
        self.segment(TR, 0, 0, 0xFFFF, int(SEG_P) | 0xB00)
        refresh_mode(m)
        return self

    def protected(self, bits: int = 32, cpl: int = 0) -> "Processor":
        m = self.m
        m.r.cr[0], m.r.cr[4], m.r.efer = 0x31, 0, 0
        self._flat(int(SEG_DB) if bits == 32 else 0, cpl)
        refresh_mode(m)
        return self

    def long(self, bits: int = 64, cpl: int = 0) -> "Processor":
        m = self.m
        m.r.cr[0], m.r.cr[3], m.r.cr[4], m.r.efer = 0x80000031, PML4, 0x20, 0x500
        self.poke(PML4, (PDPT | 0x27).to_bytes(8, "little"))
        self.poke(PDPT, (PD | 0x27).to_bytes(8, "little"))
        for i in range(512):
            self.poke(PD + 8 * i, (i << 21 | 0xE7).to_bytes(8, "little"))
        self._flat(int(SEG_L) if bits == 64 else int(SEG_DB) if bits == 32 else 0, cpl)
        refresh_mode(m)
        return self

    def _flat(self, code_size: int, cpl: int) -> None:
        privilege = cpl << 13
        data_size = int(SEG_DB) if code_size else 0
        limit, granularity = (0xFFFFFFFF, int(SEG_G)) if code_size else (0xFFFF, 0)
        self.segment(CS, 8 | cpl, 0, limit, CODE | code_size | granularity | privilege)
        for index in (ES, SS, DS, FS, GS):
            self.segment(index, 16 | cpl, 0, limit, DATA | data_size | granularity | privilege)
        self.segment(LDTR, 0, 0, 0, 0)
        self.segment(TR, 0, 0, 0x67, int(SEG_P) | 0xB00)

"""A machine record with its devices powered on and nothing else: what the tests of this room work on."""

from typing import Any

import numpy as np

from vmxemu.cpu.layout import Registers
from vmxemu.layout import Record, u64
from vmxemu.outcome import DONE
from vmxemu.platform import msr, ports, timers
from vmxemu.platform.mmio import mmio_read, mmio_write
from vmxemu.platform.reset import reset
from vmxemu.state import State

RAM_BYTES = 64 << 20
LAPIC = 0xFEE00000
IOAPIC = 0xFEC00000


class Board:
    """`m` is what kernels take; the methods do what guest instructions would."""

    def __init__(self) -> None:
        self.m: Any = Record(State)
        self.registers = Record(Registers)
        self.frames = np.zeros(RAM_BYTES >> 12, np.uint8)
        self.poison = np.zeros(4096, np.uint64)
        m = self.m
        m.r = self.registers.address
        m.memory.low_bytes, m.memory.high_bytes = RAM_BYTES, 3 << 30
        m.memory.frames, m.memory.frame_count = self.frames.ctypes.data, RAM_BYTES >> 12
        m.memory.poison_lines = self.poison.ctypes.data
        m.cpu.physical_bits = 46
        self.power_on()

    def power_on(self) -> "Board":
        m = self.m
        m.clock.ticks = m.cpu.tsc_offset = m.engine.stop = m.report.reason = m.memory.poison_count = 0
        m.platform.output.count = m.platform.injections.head = m.platform.injections.count = 0
        m.platform.rtc.start = 0
        m.platform.management.serial = 0
        reset(m)
        return self

    def inb(self, port: int, size: int = 1) -> int:
        assert ports.port_in(self.m, u64(port), u64(size)) == DONE
        return int(self.m.walk.value)

    def outb(self, port: int, value: int, size: int = 1) -> int:
        return int(ports.port_out(self.m, u64(port), u64(size), u64(value)))

    def load(self, hpa: int, size: int = 4) -> int:
        assert mmio_read(self.m, u64(hpa), u64(size)) == DONE
        return int(self.m.walk.value)

    def store(self, hpa: int, value: int, size: int = 4) -> None:
        assert mmio_write(self.m, u64(hpa), u64(size), u64(value)) == DONE

    def lapic(self, offset: int, value: int | None = None) -> int:
        if value is None:
            return self.load(LAPIC + offset)
        self.store(LAPIC + offset, value)
        return 0

    def ioapic(self, index: int, value: int | None = None) -> int:
        self.store(IOAPIC, index)
        if value is None:
            return self.load(IOAPIC + 0x10)
        self.store(IOAPIC + 0x10, value)
        return 0

    def rdmsr(self, index: int) -> int:
        assert msr.read_msr(self.m, u64(index)) == DONE
        return int(self.m.walk.value)

    def wrmsr(self, index: int, value: int) -> int:
        return int(msr.write_msr(self.m, u64(index), u64(value)))

    def wait(self, ticks: int) -> None:
        """Let time pass, running timers when they are due as the run loop does."""
        end = int(self.m.clock.ticks) + ticks
        while int(timers.next_due(self.m)) <= end:
            self.m.clock.ticks = max(int(timers.next_due(self.m)), int(self.m.clock.ticks))
            timers.run_due(self.m)
        self.m.clock.ticks = end

    def start_pic(self, master: int = 0x20, slave: int = 0x28) -> None:
        for port, base, wiring in ((0x20, master, 4), (0xA0, slave, 2)):
            self.outb(port, 0x11)
            for value in (base, wiring, 1, 0):
                self.outb(port + 1, value)

    def enable_lapic(self) -> None:
        self.lapic(0xF0, 0x1FF)

"""VMM1's records without a processor: 16 MiB of RAM, of which 6 are sequestered, EPT01 an identity map of 2-MiB pages."""

from typing import Any

import numpy as np

from vmxemu.cpu.layout import Registers
from vmxemu.isa import cpus
from vmxemu.layout import Record, u64
from vmxemu.memory.layout import RESERVED_FREE
from vmxemu.outer.pool import open_pool
from vmxemu.state import State
from vmxemu.vmx.vmcs import Vmcs

MIB = 1 << 20
RAM_BYTES, REGION, REGION_BYTES = 16 * MIB, 8 * MIB, 6 * MIB
EPT01, VMCS01, VMCS12 = REGION, REGION + 0x10000, 0x30000
POOL_VMCS02, LISTS, BITMAPS = REGION + 0x11000, REGION + 0x12000, REGION + 0x16000
ADDRESS = 0x000F_FFFF_FFFF_F000


class Room:
    """`m` is what kernels take; memory is `word[hpa >> 3]`."""

    def __init__(self) -> None:
        self.m: Any = Record(State)
        self.registers = Record(Registers)
        store = np.zeros(RAM_BYTES + 4096, np.uint8)
        offset = -store.ctypes.data % 4096
        self.byte = store[offset : offset + RAM_BYTES]
        self.word = self.byte.view(np.uint64)
        self.frames, self.poison = np.zeros(RAM_BYTES >> 12, np.uint8), np.zeros(4096, np.uint64)
        m = self.m
        m.r = self.registers.address
        memory = m.memory
        memory.ram, memory.low_bytes = self.byte.ctypes.data, RAM_BYTES
        memory.frames, memory.frame_count, memory.poison_lines = self.frames.ctypes.data, len(self.frames), self.poison.ctypes.data
        memory.sequestered_base, memory.sequestered_bytes = REGION, REGION_BYTES
        profile = cpus.load("skylake-sp")
        m.cpu.physical_bits, m.cpu.linear_bits = 46, 48
        values = profile.reset_values()
        for index in range(20):
            m.cpu.vmx_msr[index] = values.get(0x480 + index, 0)
        m.trace.enabled = 1
        self.reset()

    def reset(self) -> "Room":
        m = self.m
        self.word[:] = 0
        self.frames[:] = 0
        self.frames[REGION >> 12 : (REGION + REGION_BYTES) >> 12] = int(RESERVED_FREE)
        m.outer.bytes()[:] = 0
        m.memory.poison_count = m.trace.count = m.report.reason = 0
        outer = m.outer
        outer.up = outer.level = outer.invalidation = outer.trap_allowed = outer.trap_control = 1
        open_pool(m)
        outer.ept01 = EPT01 | 0x1E
        outer.vmcs01, outer.vmcs02 = VMCS01, POOL_VMCS02
        outer.lists02, outer.msr_bitmap01, outer.msr_bitmap02 = LISTS, BITMAPS, BITMAPS + 0x1000
        outer.vpid02, outer.threshold = 2, 3
        self.word[EPT01 >> 3] = EPT01 + 0x1000 | 7
        self.word[EPT01 + 0x1000 >> 3] = EPT01 + 0x2000 | 7
        for number in range(REGION >> 21):
            self.word[(EPT01 + 0x2000 >> 3) + number] = number << 21 | 0xB7
        outer.nested.current, outer.nested.on = VMCS12, 1
        outer.nested.host_address = self.host(VMCS12)
        return self

    def host(self, hpa: int) -> int:
        return int(self.byte.ctypes.data) + hpa

    def vmcs(self, hpa: int) -> Any:
        return Record(Vmcs, self.host(hpa))

    def leaf(self, root: int, gpa: int) -> tuple[int, int] | None:
        """The obvious walk: (leaf entry, its level), None if nothing is mapped."""
        table = root
        for level in (4, 3, 2, 1):
            entry = int(self.word[table + ((gpa >> (3 + 9 * level) & 0x1FF) << 3) >> 3])
            if entry & 7 == 0:
                return None
            if level == 1 or entry & 0x80:
                return entry, level
            table = entry & ADDRESS
        raise AssertionError

    def translation(self, root: int, gpa: int) -> int | None:
        found = self.leaf(root, gpa)
        if found is None:
            return None
        size = 1 << (3 + 9 * found[1])
        return found[0] & ADDRESS & ~(size - 1) | gpa & (size - 1)

    def events(self, kind: int) -> list[tuple[int, ...]]:
        trace = self.m.trace
        rows = (trace.events[index] for index in range(int(trace.count)))
        return [(int(row.reason), int(row.a), int(row.b), int(row.c), int(row.d)) for row in rows if row.kind == kind]


def words(*values: int) -> list[Any]:
    """Arguments as kernels take them."""
    return [u64(value) for value in values]

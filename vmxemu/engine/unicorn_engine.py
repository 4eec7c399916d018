"""Setting up one Unicorn instance: memory, hooks, and the CPU state in place, with a self-check against the wrong build."""

import ctypes
import os
import struct
import time
from typing import Any

import capstone
import capstone.x86_const as x86
import numpy as np
import unicorn
from unicorn import unicorn_const as const
from unicorn import x86_const

from vmxemu.cpu.layout import EXPECTED_OFFSETS, Registers
from vmxemu.engine.coherence import WINDOW_NEVER_ENDS
from vmxemu.engine.library import CONTROL_TLB_FLUSH, SUPPORTED_UNICORN, UC, EngineError, check
from vmxemu.engine.softmmu import SoftmmuAccess
from vmxemu.layout import Record

HIDDEN_HPA = 1 << 52  # outside every guest's physical address space: VMCB and permission bitmaps for the interception
VOID_HPA = HIDDEN_HPA + (1 << 20)  # one page that reads all ones and drops stores: where there is no memory
ROM_SINK_HPA = HIDDEN_HPA + (2 << 20)  # one page that takes stores to ROM
POISON_WINDOW_HPA = HIDDEN_HPA + (1 << 40)  # all physical addresses again, each access by callback: frames with a poisoned line
HIDDEN_BYTES = 0x10000
FEATURES_OFFSET = 5632  # CPUX86State.features: one u64 per CPUID feature word, in the order leaf 1 EDX, leaf 1 ECX, leaf 7 EBX
SKYLAKE_SERVER_LEAF_1_EDX = 0x78BFBFD
# Features whose instructions must stop instead of running: RDRAND and RDSEED would bring in host randomness; STAC and CLAC change
# what a cached translation permits.
RDRAND, RDSEED, SMAP = 1 << 30, 1 << 18, 1 << 20
SECOND_SENTINEL = 0x5EAD_0001_BEE2_0000
TLB_BYTES = 0xC00  # its TLBs' descriptors stand in so many bytes before the CPU state
CONTEXT_HEADER = 40  # uc_context: the CPU state begins at this byte


class UnicornEngine:
    """Owns the Unicorn handle and every buffer that it looks at."""

    def __init__(self) -> None:
        if unicorn.__version__ != SUPPORTED_UNICORN:
            raise EngineError(f"unicorn {SUPPORTED_UNICORN} is required, this is {unicorn.__version__}")
        began_ns = time.time_ns()
        self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        self.uc.ctl_set_cpu_model(x86_const.UC_CPU_X86_SKYLAKE_SERVER)
        self.handle = int(self.uc._uch.value)
        self._keep: list[Any] = []
        self._context = ctypes.c_void_p()
        check(UC.uc_context_alloc(self.uc._uch, ctypes.byref(self._context)), "uc_context_alloc")
        size = UC.uc_context_size(self.uc._uch)
        self._image = np.frombuffer((ctypes.c_uint8 * size).from_address(self._context.value or 0), np.uint8)
        check(UC.uc_context_save(self.uc._uch, self._context), "uc_context_save")
        self.registers_address = self._find_registers()
        self._verify_layout()
        self.tlb_windows = self._find_tlb_windows(began_ns)
        self._hide_features()
        self.uc.ctl_exits_enabled(True)
        self.uc.ctl_set_tlb_mode(const.UC_TLB_VIRTUAL)
        self.softmmu = SoftmmuAccess(self.handle, self.registers_address, self.tlb_windows[0])
        self._map_hidden()

    def _find_registers(self) -> int:
        """Address of CPUX86State: sentinels are written through the API and looked for behind the pointers in uc_struct."""
        original = self._image.copy()
        sentinels = struct.pack("<16Q", *(0x5EAD_0000_BEE1_0000 + i for i in range(16)))
        self._image[CONTEXT_HEADER : CONTEXT_HEADER + len(sentinels)] = np.frombuffer(sentinels, np.uint8)
        check(UC.uc_context_restore(self.uc._uch, self._context), "uc_context_restore")
        found = _search_behind_pointers(self.handle, sentinels)
        self._image[:] = original
        check(UC.uc_context_restore(self.uc._uch, self._context), "uc_context_restore")
        self.uc.reg_write(x86_const.UC_X86_REG_RBX, SECOND_SENTINEL)
        for address in found:  # a copy of the state that somebody has left in memory does not follow the change
            if ctypes.c_uint64.from_address(address + 8 * 3).value == SECOND_SENTINEL:
                self.uc.reg_write(x86_const.UC_X86_REG_RBX, 0)
                return address
        raise EngineError("this build of Unicorn hides its CPU state: no in-place access")

    def _verify_layout(self) -> None:
        """Refuse to run on a build whose CPU state differs: write registers by API, find them at their offsets."""
        for name, offset in EXPECTED_OFFSETS.items():
            if Registers.FIELDS[name].offset != offset:
                raise EngineError(f"register layout: {name} is at byte {Registers.FIELDS[name].offset}, expected {offset}")
        registers = Record(Registers, self.registers_address)
        probes: tuple[tuple[int, Any, Any], ...] = (
            (x86_const.UC_X86_REG_RBX, 0x1122_3344_5566_7788, lambda: registers.gpr[3]),
            (x86_const.UC_X86_REG_R15, 0x99AA_BBCC_DDEE_FF00, lambda: registers.gpr[15]),
            (x86_const.UC_X86_REG_CR2, 0x1234_5678_9ABC, lambda: registers.cr[2]),
            (x86_const.UC_X86_REG_DR0, 0x4321_0000, lambda: registers.dr[0]),
            (
                x86_const.UC_X86_REG_GDTR,
                (0, 0x7654_3210, 0x7F, 0),
                lambda: (0, int(registers.seg[8].base), int(registers.seg[8].limit), 0),
            ),
        )
        for register, value, read in probes:
            self.uc.reg_write(register, value)
            found = read()
            if (found if isinstance(value, tuple) else int(found)) != value:
                raise EngineError("this build of Unicorn keeps its CPU state elsewhere than the engine expects")
            self.uc.reg_write(register, (0, 0, 0, 0) if isinstance(value, tuple) else 0)

    def _find_tlb_windows(self, began_ns: int) -> list[int]:
        """Addresses of the host times at which Unicorn began to watch the use of its TLBs: they stand below the CPU state."""
        start = self.registers_address - TLB_BYTES
        words = np.frombuffer(ctypes.string_at(start, TLB_BYTES), np.uint64)
        slack = 1_000_000_000
        found = np.flatnonzero((words > began_ns - slack) & (words < time.time_ns() + slack))
        if len(found) != 3 or len(set(np.diff(found).tolist())) != 1:
            raise EngineError("this build of Unicorn keeps its TLBs elsewhere than the engine expects")
        return [start + 8 * int(index) for index in found]

    def _hide_features(self) -> None:
        """Make the instructions of some features invalid opcodes, which we intercept and emulate."""
        words = np.ctypeslib.as_array((ctypes.c_uint64 * 3).from_address(self.registers_address + FEATURES_OFFSET))
        if int(words[0]) != SKYLAKE_SERVER_LEAF_1_EDX:
            raise EngineError("this build of Unicorn keeps its CPU features elsewhere than the engine expects")
        words[1] &= ~np.uint64(RDRAND)
        words[2] &= ~np.uint64(RDSEED | SMAP)

    def _map_hidden(self) -> None:
        """The VMCB page and all-ones permission bitmaps: they make every RDMSR and WRMSR stop."""
        hidden = np.full(HIDDEN_BYTES, 0xFF, np.uint8)
        hidden[:0x1000] = 0
        hidden[0x40:0x50] = np.frombuffer(struct.pack("<QQ", HIDDEN_HPA + 0x1000, HIDDEN_HPA + 0x4000), np.uint8)
        self.map_memory(HIDDEN_HPA, hidden)
        Record(Registers, self.registers_address).vmcb = HIDDEN_HPA
        sink = np.zeros(0x2000, np.uint8)
        aligned = -int(sink.ctypes.data) % 4096
        self.rom_sink = sink[aligned : aligned + 4096]
        self.map_memory(ROM_SINK_HPA, self.rom_sink)

    def map_memory(self, hpa: int, memory: "np.ndarray[Any, np.dtype[np.uint8]]", writable: bool = True) -> None:
        """Show a host buffer (page-aligned size) to Unicorn at a physical address."""
        self._keep.append(memory)
        protection = const.UC_PROT_ALL if writable else const.UC_PROT_READ | const.UC_PROT_EXEC
        check(
            UC.uc_mem_map_ptr(
                self.uc._uch,
                ctypes.c_uint64(hpa),
                ctypes.c_size_t(memory.size),
                ctypes.c_uint32(protection),
                ctypes.c_void_p(memory.ctypes.data),
            ),
            f"mapping {hpa:#x}",
        )

    def map_device(self, hpa: int, size: int, read: int, write: int, user: int) -> None:
        """Let native callbacks answer for a physical range."""
        check(
            UC.uc_mmio_map(
                self.uc._uch,
                ctypes.c_uint64(hpa),
                ctypes.c_size_t(size),
                ctypes.c_void_p(read),
                ctypes.c_void_p(user),
                ctypes.c_void_p(write),
                ctypes.c_void_p(user),
            ),
            f"mapping the device at {hpa:#x}",
        )

    def hook(self, kind: int, callback: int, user: int) -> None:
        """Add a native hook over all addresses."""
        handle = ctypes.c_size_t()
        check(
            UC.uc_hook_add(
                self.uc._uch,
                ctypes.byref(handle),
                ctypes.c_int(kind),
                ctypes.c_void_p(callback),
                ctypes.c_void_p(user),
                ctypes.c_uint64(1),
                ctypes.c_uint64(0),
            ),
            f"hook {kind:#x}",
        )

    def hook_instruction(self, instruction: int, callback: int, user: int) -> None:
        """Add a native hook on one kind of instruction."""
        handle = ctypes.c_size_t()
        check(
            UC.uc_hook_add(
                self.uc._uch,
                ctypes.byref(handle),
                ctypes.c_int(const.UC_HOOK_INSN),
                ctypes.c_void_p(callback),
                ctypes.c_void_p(user),
                ctypes.c_uint64(1),
                ctypes.c_uint64(0),
                ctypes.c_int(instruction),
            ),
            f"instruction hook {instruction}",
        )

    def flush(self) -> None:
        """Forget what Unicorn's TLBs hold, without letting the host's time decide on their size (engine.coherence)."""
        for window in self.tlb_windows:
            ctypes.c_uint64.from_address(window).value = int(WINDOW_NEVER_ENDS)
        check(UC.uc_ctl(self.uc._uch, ctypes.c_int32(CONTROL_TLB_FLUSH)), "flushing the TLBs")

    def find_invalid_address(self) -> int:
        """Host address of uc_struct.invalid_addr: fault on a sentinel address and look for it. The fill must refuse the
        sentinel."""
        sentinel = 0x5EAD_BEE1_7000
        UC.uc_emu_start(self.uc._uch, ctypes.c_uint64(sentinel), ctypes.c_uint64(0), ctypes.c_uint64(0), ctypes.c_size_t(0))
        found = ctypes.string_at(self.handle, 4096).find(struct.pack("<Q", sentinel))
        if found < 0:
            raise EngineError("this build of Unicorn does not say at which address an access failed")
        return self.handle + found

    def open_disassemblers(self) -> tuple[tuple[int, int, int], int]:
        """Capstone handles for 16-, 32- and 64-bit code, and the address of one cs_insn to use with them."""
        opened = [
            capstone.Cs(capstone.CS_ARCH_X86, mode) for mode in (capstone.CS_MODE_16, capstone.CS_MODE_32, capstone.CS_MODE_64)
        ]
        insn = ctypes.create_string_buffer(1024)
        self._keep += [opened, insn]
        handles = [int(one.csh.value) for one in opened]
        return (handles[0], handles[1], handles[2]), ctypes.addressof(insn)

    def mnemonic_ticks(self, costs: dict[str, tuple[float, float, float]]) -> int:
        """Address of the cost table of code.TICKS_ROW. `costs` maps a mnemonic to cycles: register form, extra load, extra
        store."""
        table = np.zeros((x86.X86_INS_ENDING + 1, 3), np.uint64)
        default = costs["default"]
        names = {value: name[8:].lower() for name, value in vars(x86).items() if name.startswith("X86_INS_")}
        for number in range(len(table)):
            table[number] = [round(16 * cycles) for cycles in costs.get(names.get(number, ""), default)]
        self._keep.append(table)
        return int(table.ctypes.data)


def _search_behind_pointers(handle: int, wanted: bytes) -> list[int]:
    """Every place behind a pointer in uc_struct that holds `wanted`; safe reads only."""
    places: list[int] = []
    with open("/proc/self/mem", "rb", buffering=0) as memory:

        def peek(address: int, size: int) -> bytes:
            try:
                return os.pread(memory.fileno(), size, address)
            except OSError:
                return b""

        structure = peek(handle, 4096)
        for offset in range(0, len(structure), 8):
            pointer = int.from_bytes(structure[offset : offset + 8], "little")
            if not 0x10000 < pointer < 1 << 47:
                continue
            found = peek(pointer, 0x20000).find(wanted)
            if found >= 0 and pointer + found not in places:
                places.append(pointer + found)
    return places

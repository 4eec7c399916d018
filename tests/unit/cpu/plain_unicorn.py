"""Unicorn as itself, without interception: what our treatment of its state is compared with."""

import ctypes
from typing import Any

import numpy as np
import unicorn as u
import unicorn.unicorn_py3.unicorn as binding
from unicorn import x86_const as x86

from vmxemu.cpu.layout import Registers
from vmxemu.layout import Record

CONTEXT_START = 40  # of CPUX86State in the allocated context
LIBRARY: Any = binding.uclib


class PlainUnicorn:
    """One engine with flat memory; `registers` is a snapshot of its state as our record."""

    def __init__(self, ram_bytes: int = 1 << 20) -> None:
        self.uc: Any = u.Uc(u.UC_ARCH_X86, u.UC_MODE_64)
        self.ram = np.zeros(ram_bytes, np.uint8)
        self.uc.mem_map_ptr(0, ram_bytes, u.UC_PROT_ALL, self.ram.ctypes.data)
        self._context = ctypes.c_void_p()
        LIBRARY.uc_context_alloc(self.uc._uch, ctypes.byref(self._context))

    def load(self, address: int, code: bytes) -> None:
        self.ram[address : address + len(code)] = np.frombuffer(code, np.uint8)

    def run(self, start: int, end: int) -> None:
        self.uc.emu_start(start, end)

    def snapshot(self) -> Any:
        LIBRARY.uc_context_save(self.uc._uch, self._context)
        return Record(Registers, self._context.value + CONTEXT_START)

    @property
    def eflags(self) -> int:
        return int(self.uc.reg_read(x86.UC_X86_REG_EFLAGS))

    def restore(self) -> None:
        """Make the latest snapshot, as edited, Unicorn's state."""
        LIBRARY.uc_context_restore(self.uc._uch, self._context)

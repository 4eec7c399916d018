"""Unicorn's and Capstone's C functions as nopython code calls them, and as Python sets them up."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import capstone
import llvmlite.binding as llvm
import unicorn
from numba import types
from unicorn import unicorn_const as const

UC = unicorn.unicorn_py3.unicorn.uclib
CAPSTONE_LIBRARY = next((Path(capstone.__file__).parent / "lib").glob("libcapstone.so*"))
llvm.load_library_permanently(UC._name)
llvm.load_library_permanently(str(CAPSTONE_LIBRARY))

SUPPORTED_UNICORN = "2.1.4"

U8, U64, U32, I32 = types.uint8, types.uint64, types.uint32, types.int32
emu_start = types.ExternalFunction("uc_emu_start", I32(U64, U64, U64, U64, U64))
emu_stop = types.ExternalFunction("uc_emu_stop", I32(U64))
uc_control = types.ExternalFunction("uc_ctl", I32(U64, I32))
uc_control_range = types.ExternalFunction("uc_ctl", I32(U64, I32, U64, U64))
hook_add = types.ExternalFunction("uc_hook_add", I32(U64, U64, I32, U64, U64, U64, U64))
# The library's own functions. Arguments of unicorn_fill: CPU, linear address, size, kind, TLB, probe, return address.
unicorn_fill: Callable[..., int] = types.ExternalFunction("unicorn_fill_tlb_x86_64", U8(U64, U64, I32, I32, I32, U32, U64))
find_rip = types.ExternalFunction("cpu_restore_state_x86_64", U8(U64, U64, U32))  # CPU, return address, 0
disassemble_next = types.ExternalFunction("cs_disasm_iter", U8(U64, U64, U64, U64, U64))


def _control(direction: int, what: int, arguments: int) -> Any:
    return ctypes.c_int32(direction << 30 | arguments << 26 | what).value


CONTROL_TLB_FLUSH = _control(const.UC_CTL_IO_WRITE, const.UC_CTL_TLB_FLUSH, 0)
CONTROL_TB_FLUSH = _control(const.UC_CTL_IO_WRITE, const.UC_CTL_TB_FLUSH, 0)
CONTROL_TB_REMOVE = _control(const.UC_CTL_IO_WRITE, const.UC_CTL_TB_REMOVE_CACHE, 2)


class EngineError(Exception):
    """Unicorn is not the build that this engine knows, or refused a call."""


def check(error: int, what: str) -> None:
    """Raise EngineError if a Unicorn call failed."""
    if error:
        raise EngineError(f"{what}: {UC.uc_strerror(error).decode()}")

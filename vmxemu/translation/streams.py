"""Independent streams of addresses on several cores: each has a processor of its own over the same memory.

A stream's processor begins as a copy of a walker's: registers, paging, contents of its caches. Memory is shared and
nothing guards it: where two streams set flags in one entry at the same time, one of the flags may be lost and is set by
the next walk that needs it. Tables whose flags are set already are only read.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from vmxemu.cpu.layout import Registers
from vmxemu.jit import cast_to, parallel_kernel
from vmxemu.layout import Record
from vmxemu.state import State
from vmxemu.translation.batch import translate_many
from vmxemu.translation.data_caches import SET_SHIFT
from vmxemu.translation.layout import READ
from vmxemu.translation.library import Addresses, Walker

state_at = cast_to(State)
SET_BYTES = 1 << int(SET_SHIFT)


@parallel_kernel
def translate_streams(states: Addresses, glas: Any, access: int, hpas_out: Any, status_out: Any) -> None:
    """`translate_many` of each row of `glas` with the processor whose State record stands at the address in `states`."""
    for stream in numba.prange(len(states)):
        translate_many(state_at(states[stream]), glas[stream], access, hpas_out[stream], status_out[stream])


class Streams:
    """`count` processors like that of `walker`; `states` are their records."""

    def __init__(self, walker: Walker, count: int) -> None:
        self._walker = walker  # owns the memory
        self.states = [_copy(walker.m) for _ in range(count)]
        self._addresses = np.array([m.address for m in self.states], np.uint64)

    def translate_many(
        self, glas: Addresses, access: int = int(READ), cores: int | None = None
    ) -> tuple[Addresses, Addresses]:
        """Translate one row of addresses for each stream: (host-physical addresses, outcomes) of the same shape.

        `cores`: how many to use at most, default all. Raises ValueError for another number of rows than of streams.
        """
        glas = np.ascontiguousarray(glas, np.uint64)
        if glas.ndim != 2 or len(glas) != len(self.states):
            raise ValueError(f"{len(self.states)} streams need as many rows of addresses, not the shape {glas.shape}")
        hpas, outcomes = np.zeros_like(glas), np.zeros_like(glas)
        self.translate_into(glas, access, hpas, outcomes, cores)
        return hpas, outcomes

    def translate_into(
        self,
        glas: Addresses,
        access: int,
        hpas_out: Addresses,
        status_out: Addresses,
        cores: int | None = None,
        kernel: Callable[..., None] = translate_streams,
    ) -> None:
        """The same with results written to given arrays, all of them C-contiguous, by any kernel of that signature."""
        most = int(numba.config.NUMBA_NUM_THREADS)
        before = numba.get_num_threads()
        numba.set_num_threads(max(1, min(cores or most, len(self.states), most)))
        try:
            kernel(self._addresses, glas, access, hpas_out, status_out)
        finally:
            numba.set_num_threads(before)


def _copy(m: Any) -> Any:
    """A State of its own with the same contents, and a register file and data caches of its own."""
    registers: Any = Record(Registers)
    ctypes.memmove(registers.address, m.r.address, Registers.SIZE)
    copied: Any = Record(State)
    ctypes.memmove(copied.address, m.address, State.SIZE)
    copied.r = registers.address
    lines = [_own_lines(level) for level in copied.caches.level]
    return Record(State, copied.address, keep=(copied, registers, lines))


def _own_lines(level: Any) -> Addresses:
    size = (int(level.set_mask) + 1) << int(SET_SHIFT) if level.ways else 0
    lines: Addresses = np.zeros(size // 8 + SET_BYTES // 8, np.uint64)
    start = -(-lines.ctypes.data // SET_BYTES) * SET_BYTES
    ctypes.memmove(start, int(level.tags), size)
    level.tags = start
    return lines

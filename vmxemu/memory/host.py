"""The host's memory behind RAM."""

import contextlib
import mmap
from typing import Any

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

MAP_NORESERVE = 0x4000  # Linux; not in every Python
# So much RAM stands in the host's huge pages if it can: a stride over guest pages would miss the host's TLB as well. Not more,
# for a guest that touches a page here and there would take all of it.
HUGE_BYTES = 1 << 30


def untouched(size: int) -> Bytes:
    """Zeroes, page-aligned, that cost nothing until they are touched, however many. Raises OSError if the host refuses."""
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE, 0, min(size, HUGE_BYTES))
    return np.frombuffer(memory, np.uint8)

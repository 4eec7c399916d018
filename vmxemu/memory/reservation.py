"""Host memory that costs nothing until it is touched."""

import contextlib
import mmap
from typing import Any

import numpy as np

MAP_NORESERVE = 0x4000  # of Linux on x86-64 and arm64; Python's mmap has the name from 3.13 on

LARGE_PAGE = 1 << 21

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def reserve(size: int, in_large_pages: int | None = None) -> Bytes:
    """`size` zero bytes, page-aligned; more than the host has is fine as long as it is not touched. Raises OSError if the
    host refuses.

    Large pages of the host, where it gives any: walks of a guest's tables would suffer from its TLB misses otherwise. Only
    for the first `in_large_pages` bytes, if given: who touches a page here and there takes a large one each time.
    """
    spare = LARGE_PAGE if size >= LARGE_PAGE else 0
    memory = mmap.mmap(-1, size + spare, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    with contextlib.suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE, 0, min(size + spare, in_large_pages or size + spare))
    whole = np.frombuffer(memory, np.uint8)
    start = -int(whole.ctypes.data) % LARGE_PAGE if spare else 0
    return whole[start : start + size]

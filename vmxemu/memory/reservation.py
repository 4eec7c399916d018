"""Host memory that costs nothing until it is touched."""

import contextlib
import mmap
from typing import Any

import numpy as np

MAP_NORESERVE = 0x4000  # of Linux on x86-64 and arm64; Python's mmap has the name from 3.13 on

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def reserve(size: int) -> Bytes:
    """`size` zero bytes, page-aligned; more than the host has is fine as long as it is not touched.

    Large pages of the host, where it gives any: walks of a guest's tables would suffer from its TLB misses otherwise.
    """
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    with contextlib.suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)

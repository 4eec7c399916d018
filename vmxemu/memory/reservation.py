"""Host memory that costs nothing until it is touched."""

import mmap
from typing import Any

import numpy as np

MAP_NORESERVE = 0x4000  # of Linux on x86-64 and arm64; Python's mmap has the name from 3.13 on

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def reserve(size: int) -> Bytes:
    """`size` zero bytes, page-aligned; more than the host has is fine as long as it is not touched."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    return np.frombuffer(mmap.mmap(-1, size, flags=flags), np.uint8)

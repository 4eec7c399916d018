"""What a reference of a walk costs: the latency of the nearest data cache that holds its line.

The caches are those of the CPU profile, physically indexed, inclusive on the way in, least recently used first out.
They see the walks' references only: the lines of data that compete with them are not modelled.
"""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel, load64, store64
from vmxemu.layout import u64 as U
from vmxemu.translation.inline import apart

if TYPE_CHECKING:
    from vmxemu.state import State
    from vmxemu.translation.tlb_layout import DataCache

LEVELS = U(3)
UNCACHEABLE, WRITE_COMBINING = U(0), U(1)


@apart
def reference_cycles(m: "State", hpa: int, memory_type: int) -> int:
    """Cycles of a load of a paging-structure entry; the line is the most recent one of its sets afterwards."""
    caches = m.caches
    if memory_type <= WRITE_COMBINING:
        caches.uncached = caches.uncached + 1
        return caches.memory_cycles
    tag = (hpa >> 6) + 1  # 0 is an empty way
    for number in range(LEVELS):
        cache = caches.level[number]
        if cache.ways != 0 and _touch(cache, tag):
            cache.hits = cache.hits + 1
            return cache.cycles
    caches.misses = caches.misses + 1
    return caches.memory_cycles


@kernel
def _touch(cache: "DataCache", tag: int) -> bool:
    """Bring a line to the front of its set, the others one place back; whether it was there."""
    at = cache.tags + ((tag - 1 & cache.set_mask) * cache.ways << 3)
    end = at + (cache.ways << 3)
    previous = tag
    while at < end:
        current = load64(at)
        store64(at, previous)
        if current == tag:
            return True
        previous = current
        at = at + 8
    return False

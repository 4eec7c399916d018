"""What a reference of a walk costs: the latency of the nearest data cache that holds its line.

The caches are those of the CPU profile, physically indexed, inclusive on the way in, least recently used first out.
They see the walks' references only: the lines of data that compete with them are not modelled. A set is sixteen 32-bit
line numbers + 1 (0: empty), the most recent one first: lines 256 GiB apart are taken for one another.
"""

from typing import TYPE_CHECKING

from vmxemu.layout import u64 as U
from vmxemu.translation.bits import CR0_CD
from vmxemu.translation.inline import inlined
from vmxemu.translation.lanes import touch_line

if TYPE_CHECKING:
    from vmxemu.state import State

LEVELS = U(3)
SET_SHIFT = U(6)  # log2 of the bytes that a set's line numbers take
UNCACHEABLE, WRITE_COMBINING = U(0), U(1)


@inlined
def reference_cycles(m: "State", hpa: int, memory_type: int) -> int:
    """Cycles of a load of a paging-structure entry; the line is the most recent one of its sets afterwards."""
    caches = m.caches
    if memory_type <= WRITE_COMBINING or m.r.cr[0] & CR0_CD != 0:
        caches.uncached = caches.uncached + 1
        return caches.memory_cycles
    line = hpa >> 6
    for number in range(LEVELS):
        cache = caches.level[number]
        if cache.ways != 0 and touch_line(cache.tags + ((line & cache.set_mask) << SET_SHIFT), line + 1, cache.ways) != 0:
            cache.hits = cache.hits + 1
            return cache.cycles
    caches.misses = caches.misses + 1
    return caches.memory_cycles

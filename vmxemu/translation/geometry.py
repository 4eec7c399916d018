"""Setting up the TLB, walk caches and data caches: sizes, replacement and costs come from the CPU profile."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vmxemu.isa.cpus import CpuProfile
from vmxemu.translation.replacement import EVERY_ARRAY, NEVER_VICTIM
from vmxemu.translation.tlb_layout import (
    ARRAYS,
    BY_TREE,
    CAPACITY,
    EPT_TABLES,
    NESTED_PAGES,
    NESTED_TABLES,
    PAGE_ARRAYS,
    SMALL_WAYS,
    TABLES,
)
from vmxemu.translation.tree_plru import WAYS, levels_of, nodes_of

GROUPS = ("l1d", "l1i", "stlb")
CLASSES = ("4k", "2m", "1g")
GROUP_OF = {"dtlb": "l1d", "itlb": "l1i", "stlb": "stlb"}
# The arrays' names by number: those of TLBs, then those of walk caches.
NAMES = {group * 3 + size: f"{GROUPS[group]}_{CLASSES[size]}" for group in range(3) for size in range(3)} | {
    int(TABLES) + 2: "pd", int(TABLES) + 3: "pdpt", int(TABLES) + 4: "pml4", int(TABLES) + 5: "pml5",
    int(EPT_TABLES) + 2: "ept_pd", int(EPT_TABLES) + 3: "ept_pdpt", int(EPT_TABLES) + 4: "ept_pml4",
    int(EPT_TABLES) + 5: "ept_pml5", int(NESTED_TABLES): "nested", int(NESTED_PAGES): "nested_pages",
}  # fmt: skip
NUMBERS = {name: number for number, name in NAMES.items()}
LINE_BYTES = 64
SET_WAYS = 16
NOWHERE = CAPACITY - 4  # where an array that does not exist is looked for: entries that are never filled


@dataclass(frozen=True, slots=True)
class DataCacheGeometry:
    """One data cache: bytes, ways, load-to-use latency in cycles."""

    size_bytes: int
    ways: int
    cycles: int


@dataclass(frozen=True, slots=True)
class Geometry:
    """Entries and ways per array, and costs in cycles.

    `arrays` maps "l1d_4k", "l1d_2m", "l1d_1g", "l1i_4k", ..., "stlb_4k", "stlb_2m", "stlb_1g" to (entries, ways); an
    absent one, or one of 0 entries, keeps its pages in the next smaller size. `shared`: which array has its entries in
    another one (of a smaller page size and of the same entries and ways, else each has its own). Sets must be a power
    of two. `stlb_hash_bits` n > 0: set = page ^ page >> n in "stlb_4k" and "stlb_2m".
    `walk_caches` maps "pd", "pdpt", "pml4", "pml5" (paging-structure caches by the entry that they hold), "ept_pd",
    "ept_pdpt", "ept_pml4", "ept_pml5" (those of EPT), "nested"
    (guest-physical addresses of the guest's tables) and "nested_pages" (those of pages) to entries; they are fully
    associative. `data_caches`: what a walk's reference costs, with `memory_cycles` beyond them; none: each costs
    `reference_cycles`. `tree_plru`: the arrays whose victims a tree of bits per set points to; of others it is the least
    recently used entry.
    """

    arrays: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=lambda: {"stlb_2m": "stlb_4k"})
    stlb_hash_bits: int = 0
    stlb_cycles: int = 0
    walk_cycles: int = 0
    reference_cycles: int = 0
    walk_caches: Mapping[str, int] = field(default_factory=dict)
    data_caches: tuple[DataCacheGeometry, ...] = ()
    memory_cycles: int = 0
    tree_plru: frozenset[str] = frozenset()


# For use without a CPU profile: TLBs alone. isa/cpus/skylake-sp.toml has the sources. Costs: assumptions (STLB 7 to 9
# cycles; a reference between an L1 and an L2 hit).
SKYLAKE_SP = Geometry(
    arrays={
        "l1d_4k": (64, 4), "l1d_2m": (32, 4), "l1d_1g": (4, 4), "l1i_4k": (128, 8), "l1i_2m": (8, 8),
        "stlb_4k": (1536, 12), "stlb_2m": (1536, 12), "stlb_1g": (16, 4),
    },
    stlb_hash_bits=7, stlb_cycles=9, walk_cycles=5, reference_cycles=6,
)  # fmt: skip
NO_TLB = Geometry()


def geometry_of(profile: CpuProfile) -> Geometry:
    """The profile's TLBs, walk caches, data caches and costs.

    A TLB that holds several page sizes is one array that serves each of them. Of two TLBs of one level and page size,
    the first counts: a second level for code alone is not modelled. Walk caches are replaced by age.
    """
    arrays: dict[str, tuple[int, int]] = {}
    shared: dict[str, str] = {}
    trees: set[str] = set()
    hash_bits = 0
    for name, tlb in profile.tlb.items():
        group = GROUP_OF[name.split("_")[0]]
        held = [f"{group}_{size}" for size in CLASSES if size in map(str.lower, tlb.page_sizes)]
        new = [array for array in held if tlb.entries and array not in arrays]
        arrays |= dict.fromkeys(new, (tlb.entries, tlb.ways))
        shared |= dict.fromkeys(new[1:], new[0]) if new else {}
        if tlb.replacement == "tree_plru":
            trees |= set(new)
        if tlb.hash == "xor7":
            if group != "stlb" or "stlb_1g" in new:
                raise ValueError(f"{profile.name}: {name}: index hash is known for second-level TLBs of 4K and 2M pages only")
            hash_bits = 7
    return Geometry(
        arrays=arrays,
        shared=shared,
        stlb_hash_bits=hash_bits,
        stlb_cycles=profile.costs["tlb_stlb_hit"],
        walk_cycles=profile.costs["page_walk_start"],
        reference_cycles=profile.costs["page_walk_step"],
        walk_caches={name: cache.entries for name, cache in profile.walk_caches.items()},
        data_caches=tuple(
            DataCacheGeometry(cache.bytes, cache.ways, cache.latency_cycles)
            for cache in (profile.caches[name] for name in ("l1d", "l2", "l3") if name in profile.caches)
        ),
        memory_cycles=profile.memory.latency_cycles,
        tree_plru=frozenset(trees),
    )


def install(m: Any, geometry: Geometry) -> list[Any]:
    """Lay out the TLB and the caches of the state `m`; they are empty afterwards. Gives buffers that must be kept alive
    as long as the state. Raises ValueError for a geometry that does not fit.
    """
    tlb = m.tlb
    position, pages_end = 0, 0
    for number in range(ARRAYS):
        pages_end = position if number == PAGE_ARRAYS else pages_end
        position += _lay_out(tlb, geometry, number, position)
    if position > NOWHERE:
        raise ValueError(f"the arrays hold {position} entries, not less than {NOWHERE + 1}")
    tlb.used, tlb.pages_end = position, pages_end
    tlb.live = tlb.clock = 0
    tlb.large_regions.numpy[:] = 0
    tlb.entries.column("space")[:] = 0
    tlb.trees.numpy[:] = 1
    tlb.may_have_room = EVERY_ARRAY
    for small in tlb.small:
        small.filters.numpy[:], small.order.numpy[:] = 0, np.arange(SMALL_WAYS)
    tlb.stamps.numpy[:] = np.arange(len(tlb.stamps))
    for array in tlb.arrays:
        if array.ways:
            stride = int(array.stride)
            offsets = np.arange((int(array.set_mask) + 1) * stride)
            slots = int(array.first) + offsets
            tlb.sets.numpy[slots] = slots - offsets % stride | (int(BY_TREE) if array.tree_levels else 0)
            tlb.stamps.numpy[slots[offsets % stride >= int(array.ways)]] = NEVER_VICTIM
    tlb.hints.numpy[:] = tlb.large_hints.numpy[:] = tlb.latest.numpy[:] = CAPACITY - 1
    held = [[bool(tlb.arrays[group * 3 + size].ways) for size in range(3)] for group in range(3)]
    tlb.parts = int(any(held[group][size] and not held[2][size] for group in (0, 1) for size in (1, 2)))
    tlb.tables_on = int(any(tlb.arrays[int(TABLES) + level].ways for level in range(2, 6)))
    tlb.ept_tables_on = int(any(tlb.arrays[int(EPT_TABLES) + level].ways for level in range(2, 6)))
    tlb.nested_on, tlb.nested_pages_on = (int(tlb.arrays[int(n)].ways > 0) for n in (NESTED_TABLES, NESTED_PAGES))
    tlb.stlb_cycles, tlb.walk_cycles = geometry.stlb_cycles, geometry.walk_cycles
    tlb.reference_cycles = geometry.reference_cycles
    return _install_data_caches(m.caches, geometry)


def _lay_out(tlb: Any, geometry: Geometry, number: int, position: int) -> int:
    """One array from `position` on; gives the entries that it takes of the pool."""
    array = tlb.arrays[number]
    array.first = NOWHERE
    array.ways = array.stride = array.set_mask = 0
    array.hash_shift = array.hash_mask = array.tree_levels = array.tree_nodes = array.small = 0
    name = NAMES.get(number, "")
    entries, ways = geometry.arrays.get(name, (0, 0))
    if number >= PAGE_ARRAYS:
        entries = ways = geometry.walk_caches.get(name, 0)
    if entries == 0:
        return 0
    sets = entries // ways
    if sets * ways != entries or sets & (sets - 1):
        raise ValueError(f"{name}: {entries} entries in {ways} ways are not a power of two of sets")
    if name in geometry.tree_plru:
        if ways > WAYS:
            raise ValueError(f"{name}: {ways} ways are too many, {WAYS} is the most")
        array.tree_levels, array.tree_nodes = levels_of(ways), nodes_of(ways)
    owner = geometry.shared.get(name)
    shared = owner is not None and geometry.arrays.get(owner) == (entries, ways)
    stride = -(-ways // 4) * 4
    array.ways, array.stride, array.set_mask = ways, stride, sets - 1
    array.small = int(number >= PAGE_ARRAYS and ways <= SMALL_WAYS and not array.tree_levels)
    array.first = tlb.arrays[NUMBERS[owner]].first if shared and owner else position
    hashed = geometry.stlb_hash_bits if name in ("stlb_4k", "stlb_2m") else 0
    array.hash_shift, array.hash_mask = hashed, sets - 1 if hashed else 0
    return 0 if shared else sets * stride


def _install_data_caches(caches: Any, geometry: Geometry) -> list[Any]:
    caches.on = int(bool(geometry.data_caches))
    caches.memory_cycles = geometry.memory_cycles
    caches.misses = caches.uncached = 0
    kept = []
    for number in range(3):
        level = caches.level[number]
        level.ways = level.hits = 0
        if number < len(geometry.data_caches):
            cache = geometry.data_caches[number]
            ways = cache.ways
            while ways > SET_WAYS:
                ways = -(-ways // 2)  # a set of more ways is taken for two of half as many
            sets = 1 << (cache.size_bytes // (ways * LINE_BYTES)).bit_length() - 1
            lines = np.zeros((sets + 1) * SET_WAYS, np.uint32)
            kept.append(lines)
            lines = lines[-int(lines.ctypes.data) % LINE_BYTES // 4 :]
            level.tags, level.ways, level.set_mask, level.cycles = lines.ctypes.data, ways, sets - 1, cache.cycles
    return kept

"""Setting up the TLB: sizes and costs come from the CPU profile."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vmxemu.translation.tlb import NEVER_VICTIM
from vmxemu.translation.tlb_layout import CAPACITY

GROUPS = ("l1d", "l1i", "stlb")
CLASSES = ("4k", "2m", "1g")


@dataclass(frozen=True, slots=True)
class Geometry:
    """Entries and ways per array, and costs in cycles.

    `arrays` maps "l1d_4k", "l1d_2m", "l1d_1g", "l1i_4k", ..., "stlb_4k", "stlb_2m", "stlb_1g" to (entries, ways); an
    absent one, or one of 0 entries, keeps its pages in the next smaller size. "stlb_2m" shares the entries of
    "stlb_4k" if `shared_stlb`. Sets must be a power of two. `stlb_hash_bits` n > 0: set = page ^ page >> n.
    """

    arrays: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    shared_stlb: bool = True
    stlb_hash_bits: int = 0
    stlb_cycles: int = 0
    walk_cycles: int = 0
    reference_cycles: int = 0


# For use without a CPU profile; isa/cpus/skylake-sp.toml has the sources. Costs: assumptions (STLB 7 to 9 cycles; a
# reference between an L1 and an L2 hit).
SKYLAKE_SP = Geometry(
    arrays={
        "l1d_4k": (64, 4), "l1d_2m": (32, 4), "l1d_1g": (4, 4), "l1i_4k": (128, 8), "l1i_2m": (8, 8),
        "stlb_4k": (1536, 12), "stlb_2m": (1536, 12), "stlb_1g": (16, 4),
    },
    stlb_hash_bits=7, stlb_cycles=9, walk_cycles=5, reference_cycles=6,
)  # fmt: skip
NO_TLB = Geometry()


def install(m: Any, geometry: Geometry) -> None:
    """Lay out the TLB of the state `m`; it is empty afterwards. Raises ValueError for a geometry that does not fit."""
    tlb = m.tlb
    position = 0
    for group_number, group in enumerate(GROUPS):
        for class_number, page_class in enumerate(CLASSES):
            array = tlb.arrays[group_number * 3 + class_number]
            entries, ways = geometry.arrays.get(f"{group}_{page_class}", (0, 0))
            if entries == 0:
                array.ways = array.stride = array.set_mask = array.first = array.hash_shift = array.hash_mask = 0
                continue
            sets = entries // ways
            if sets * ways != entries or sets & (sets - 1):
                raise ValueError(
                    f"{group}_{page_class}: {entries} entries in {ways} ways are not a power of two of sets"
                )
            shared = (
                group == "stlb"
                and page_class == "2m"
                and geometry.arrays.get("stlb_4k") == (entries, ways)
                and geometry.shared_stlb
            )
            stride = -(-ways // 4) * 4
            array.ways, array.stride, array.set_mask = ways, stride, sets - 1
            array.first = tlb.arrays[6].first if shared else position
            hashed = geometry.stlb_hash_bits if group == "stlb" else 0
            array.hash_shift, array.hash_mask = hashed, sets - 1 if hashed else 0
            position += 0 if shared else sets * stride
    if position >= CAPACITY:
        raise ValueError(f"the arrays hold {position} entries, not less than {CAPACITY}")
    tlb.used = position
    tlb.live = tlb.clock = 0
    tlb.spaces.numpy[:] = 0
    tlb.stamps.numpy[:] = np.arange(CAPACITY)
    for array in tlb.arrays:
        slots = int(array.first) + np.arange((int(array.set_mask) + 1) * int(array.stride))
        if array.ways:
            tlb.stamps.numpy[slots[(slots - int(array.first)) % int(array.stride) >= int(array.ways)]] = NEVER_VICTIM
    tlb.hints.numpy[:] = tlb.large_hints.numpy[:] = CAPACITY - 1
    tlb.stlb_cycles, tlb.walk_cycles, tlb.reference_cycles = (
        geometry.stlb_cycles,
        geometry.walk_cycles,
        geometry.reference_cycles,
    )

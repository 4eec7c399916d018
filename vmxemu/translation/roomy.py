"""Caches so large that next to nothing is evicted: what the manual lets a processor keep, a lazy one has kept."""

from collections.abc import Mapping
from dataclasses import replace

from vmxemu.translation.geometry import Geometry

STLB = (8192, 16)  # entries, ways
STLB_HASH_BITS = 9  # log2 of its sets
LARGEST_PAGES = (64, 64)
WALK_CACHES: Mapping[str, int] = {
    "pd": 512, "pdpt": 64, "pml4": 32, "pml5": 16, "ept_pd": 512, "ept_pdpt": 64, "ept_pml4": 32, "ept_pml5": 16,
    "nested": 1024, "nested_pages": 1024,
}  # fmt: skip


def roomy(geometry: Geometry) -> Geometry:
    """The same first level and costs, and room in the second level and all walk caches. Victims are the least recently used
    entries, since a tree of bits has no room for as many ways.
    """
    first_level = {name: size for name, size in geometry.arrays.items() if not name.startswith("stlb")}
    return replace(
        geometry,
        arrays=first_level | {"stlb_4k": STLB, "stlb_2m": STLB, "stlb_1g": LARGEST_PAGES},
        shared={"stlb_2m": "stlb_4k"},
        stlb_hash_bits=STLB_HASH_BITS,
        walk_caches=WALK_CACHES,
        tree_plru=frozenset(),
    )

"""The TLB of a CPU profile, as the translation room lays it out."""

from typing import Any

from vmxemu.isa.cpus import CpuProfile
from vmxemu.translation.geometry import Geometry, install

GROUP_OF = {"dtlb": "l1d", "itlb": "l1i", "stlb": "stlb"}


def geometry_of(profile: CpuProfile) -> Geometry:
    """The profile's TLBs and costs. A TLB that holds several page sizes serves each of them."""
    arrays: dict[str, tuple[int, int]] = {}
    hash_bits = 0
    for name, tlb in profile.tlb.items():
        group = GROUP_OF[name.split("_")[0]]
        for size in tlb.page_sizes:
            if tlb.entries and size.lower() in ("4k", "2m", "1g"):
                arrays.setdefault(f"{group}_{size.lower()}", (tlb.entries, tlb.ways))
        if group == "stlb" and tlb.hash == "xor7":
            hash_bits = 7
    return Geometry(
        arrays=arrays,
        stlb_hash_bits=hash_bits,
        stlb_cycles=profile.costs.get("tlb_stlb_hit", 0),
        walk_cycles=profile.costs.get("page_walk_start", 0),
        reference_cycles=profile.costs.get("page_walk_step", 0),
    )


def install_tlb(m: Any, profile: CpuProfile) -> None:
    """Lay out the machine's TLB."""
    install(m, geometry_of(profile))
    m.tlb.nested_on = int(profile.walk_caches["nested"].entries > 0)

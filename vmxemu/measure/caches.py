"""Cache configurations: TLB, walk caches and costs of a CPU profile, or parts of them."""

from dataclasses import replace
from typing import Any

from vmxemu.isa import cpus
from vmxemu.measure.cases import NONE, Case
from vmxemu.translation.geometry import NO_TLB, Geometry, geometry_of, install
from vmxemu.translation.invalidate import invalidate_all


def geometry_for(case: Case) -> Geometry:
    """The geometry of a case. Raises ValueError for a profile that does not exist."""
    if case.cpu == NONE:
        return NO_TLB
    geometry = geometry_of(cpus.load(case.cpu))
    if not case.walk_caches:
        geometry = replace(geometry, walk_caches={})
    if not case.cycles:
        geometry = replace(geometry, stlb_cycles=0, walk_cycles=0, reference_cycles=0, data_caches=(), memory_cycles=0)
    return geometry


def install_caches(m: Any, case: Case) -> list[Any]:
    """Give a processor the caches of a case, empty; the result must be kept as long as they are used."""
    kept = install(m, geometry_for(case))
    invalidate_all(m)
    return kept

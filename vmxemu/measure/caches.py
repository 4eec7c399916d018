"""Cache configurations: TLB, walk caches and costs of a CPU profile, or parts of them."""

from dataclasses import replace
from typing import Any

from vmxemu.isa import cpus
from vmxemu.machine.tlb_profile import geometry_of
from vmxemu.measure.cases import NONE, Case
from vmxemu.translation.geometry import NO_TLB, Geometry, install
from vmxemu.translation.invalidate import invalidate_all


def geometry_for(case: Case) -> Geometry:
    """The geometry of a case. Raises ValueError for a profile that does not exist."""
    if case.cpu == NONE:
        return NO_TLB
    geometry = geometry_of(cpus.load(case.cpu))
    return geometry if case.cycles else replace(geometry, stlb_cycles=0, walk_cycles=0, reference_cycles=0)


def install_caches(m: Any, case: Case) -> None:
    """Give a processor the caches of a case, empty."""
    install(m, geometry_for(case))
    m.tlb.nested_on = int(case.cpu != NONE and case.walk_caches and cpus.load(case.cpu).walk_caches["nested"].entries > 0)
    invalidate_all(m)

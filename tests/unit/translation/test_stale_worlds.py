"""No false alarm: random worlds in which every change of a table is followed by the invalidation that it asks for."""

import random

import numpy as np
import pytest

from tests.unit.translation.worlds import EPT_TABLES, FRAMES, GUEST_TABLES, World, ask_kernel
from vmxemu.isa import cpus
from vmxemu.translation import invalidate
from vmxemu.translation.bits import EPT_A, EPT_D
from vmxemu.translation.geometry import geometry_of
from vmxemu.translation.library import Walker
from vmxemu.translation.roomy import roomy
from vmxemu.translation.stale_report import stale_uses


@pytest.fixture(scope="module", params=["profile", "roomy"])
def walker(request):
    geometry = geometry_of(cpus.load("skylake-sp"))
    made = Walker(FRAMES * 4096, roomy(geometry) if request.param == "roomy" else geometry)
    made.m.tlb.checking = 1
    return made


def change_a_table(world, walker, chance):
    """Another entry from the same world, at another place; then what software has to do about it."""
    frame = chance.choice((*GUEST_TABLES, *EPT_TABLES))
    at, other = (frame * 512 + chance.choice((0, 1, 2, 3, 256, 511)) for _ in range(2))
    words = walker.ram.view("u8")
    words[at] = words[other]
    m = walker.m
    if frame in EPT_TABLES:
        invalidate.invept(m, chance.choice((1, 2)), int(m.paging.ept_pointer))
    elif chance.random() < 0.5 and m.paging.vpid:
        invalidate.invvpid(m, chance.choice((1, 2)), int(m.paging.vpid), 0)
    else:
        invalidate.on_paging_change(m)


def ept_tables(walker):
    """The tables of EPT without their own flags."""
    words = walker.ram.view("u8")[EPT_TABLES[0] * 512 : (EPT_TABLES[-1] + 1) * 512]
    return (words & ~np.uint64(int(EPT_A | EPT_D))).tobytes()


@pytest.mark.parametrize("lazy", [0, 1])
def test_worlds_that_invalidate_what_they_change(walker, lazy):
    m = walker.m
    m.tlb.lazy = lazy
    checked = 0
    for seed in range(150):
        world, chance = World(seed, 0.05), random.Random(seed)
        m.paging.vpid = chance.choice((0, 1, 5))
        world.load_into(walker)
        for _ in range(8):
            before = ept_tables(walker)
            accesses = [world.access() for _ in range(8)]
            for access in chance.choices(accesses, k=24):
                ask_kernel(walker, access)
            if ept_tables(walker) != before:  # the guest's walks have set flags in a table of EPT: that is a change too
                m.tlb.stale_kinds = 0
                break
            assert stale_uses(m) == [], seed
            checked += 1
            change_a_table(world, walker, chance)
    assert checked > 800

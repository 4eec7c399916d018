"""Random worlds. No false alarm: every change of a table is followed by the invalidation that it asks for. No use is missed:
changes without any, and the reference says what memory gives.
"""

import random

import numpy as np
import pytest

from tests.reference import translation as reference
from tests.unit.translation.asking import Subject, ask_reference
from tests.unit.translation.world_tables import EPT_ROOT, GUEST_ROOT, INDICES, PAGES, SPPT_ROOT
from tests.unit.translation.worlds import HOSTILITIES, RAM_BYTES, World
from vmxemu.isa import cpus
from vmxemu.translation import bits, invalidate
from vmxemu.translation.geometry import geometry_of
from vmxemu.translation.library import Walker
from vmxemu.translation.roomy import roomy
from vmxemu.translation.stale_report import stale_uses

WORLDS, ROUNDS = 150, 8
GUEST_FLAGS, EPT_FLAGS = bits.A | bits.D, bits.EPT_A | bits.EPT_D


@pytest.fixture(scope="module", params=["profile", "roomy"])
def subject(request):
    geometry = geometry_of(cpus.load("skylake-sp"))
    walker = Walker(RAM_BYTES, roomy(geometry) if request.param == "roomy" else geometry)
    walker.m.tlb.checking = 1
    return Subject(walker)


def tables(walker):
    """All tables without the flags that walks set in them."""
    words = walker.ram.view(np.uint64)
    guest, ept = words[GUEST_ROOT * 512 : EPT_ROOT * 512], words[EPT_ROOT * 512 : SPPT_ROOT * 512]
    rest = words[SPPT_ROOT * 512 : PAGES[0] * 512]
    return (guest & ~GUEST_FLAGS).tobytes() + (ept & ~EPT_FLAGS).tobytes() + rest.tobytes()


def change_a_table(walker, chance):
    """Another entry from the same world, at another place; the frame of the table."""
    frame = chance.randrange(GUEST_ROOT, SPPT_ROOT)
    at, other = (frame * 512 + chance.choice(INDICES) for _ in range(2))
    words = walker.ram.view(np.uint64)
    words[at] = words[other]
    return frame


def invalidate_what_a_table_gave(m, frame, chance):
    if frame >= EPT_ROOT:
        invalidate.invept(m, chance.choice((1, 2)), int(m.paging.ept_pointer))
    elif chance.random() < 0.5 and m.paging.vpid:
        invalidate.invvpid(m, chance.choice((1, 2)), int(m.paging.vpid), 0)
    else:
        invalidate.on_paging_change(m)


@pytest.mark.parametrize("lazy", [0, 1])
def test_worlds_that_invalidate_what_they_change(subject, lazy):
    m, walker = subject.m, subject.walker
    m.tlb.lazy = lazy
    checked = 0
    for seed in range(WORLDS):
        world, chance = World(seed, HOSTILITIES[seed % len(HOSTILITIES)]), random.Random(seed)
        m.paging.vpid = chance.choice((0, 1, 5))
        subject.load(world)
        for _ in range(ROUNDS):
            before = tables(walker)
            for access in chance.choices(world.accesses(8), k=24):
                subject.ask(access)
            if tables(walker) != before:  # a walk has set flags in a table of another kind, or has logged: a change too
                m.tlb.stale_kinds = 0
                break
            assert stale_uses(m) == [], seed
            checked += 1
            invalidate_what_a_table_gave(m, change_a_table(walker, chance), chance)
    assert checked > WORLDS * ROUNDS // 2


def essence(answer):
    """Of an answer, what a stale translation is to be found by."""
    return answer[0], answer[2] if answer[0] == "done" else None


@pytest.mark.parametrize("lazy", [0, 1])
def test_worlds_that_never_invalidate(subject, lazy):
    m, walker = subject.m, subject.walker
    m.tlb.lazy, m.paging.vpid = lazy, 1
    wrong = 0
    for seed in range(WORLDS):
        world, chance = World(seed, HOSTILITIES[seed % len(HOSTILITIES)]), random.Random(seed)
        subject.load(world)
        accesses = [access for access in world.accesses(10) if not access.physical]
        for access in chance.choices(accesses, k=60):
            if chance.random() < 0.1:
                change_a_table(walker, chance)
            world.words, world.pml_index = walker.ram.view(np.uint64).copy(), int(m.paging.pml_index)
            expected = ask_reference(world.processor(), access)
            uses = int(m.tlb.stale_count)
            said = subject.ask(access)
            reported = int(m.tlb.stale_count) != uses
            m.tlb.stale_kinds = 0
            if essence(expected) != essence(said):
                assert reported, (seed, access, expected, said)
                wrong += 1
            elif reported:  # an error code may differ, or a dirty flag stay clear
                assert expected[0] == "#PF" or access.kind == reference.WRITE, (seed, access, expected, said)
    assert wrong > 50

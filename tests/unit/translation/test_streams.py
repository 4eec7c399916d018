"""Streams on several cores give what each of them gives alone."""

import numpy as np
import pytest

from vmxemu.isa import cpus
from vmxemu.translation.batch import translate_many
from vmxemu.translation.geometry import SKYLAKE_SP, Geometry, geometry_of
from vmxemu.translation.layout import READ, WRITE
from vmxemu.translation.library import PAGE_4K, Walker
from vmxemu.translation.streams import Streams

PAGES, GLA, GPA = 600, 1 << 32, 8 << 20
COUNTERS = ("clock", "stlb_hits", "walks", "references", "faults")


def walker(geometry: Geometry = SKYLAKE_SP) -> Walker:
    made = Walker(16 << 20, geometry)
    ept = made.new_ept()
    ept.map(GPA, GPA, count=PAGES)
    guest = made.new_guest_tables(ept)
    guest.map(GLA, GPA, count=PAGES)
    made.use(guest, ept, accessed_dirty=True)
    return made


def addresses(streams: int, count: int) -> np.ndarray:
    """A few of them are not mapped."""
    pages = np.random.default_rng(5).integers(0, PAGES + 20, (streams, count)).astype(np.uint64)
    return np.uint64(GLA) + pages * np.uint64(PAGE_4K) + np.uint64(0x123)


@pytest.mark.parametrize("geometry", [SKYLAKE_SP, geometry_of(cpus.load("skylake-sp"))], ids=["TLBs", "all caches"])
@pytest.mark.parametrize(("count", "cores"), [(1, None), (2, 2), (3, 1), (5, None)])
def test_equal_to_one_after_the_other(count: int, cores: int | None, geometry: Geometry) -> None:
    shared = walker(geometry)
    glas = addresses(count, 1500)
    for access in (WRITE, READ):  # the first sets the flags of all tables
        shared.translate_many(np.uint64(GLA) + np.arange(PAGES, dtype=np.uint64) * np.uint64(PAGE_4K), int(access))
    streams, alone = Streams(shared, count), Streams(shared, count)
    hpas, outcomes = streams.translate_many(glas, int(READ), cores)
    assert 0 < np.count_nonzero(outcomes) < outcomes.size / 10
    for number, m in enumerate(alone.states):
        expected_hpas, expected_outcomes = np.zeros_like(glas[0]), np.zeros_like(glas[0])
        translate_many(m, glas[number], int(READ), expected_hpas, expected_outcomes)
        assert (hpas[number] == expected_hpas).all() and (outcomes[number] == expected_outcomes).all()
        for name in COUNTERS:
            assert getattr(streams.states[number].tlb, name) == getattr(m.tlb, name), name
        assert streams.states[number].walk.cycles_due == m.walk.cycles_due


def test_the_walker_is_left_as_it_was() -> None:
    shared = walker()
    streams = Streams(shared, 2)
    streams.translate_many(addresses(2, 100))
    assert shared.m.tlb.clock == 0 and shared.m.tlb.walks == 0
    assert [int(m.tlb.clock) for m in streams.states] == [100, 100]


def test_wrong_shapes() -> None:
    streams = Streams(walker(), 2)
    with pytest.raises(ValueError, match="2 streams need as many rows"):
        streams.translate_many(np.zeros(4, np.uint64))
    with pytest.raises(ValueError, match="2 streams need as many rows"):
        streams.translate_many(np.zeros((3, 4), np.uint64))

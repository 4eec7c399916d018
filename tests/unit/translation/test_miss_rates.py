"""Miss rates of random accesses, and what hardware-sized TLBs hold after them."""

import math

import numpy as np
import pytest

from vmxemu.translation import bits
from vmxemu.translation.geometry import Geometry
from vmxemu.translation.library import PAGE_2M, PAGE_4K, Walker
from vmxemu.translation.tlb_layout import L1D, STLB

L1_ENTRIES, STLB_ENTRIES = 64, 1536
ARRAYS = {"l1d_4k": (L1_ENTRIES, 4), "stlb_4k": (STLB_ENTRIES, 12)}
FIRST = 1 << 32
CHUNK = 1 << 20
SKYLAKE = {
    "lru": Geometry(ARRAYS, stlb_hash_bits=7),
    "tree_plru": Geometry(ARRAYS, stlb_hash_bits=7, tree_plru=frozenset(ARRAYS)),
}
TOLERANCE = 0.05e-2


def walker_of(pages, geometry):
    """Guest pages from FIRST on, no EPT: what a TLB holds does not depend on how long its walks are."""
    walker = Walker(2 << 20, geometry)
    guest = walker.new_guest_tables()
    flags = int(bits.P | bits.RW | bits.A | bits.D)
    guest.table_bits = flags
    for start in range(0, pages * PAGE_4K, PAGE_2M):
        guest.map(FIRST + start, start, flags=flags)
        table = guest.entry_address(FIRST + start, 1)
        frames = start + np.arange(min(512, pages), dtype=np.uint64) * np.uint64(PAGE_4K)
        walker.ram[table : table + 8 * len(frames)].view(np.uint64)[:] = frames | np.uint64(flags)
    walker.use(guest)
    return walker


def translate_random(walker, pages, count, seed=0):
    chance = np.random.default_rng(seed)
    while count > 0:
        numbers = chance.integers(0, pages, min(count, CHUNK), np.uint64)
        _, outcomes = walker.translate_many(np.uint64(FIRST) + numbers * np.uint64(PAGE_4K))
        assert not outcomes.any()
        count -= CHUNK


def samples_for(rate):
    """Enough that the standard error is below a fifth of the tolerance; each look-up is an independent trial."""
    return math.ceil(rate * (1 - rate) / (TOLERANCE / 5) ** 2)


def held(walker, group):
    """Page numbers in an array of 4K pages."""
    array = walker.m.tlb.arrays[int(group) * 3]
    slots = slice(int(array.first), int(array.first) + (int(array.set_mask) + 1) * int(array.stride))
    tags, spaces = walker.m.tlb.entries.column("tag")[slots], walker.m.tlb.entries.column("space")[slots]
    return (tags[spaces != 0] >> np.uint64(12)).tolist()


@pytest.mark.parametrize("replacement", SKYLAKE)
@pytest.mark.parametrize(("pages", "expected"), [(65_536, 0.9765625), (4_096, 0.625)])
def test_uniform_random_accesses_walk_as_often_as_their_page_is_not_held(replacement, pages, expected):
    """Uniform over N pages, the next page is any of them whatever is held: it is found with probability H / N, where H
    is the number of different pages that the TLBs hold, under any replacement. H is 1,536, not 1,600: the 64 entries of
    the first level are in the second one as well. A walk fills both, and an STLB hit makes its entry the most recent one
    there, so that a page enters both at the same time; it leaves the first level after some 64 look-ups, and the second
    after 1,536. (Hits in the first level do not touch the second, so this is not inclusion by force: a page that stays in
    the first level by frequent hits would outlive its STLB entry. Here a page is asked for once in N look-ups.)

    So walks per translation are 1 - 1,536/N: 97.656% of 65,536 pages and 62.5% of 4,096. Were the levels exclusive, 1,600
    entries would make 97.559% and 60.94%. Per look-up that reaches the STLB the rate is (N - 1,536)/(N - 64), 63.49% of
    4,096 pages, because those that the first level holds do not come there.
    """
    walker = walker_of(pages, SKYLAKE[replacement])
    translate_random(walker, pages, 200_000)  # until all is full
    tlb = walker.m.tlb
    walker.reset_counters()
    count = samples_for(expected)
    begun = int(tlb.clock)
    translate_random(walker, pages, count, seed=1)
    looked_up, walks, stlb_hits = int(tlb.clock) - begun, int(tlb.walks), int(tlb.stlb_hits)
    assert looked_up == count
    assert abs(walks / looked_up - expected) < TOLERANCE
    first_level_hits = looked_up - walks - stlb_hits
    assert abs(first_level_hits / looked_up - L1_ENTRIES / pages) < TOLERANCE
    reached = (pages - STLB_ENTRIES) / (pages - L1_ENTRIES)
    assert abs(walks / (walks + stlb_hits) - reached) < TOLERANCE


@pytest.mark.parametrize("replacement", SKYLAKE)
def test_the_second_level_holds_the_first(replacement):
    """Both full of different pages; under LRU the STLB holds all that the first level does. A tree may choose a recent
    entry as its victim, but seldom does.
    """
    walker = walker_of(4_096, SKYLAKE[replacement])
    missing = 0
    for seed in range(10):
        translate_random(walker, 4_096, 50_000, seed)
        first, second = held(walker, L1D), held(walker, STLB)
        assert len(first) == len(set(first)) == L1_ENTRIES
        assert len(second) == len(set(second)) == STLB_ENTRIES
        missing += len(set(first) - set(second))
    assert missing == 0 if replacement == "lru" else missing <= 10


@pytest.mark.parametrize(("hash_bits", "sets"), [(0, 1), (7, 128)])
def test_the_index_hash_spreads_pages_128_apart(hash_bits, sets):
    """128 pages that share their low seven bits stand in one set, or with the hash in one set each."""
    walker = walker_of(128 * 128, Geometry({"stlb_4k": ARRAYS["stlb_4k"]}, stlb_hash_bits=hash_bits))
    glas = np.uint64(FIRST) + np.arange(128, dtype=np.uint64) * np.uint64(128 * PAGE_4K)
    walker.translate_many(glas)
    assert len(held(walker, STLB)) == min(128, sets * 12)


@pytest.mark.jit_off
def test_a_first_level_alone():
    """4 pages in 2 entries."""
    walker = walker_of(4, Geometry({"l1d_4k": (2, 2)}))
    translate_random(walker, 4, 300)
    walks = int(walker.m.tlb.walks)
    assert 100 < walks < 200

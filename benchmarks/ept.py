"""Rates of address translation alone: patterns of addresses x page sizes of guest and EPT, in single calls over arrays.

`run()` gives one row per case: what, ns and translations per second, references per walk, share of walks, cycles.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vmxemu.translation.batch import translate_many
from vmxemu.translation.geometry import NO_TLB, SKYLAKE_SP, Geometry
from vmxemu.translation.layout import READ
from vmxemu.translation.library import PAGE_1G, PAGE_2M, PAGE_4K, Addresses, Walker

RAM_BYTES = 256 << 20
GLA = 1 << 40
GPA = 32 << 20
PAGES = 8192
SIZES = {"4K": PAGE_4K, "2M": PAGE_2M, "1G": PAGE_1G}
PAIRS = (("4K", "4K"), ("4K", "2M"), ("2M", "2M"), ("1G", "1G"))


def walker_for(guest_size: str, ept_size: str, geometry: Geometry) -> Walker:
    """PAGES pages of 4K, or the same bytes in larger pages, under an EPT that maps all RAM 1:1, with A/D flags."""
    walker = Walker(RAM_BYTES, geometry)
    ept = walker.new_ept()
    ept.map(0, 0, SIZES[ept_size], max(1, RAM_BYTES // SIZES[ept_size]))
    guest = walker.new_guest_tables(ept)
    if guest_size == "1G":
        guest.map(GLA, 0, PAGE_1G)
    else:
        guest.map(GLA + GPA, GPA, SIZES[guest_size], PAGES * PAGE_4K // SIZES[guest_size])
    walker.use(guest, ept, accessed_dirty=True)
    return walker


def patterns(seed: int = 0) -> Iterator[tuple[str, Geometry, Addresses]]:
    """(name, TLB, page numbers)"""
    chance = np.random.default_rng(seed)
    yield "hits, first level", SKYLAKE_SP, chance.integers(0, 48, 1 << 20).astype(np.uint64)
    yield "hits, STLB", SKYLAKE_SP, chance.integers(0, 1024, 1 << 19).astype(np.uint64)
    yield "stride, all miss", SKYLAKE_SP, np.tile(np.arange(PAGES, dtype=np.uint64), 32)
    yield "uniform random", SKYLAKE_SP, chance.integers(0, PAGES, 1 << 18).astype(np.uint64)
    yield "stride, no TLB", NO_TLB, np.tile(np.arange(PAGES, dtype=np.uint64), 32)


def measure(walker: Walker, glas: Addresses, repeat: int) -> dict[str, float]:
    """The best of `repeat` runs after one that warms up."""
    hpas, outcomes = np.empty_like(glas), np.empty_like(glas)
    tlb, walk = walker.m.tlb, walker.m.walk
    access: Any = READ
    translate_many(walker.m, glas, access, hpas, outcomes)
    if outcomes.any():
        raise RuntimeError("a translation failed")
    best = float("inf")
    for _ in range(repeat):
        walker.reset_counters()
        walk.cycles_due = 0
        begun = time.perf_counter()
        translate_many(walker.m, glas, access, hpas, outcomes)
        best = min(best, time.perf_counter() - begun)
    walks = int(tlb.walks)
    return {
        "ns": best / len(glas) * 1e9,
        "rate": len(glas) / best,
        "walks": walks / len(glas),
        "references_per_walk": int(tlb.references) / walks if walks else 0.0,
        "cycles": int(walk.cycles_due) / len(glas),
    }


def run(
    pairs: tuple[tuple[str, str], ...] = PAIRS, repeat: int = 5, progress: Callable[[str], None] | None = None
) -> list[dict[str, Any]]:
    """Measure all patterns for each (guest page size, EPT page size). `progress` is told what comes next."""
    rows: list[dict[str, Any]] = []
    for guest_size, ept_size in pairs:
        for name, geometry, pages in patterns():
            if progress:
                progress(f"{guest_size} x {ept_size}: {name}")
            walker = walker_for(guest_size, ept_size, geometry)
            measured = measure(walker, np.uint64(GLA + GPA) + pages * np.uint64(PAGE_4K), repeat)
            rows.append({"pattern": name, "guest": guest_size, "ept": ept_size, **measured})
    return rows


if __name__ == "__main__":
    print(f"{'pattern':<20}{'guest':>6}{'EPT':>5}{'ns':>9}{'M/s':>9}{'walks':>8}{'refs/walk':>11}{'cycles':>9}")
    for row in run():
        print(
            f"{row['pattern']:<20}{row['guest']:>6}{row['ept']:>5}{row['ns']:>9.2f}{row['rate'] / 1e6:>9.1f}"
            f"{row['walks']:>8.3f}{row['references_per_walk']:>11.1f}{row['cycles']:>9.1f}"
        )

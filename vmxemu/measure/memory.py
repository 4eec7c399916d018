"""Tables to be walked: a footprint mapped in pages of one size, through an EPT with pages of another.

The pages of the footprint themselves are never touched. They lie at addresses beyond the memory that there is, so that
memory has to hold no more than the tables.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vmxemu.configuration.errors import InputError
from vmxemu.measure.cases import NONE, Case
from vmxemu.measure.patterns import PATTERNS, Pages
from vmxemu.translation.library import PAGE_1G, PAGE_2M, PAGE_4K, Addresses, Walker

BYTES = {"4K": PAGE_4K, "2M": PAGE_2M, "1G": PAGE_1G}
LEVEL = {PAGE_4K: 1, PAGE_2M: 2, PAGE_1G: 3}
ENTRIES = 512
GLA = 1 << 40
GPA = 1 << 42
HPA = 1 << 43
MOST_BYTES = 1 << 42  # of a footprint
MOST_TABLES = 1 << 20
SPARE_FRAMES = 64


@dataclass(frozen=True)
class Footprint:
    """A walker whose tables map the pages with the numbers `pages` (sorted, in units of `page_bytes`)."""

    walker: Walker
    pages: Pages
    page_bytes: int

    def expected(self, glas: Addresses) -> Addresses:
        """Host-physical addresses, worked out without tables."""
        size = np.uint64(self.page_bytes)
        return np.uint64(HPA) + np.searchsorted(self.pages, glas // size).astype(np.uint64) * size + glas % size


def footprint_of(case: Case, trace: Addresses | None) -> Footprint:
    """Tables for a case, in use. Raises InputError for a trace with too many pages."""
    size = BYTES[case.guest_page]
    if trace is None:
        first, count = GLA // size, -(-case.pages * PAGE_4K // size)
        pages = np.arange(first, first + count, dtype=np.uint64)
    else:
        pages = np.unique(trace // np.uint64(size))
        if len(pages) * size > MOST_BYTES or _tables(pages, LEVEL[size]) > MOST_TABLES:
            raise InputError(str(case.trace), f"touches too much: {len(pages):,} pages of {case.guest_page}")
    ept_size = None if case.ept_page == NONE else BYTES[case.ept_page]
    return Footprint(_walker(pages, size, ept_size), pages, size)


def addresses_of(case: Case, count: int, seed: Any) -> Addresses:
    """The addresses of a case that is no trace: pages as its pattern has them, 8-byte aligned places in them."""
    chance = np.random.default_rng(seed)
    pages = PATTERNS[case.pattern].order(chance, case.pages, count)
    within = chance.integers(0, PAGE_4K // 8, len(pages), np.uint64) * np.uint64(8)
    return np.uint64(GLA) + pages * np.uint64(PAGE_4K) + within


def _walker(pages: Pages, size: int, ept_size: int | None) -> Walker:
    spread = len(pages) * size
    frames = _tables(pages, LEVEL[size]) + SPARE_FRAMES
    if ept_size:
        mapped = np.arange(GPA // ept_size, -(-(GPA + spread) // ept_size), dtype=np.uint64)
        frames += _tables(mapped, LEVEL[ept_size])
        frames += frames // (ENTRIES // 2)  # in an EPT of 4-KiB pages, the tables' own frames need tables
    ram_bytes = (-(-frames * PAGE_4K // PAGE_2M) + 1) * PAGE_2M
    walker = Walker(ram_bytes)
    ept = None
    if ept_size:
        ept = walker.new_ept()
        if ept_size > PAGE_4K:  # a 4-KiB EPT maps the guest's tables as they are made
            ept.map(0, 0, ept_size, -(-ram_bytes // ept_size))
        ept.map(GPA, HPA, ept_size, len(mapped))
    guest = walker.new_guest_tables(ept)
    target = GPA if ept_size else HPA
    breaks = np.flatnonzero(np.diff(pages) != 1) + 1
    for run in np.split(pages, breaks):
        guest.map(int(run[0]) * size, target, size, len(run))
        target += len(run) * size
    walker.use(guest, ept, accessed_dirty=ept is not None)
    return walker


def _tables(pages: Pages, level: int) -> int:
    """How many tables map these pages."""
    return sum(len(np.unique(pages >> np.uint64(9 * above))) for above in range(1, 5 - level + 1))

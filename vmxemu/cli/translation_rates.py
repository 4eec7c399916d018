"""Rates of batch translation, measured without a machine. Each function returns (operations, seconds)."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from vmxemu.translation.batch import translate_many
from vmxemu.translation.invalidate import invalidate_all
from vmxemu.translation.layout import READ
from vmxemu.translation.library import PAGE_4K, Addresses, Walker

PAGES = 16384
HOT_PAGES = 32  # fit any first-level TLB
GUEST_LINEAR = 1 << 32
GUEST_PHYSICAL = 16 << 20
ROUNDS = 5


def _walker() -> Walker:
    """4-KiB pages in both dimensions."""
    walker = Walker(ram_bytes=256 << 20)
    ept = walker.new_ept()
    ept.map(GUEST_PHYSICAL, GUEST_PHYSICAL, size=PAGE_4K, count=PAGES)
    guest = walker.new_guest_tables(ept)
    guest.map(GUEST_LINEAR, GUEST_PHYSICAL, count=PAGES)
    walker.use(guest, ept)
    return walker


def cold_walks() -> tuple[int, float]:
    """Each page once, in random order, with nothing cached."""
    walker = _walker()
    order = np.random.default_rng(0).permutation(PAGES).astype(np.uint64)
    addresses = np.uint64(GUEST_LINEAR) + order * np.uint64(PAGE_4K)

    def once() -> float:
        invalidate_all(walker.m)
        return _timed(walker, addresses)

    return PAGES, _best(once)


def tlb_hits() -> tuple[int, float]:
    """A few pages again and again."""
    walker = _walker()
    addresses = np.tile(np.uint64(GUEST_LINEAR) + np.arange(HOT_PAGES, dtype=np.uint64) * np.uint64(PAGE_4K), 1 << 13)
    return len(addresses), _best(lambda: _timed(walker, addresses))


def _timed(walker: Walker, addresses: Addresses) -> float:
    hpas, outcomes = np.ones_like(addresses), np.ones_like(addresses)
    begun = time.perf_counter()
    access: Any = READ
    translate_many(walker.m, addresses, access, hpas, outcomes)
    seconds = time.perf_counter() - begun
    if outcomes.any():
        raise RuntimeError("a translation failed")
    return seconds


def _best(once: Callable[[], float]) -> float:
    once()  # compiles, and touches the memory
    return min(once() for _ in range(ROUNDS))

"""Patterns of addresses: which page of a footprint is touched when.

A pattern gives page numbers; where in its page an address lies is drawn apart. A recorded trace of addresses is no
pattern of these: it brings its own pages (address_trace).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Pages = np.ndarray[Any, np.dtype[np.uint64]]
HOT_PAGES = 32  # fit any first-level TLB
ZIPF_EXPONENT = 0.99  # as in the YCSB benchmark: the k-th most popular page is touched 1 / k**0.99 as often as the first
TRACE = "trace"


@dataclass(frozen=True, slots=True)
class Pattern:
    """`order(chance, pages, count)`: `count` numbers below `pages`.

    `dependent`: each address depends on the result before it. `cold`: caches are emptied before the first address, and
    no page comes twice, so that `order` may give fewer numbers than it was asked for.
    """

    description: str
    order: Callable[[np.random.Generator, int, int], Pages]
    dependent: bool = False
    cold: bool = False


def _hit(chance: np.random.Generator, pages: int, count: int) -> Pages:
    return chance.integers(0, min(pages, HOT_PAGES), count, np.uint64)


def _stride(_chance: np.random.Generator, pages: int, count: int) -> Pages:
    return np.resize(np.arange(pages, dtype=np.uint64), count)


def _uniform(chance: np.random.Generator, pages: int, count: int) -> Pages:
    return chance.integers(0, pages, count, np.uint64)


def _zipf(chance: np.random.Generator, pages: int, count: int) -> Pages:
    weights = np.arange(1, pages + 1, dtype=np.float64) ** -ZIPF_EXPONENT
    reached = np.cumsum(weights)
    ranks = np.searchsorted(reached, chance.random(count) * reached[-1], side="right")
    places = _shuffled(chance, pages)  # popular pages lie anywhere
    found: Pages = places[np.minimum(ranks, pages - 1)]
    return found


def _laps(chance: np.random.Generator, pages: int, count: int) -> Pages:
    """One random cycle through all pages, as often as it takes: the permutation page -> next page is cyclic."""
    return np.resize(_shuffled(chance, pages), count)


def _once(chance: np.random.Generator, pages: int, count: int) -> Pages:
    return _shuffled(chance, pages)[:count]


def _shuffled(chance: np.random.Generator, pages: int) -> Pages:
    return chance.permutation(pages).astype(np.uint64)


PATTERNS = {
    "hit": Pattern(f"random among {HOT_PAGES} pages, which the first-level TLB holds", _hit),
    "stride": Pattern("page after page, in laps", _stride),
    "uniform": Pattern("random, all pages alike", _uniform),
    "zipf": Pattern("random, few pages popular", _zipf),
    "chase": Pattern("pointer chase: a random cycle, each address depends on the result before", _laps, dependent=True),
    "cold": Pattern("each page once, in random order, caches empty at the start", _once, cold=True),
}

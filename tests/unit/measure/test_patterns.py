"""What each pattern promises of its page numbers."""

import numpy as np
import pytest

from vmxemu.measure.patterns import HOT_PAGES, PATTERNS, ZIPF_EXPONENT, Pages

PAGES, COUNT = 1000, 50_000


def order(name: str, pages: int = PAGES, count: int = COUNT, seed: int = 1) -> Pages:
    return PATTERNS[name].order(np.random.default_rng(seed), pages, count)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize(("pages", "count"), [(1, 1), (1, 7), (5, 3), (PAGES, COUNT)])
def test_numbers_are_in_the_footprint_and_repeatable(name: str, pages: int, count: int) -> None:
    found = order(name, pages, count)
    assert found.dtype == np.uint64 and found.max() < pages
    assert len(found) == (min(pages, count) if PATTERNS[name].cold else count)
    assert (found == order(name, pages, count)).all()


def test_hits_are_few_pages() -> None:
    assert len(np.unique(order("hit"))) == HOT_PAGES
    assert len(np.unique(order("hit", pages=3))) == 3


def test_stride_goes_through_all_pages_in_turn() -> None:
    assert (np.diff(order("stride").astype(np.int64)) % PAGES == 1).all()


def test_uniform_touches_all_pages_alike() -> None:
    counts = np.bincount(order("uniform").astype(np.int64), minlength=PAGES)
    expected = COUNT / PAGES
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < PAGES + 5 * np.sqrt(2 * PAGES)


def test_zipf_has_the_shares_of_its_law() -> None:
    counts = np.sort(np.bincount(order("zipf").astype(np.int64), minlength=PAGES))[::-1] / COUNT
    weights = np.arange(1, PAGES + 1) ** -ZIPF_EXPONENT
    shares = weights / weights.sum()
    assert counts[:10] == pytest.approx(shares[:10], rel=0.1)
    assert counts[:100].sum() == pytest.approx(shares[:100].sum(), rel=0.03)
    popular = np.argsort(np.bincount(order("zipf").astype(np.int64), minlength=PAGES))[::-1][:5]
    assert sorted(popular) != list(range(5))  # they lie anywhere


def test_chase_is_one_cycle_through_all_pages() -> None:
    found = order("chase", count=3 * PAGES).astype(np.int64)
    following = dict(zip(found[:-1].tolist(), found[1:].tolist(), strict=True))
    assert len(following) == PAGES and set(following.values()) == set(range(PAGES))
    assert (found[:-PAGES] == found[PAGES:]).all() and len(set(found[:PAGES].tolist())) == PAGES
    assert (np.diff(found) != 1).mean() > 0.9  # in random order


def test_cold_touches_no_page_twice() -> None:
    assert sorted(order("cold").tolist()) == list(range(PAGES))


def test_which_depend_and_which_are_cold() -> None:
    assert [name for name, pattern in PATTERNS.items() if pattern.dependent] == ["chase"]
    assert [name for name, pattern in PATTERNS.items() if pattern.cold] == ["cold"]

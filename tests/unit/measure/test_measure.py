"""Cases measured in small: results, statistics, and agreement with the twin in C in every case."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from vmxemu.configuration.errors import InputError
from vmxemu.measure.cases import NONE, Case
from vmxemu.measure.measure import Bench, Row
from vmxemu.measure.patterns import PATTERNS, TRACE
from vmxemu.measure.twin import Twin

SMALL = Case("uniform", pages=3000, count=3000)


@pytest.fixture(scope="module")
def twin() -> Twin:
    found = Twin.compiled()
    if found is None:
        pytest.skip("no C compiler")
    return found


@pytest.fixture(scope="module")
def bench(twin: Twin) -> Bench:
    return Bench(twin, seconds=0.0)


def measured(bench: Bench, case: Case = SMALL, **changes: object) -> Row:
    """The bench itself checks results, and results and counts of the twin."""
    row = bench.measure(dataclasses.replace(case, **changes))  # type: ignore[arg-type]
    assert row.ns > 0 and row.rate == 1e9 / row.ns
    if row.case.streams == 1:
        assert row.twin_ns is not None and row.twin_ratio == row.ns / row.twin_ns
    return row


@pytest.mark.parametrize("cycles", [True, False])
@pytest.mark.parametrize("walk_caches", [True, False])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_and_caches(bench: Bench, pattern: str, walk_caches: bool, cycles: bool) -> None:
    row = measured(bench, pattern=pattern, walk_caches=walk_caches, cycles=cycles)
    assert row.translations == 3000 and (row.cycles_per_translation is not None) == cycles
    if pattern == "hit":
        assert (row.l1_miss_rate, row.stlb_miss_rate, row.references_per_walk) == (0, 0, None)
    elif not walk_caches:
        assert row.references_per_walk in (24, None)


@pytest.mark.parametrize("access", ["read", "write", "fetch"])
@pytest.mark.parametrize("ept_page", ["4K", "2M", "1G", NONE])
@pytest.mark.parametrize("guest_page", ["4K", "2M", "1G"])
def test_page_sizes(bench: Bench, guest_page: str, ept_page: str, access: str) -> None:
    changes = {"guest_page": guest_page, "ept_page": ept_page, "access": access, "pattern": "cold"}
    row = measured(bench, walk_caches=False, cycles=False, **changes)
    levels = {"4K": 4, "2M": 3, "1G": 2, NONE: 0}
    assert row.references_per_walk == (levels[guest_page] + 1) * (levels[ept_page] + 1) - 1


@pytest.mark.parametrize("cpu", ["skylake-sp", "icelake-sp", "zen4-like", "ideal", NONE])
def test_profiles(bench: Bench, cpu: str) -> None:
    row = measured(bench, cpu=cpu, pattern="zipf")
    assert (row.l1_miss_rate is None) == (cpu == NONE)


def test_statistics_of_a_uniform_pattern(bench: Bench) -> None:
    row = measured(bench, cpu="ideal", pages=16384, count=200_000, walk_caches=False, cycles=False)
    assert row.stlb_miss_rate == pytest.approx(1 - 4096 / 16384, abs=0.005)


@pytest.mark.parametrize("pattern", ["uniform", "chase", "cold"])
def test_streams(bench: Bench, pattern: str) -> None:
    row = measured(bench, pattern=pattern, streams=3)
    assert row.translations == 9000 and row.twin_ns is None
    assert row.one_core_ns and row.speedup == row.one_core_ns / row.ns


def test_a_trace_brings_its_pages(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    chance = np.random.default_rng(2)
    addresses = chance.integers(0, 1 << 47, 500, np.uint64)
    addresses[::2] |= np.uint64(0xFFFF_8000_0000_0000)
    np.save(path, np.concatenate([addresses, addresses[::-1]]))
    case = Case(TRACE, pages=0, trace=path)
    for guest_page in ("4K", "2M"):
        assert measured(bench, case, guest_page=guest_page, walk_caches=False).translations == 1000
    assert measured(bench, case, count=10).translations == 10
    assert measured(bench, case, streams=2).translations == 2000


def test_a_trace_that_touches_too_much(bench: Bench, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(1 << 13, dtype=np.uint64) << np.uint64(30))
    with pytest.raises(InputError, match="touches too much: 8,192 pages of 1G"):
        bench.measure(Case(TRACE, pages=0, guest_page="1G", trace=tmp_path / "a.npy"))


def test_a_wrong_twin_is_noticed(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    translate = twin.translate

    def wrong(glas: object, case: Case) -> object:
        found = translate(glas, case)  # type: ignore[arg-type]
        return dataclasses.replace(found, counted=(1, *found.counted[1:]))

    monkeypatch.setattr(twin, "translate", wrong)
    with pytest.raises(RuntimeError, match="the C twin counts differently"):
        Bench(twin, seconds=0.0).measure(SMALL)


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert Twin.compiled() is None
    monkeypatch.setenv("CC", "false")
    assert Twin.compiled() is None
    row = Bench(None, seconds=0.0).measure(SMALL)
    assert row.twin_ns is None and row.twin_ratio is None

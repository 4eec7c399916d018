"""The speed goals of address translation: rows of benchmarks/rates.toml, and how each is measured."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from vmxemu.configuration.rates import Rate, rates
from vmxemu.measure.cases import Case
from vmxemu.measure.host import cores
from vmxemu.measure.measure import Bench, Row

# Tables of 16,384 4-KiB pages are 256 KiB, guest's and EPT together; 1,024 pages fit an STLB and leave little to the L1.
COLD_PAGES, STLB_PAGES = 1 << 14, 1 << 10


@dataclass(frozen=True, slots=True)
class Way:
    """How a goal is measured: a case, and the figure of its row."""

    case: Case
    figure: Callable[[Row], float | None]


def _ns(row: Row) -> float:
    return row.ns


COLD = Case("cold", COLD_PAGES, walk_caches=False, cycles=False)
WAYS = {
    "l1_hit": Way(Case("hit", walk_caches=False, cycles=False), _ns),
    "stlb_hit": Way(Case("uniform", STLB_PAGES, walk_caches=False, cycles=False), _ns),
    "cold_walk": Way(COLD, _ns),
    "cold_walk_to_twin": Way(COLD, lambda row: row.twin_ratio),
    "cached_walks": Way(Case("uniform"), lambda row: row.rate),
    "two_cores": Way(Case("uniform", streams=2), lambda row: row.speedup),
}


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal and what was found; `value` None: it could not be measured, `why` says why."""

    rate: Rate
    value: float | None
    row: Row | None
    why: str = ""

    @property
    def share(self) -> float | None:
        """How much of the target is reached."""
        return None if self.value is None else self.rate.share(self.value)

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        share = self.share
        found = {name: getattr(self.rate, name) for name in ("name", "phase", "unit", "target", "at_most")}
        found |= {"value": self.value, "met": None if share is None else share >= 1, "why": self.why}
        return found | {"twin_ns": self.row.twin_ns if self.row else None}


def goals(bench: Bench) -> Iterator[Callable[[], Goal]]:
    """One call for each goal."""
    seen: dict[Case, Row] = {}
    for rate in rates("ept"):
        yield partial(_measured, bench, rate, seen)


def _measured(bench: Bench, rate: Rate, seen: dict[Case, Row]) -> Goal:
    way = WAYS[rate.phase]
    if way.case.streams > cores():
        return Goal(rate, None, None, f"needs {way.case.streams} cores")
    if way.case not in seen:
        seen[way.case] = bench.measure(way.case)
    row = seen[way.case]
    value = way.figure(row)
    return Goal(rate, value, row, "" if value is not None else "no C compiler")

"""One case measured: the time of a translation, what the modelled caches did, and the twin in C beside it."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vmxemu.measure.address_trace import read_trace
from vmxemu.measure.caches import install_caches
from vmxemu.measure.cases import ACCESSES, NONE, USUAL_COUNT, Case
from vmxemu.measure.chase import chase, chase_streams
from vmxemu.measure.counters import Counters
from vmxemu.measure.memory import Footprint, addresses_of, footprint_of
from vmxemu.measure.rounds import ROUND_SECONDS, Round, best_times, processor_seconds, seconds
from vmxemu.measure.twin import COUNTED, Twin
from vmxemu.translation.batch import translate_many
from vmxemu.translation.invalidate import invalidate_all
from vmxemu.translation.library import PAGE_4K, Addresses
from vmxemu.translation.streams import Streams, translate_streams

PATIENCE = 5


@dataclass(frozen=True, slots=True)
class Row:
    """What was found. Rates of misses are shares of all translations; None: not measured or of no meaning."""

    case: Case
    translations: int
    ns: float
    references_per_walk: float | None
    l1_miss_rate: float | None
    stlb_miss_rate: float | None
    cycles_per_translation: float | None
    twin_ns: float | None
    one_core_ns: float | None  # the same streams, one after the other

    @property
    def rate(self) -> float:
        """Translations a second."""
        return 1e9 / self.ns

    @property
    def twin_ratio(self) -> float | None:
        """Our time in units of the twin's."""
        return None if self.twin_ns is None else self.ns / self.twin_ns

    @property
    def speedup(self) -> float | None:
        """What several cores bring."""
        return None if self.one_core_ns is None else self.one_core_ns / self.ns

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        case = asdict(self.case)
        case["trace"] = str(self.case.trace) if self.case.trace else None
        own = {name: getattr(self, name) for name in self.__slots__ if name != "case"}
        return case | own | {"rate": self.rate, "twin_ratio": self.twin_ratio, "speedup": self.speedup}


class Bench:
    """Measures cases; tables are kept from one case to the next. `check` is called between rounds and may raise."""

    def __init__(self, twin: Twin | None, check: Callable[[], None] = lambda: None, seconds: float = ROUND_SECONDS) -> None:
        self._twin, self._check, self._seconds = twin, check, seconds
        self._footprints: dict[tuple[object, ...], Footprint] = {}
        self._traces: dict[Path, Addresses] = {}

    def read_traces(self, cases: Iterable[Case]) -> None:
        """Read all traces now. Raises InputError for one that cannot be used."""
        for case in cases:
            if case.trace:
                self._trace(case.trace)

    def measure(self, case: Case) -> Row:
        """Raises InputError for a trace that touches too much."""
        trace = self._trace(case.trace) if case.trace else None
        footprint = self._footprint(case, trace)
        glas = _streams_of(case, trace)
        if trace is not None:
            case = replace(case, pages=len(footprint.pages) * footprint.page_bytes // PAGE_4K)
        return _Run(case, footprint, glas, self._twin).row(self._seconds, self._check)

    def _trace(self, path: Path) -> Addresses:
        if path not in self._traces:
            self._traces[path] = read_trace(path)
        return self._traces[path]

    def _footprint(self, case: Case, trace: Addresses | None) -> Footprint:
        key = (case.pages, case.guest_page, case.ept_page, case.trace)
        if key not in self._footprints:
            self._footprints = {key: footprint_of(case, trace)}  # one at a time: they are large
        return self._footprints[key]


def _streams_of(case: Case, trace: Addresses | None) -> Addresses:
    """One row of addresses for each stream. The streams of a trace are all the same."""
    if trace is not None:
        return np.tile(trace[: case.count], (case.streams, 1))
    count = case.count or USUAL_COUNT
    return np.stack([addresses_of(case, count, (case.seed, stream)) for stream in range(case.streams)])


class _Run:
    """One case under way."""

    def __init__(self, case: Case, footprint: Footprint, glas: Addresses, twin: Twin | None) -> None:
        self.case, self.footprint, self.glas = case, footprint, glas
        self.access = ACCESSES.index(case.access)
        self.hpas, self.outcomes = np.zeros_like(glas), np.zeros_like(glas)
        self.twin = twin if case.streams == 1 else None
        # Accessed and dirty flags are set before: streams share the tables, and the twin sets none.
        m = footprint.walker.m
        self.kept = install_caches(m, case)
        for row in glas:
            translate_many(m, row, self.access, self.hpas[0], self.outcomes[0])
        self.kept = install_caches(m, case)
        self.streams = Streams(footprint.walker, case.streams) if case.streams > 1 else None
        self.states = self.streams.states if self.streams else [m]
        self.counted = Counters.of(self.states)

    def row(self, least_seconds: float, check: Callable[[], None]) -> Row:
        ways: list[Round] = [self._ours]
        if self.streams:
            ways.append(self._one_core)
        if self.twin:
            self.twin.use(self.states[0])
            ways.append(self._theirs)
        # Streams are timed by the clock: it takes patience until all cores are free for the length of a round.
        best = best_times(ways, least_seconds * (PATIENCE if self.streams else 1), check)
        self._verify()
        count, c, cached = self.glas.size, self.counted, self.case.cpu != NONE
        ns = [one * 1e9 / count for one in best]
        return Row(
            self.case,
            count,
            ns[0],
            c.references / c.walks if c.walks else None,
            (c.stlb_hits + c.walks) / count if cached else None,
            c.walks / count if cached else None,
            c.cycles / count if self.case.cycles else None,
            ns[-1] if self.twin else None,
            ns[1] if self.streams else None,
        )

    def _ours(self) -> float:
        return self._counted(seconds, self._parallel) if self.streams else self._counted(processor_seconds, self._single)

    def _one_core(self) -> float:
        return self._counted(seconds, self._in_turn)

    def _counted(self, clock: Callable[[Callable[[], object]], float], work: Callable[[], object]) -> float:
        if self.case.cold:
            for m in self.states:
                invalidate_all(m)
        before = Counters.of(self.states)
        took = clock(work)
        self.counted = Counters.of(self.states).since(before)
        return took

    def _single(self) -> None:
        translate = chase if self.case.dependent else translate_many
        translate(self.states[0], self.glas[0], self.access, self.hpas[0], self.outcomes[0])

    def _parallel(self, cores: int | None = None) -> None:
        assert self.streams
        kernel = chase_streams if self.case.dependent else translate_streams
        self.streams.translate_into(self.glas, self.access, self.hpas, self.outcomes, cores, kernel)

    def _in_turn(self) -> None:
        self._parallel(1)

    def _theirs(self) -> float:
        assert self.twin
        found = self.twin.translate(self.glas[0], self.case)
        if (found.hpas != self.hpas[0]).any():
            raise RuntimeError(f"the C twin translates differently: {self.case.label}")
        if found.counted != tuple(getattr(self.counted, name) for name in COUNTED):
            raise RuntimeError(f"the C twin counts differently: {self.case.label}: {found.counted}, {self.counted}")
        return found.seconds

    def _verify(self) -> None:
        if self.outcomes.any() or (self.hpas != self.footprint.expected(self.glas)).any():
            raise RuntimeError(f"a translation failed: {self.case.label}")

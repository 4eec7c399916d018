"""What can be measured: a pattern over a footprint, in pages of one size through EPT pages of another, with caches."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vmxemu.measure.patterns import PATTERNS, TRACE

NONE = "none"
SIZES = ("4K", "2M", "1G")
ACCESSES = ("read", "write", "fetch")
USUAL_CPU = "skylake-sp"
USUAL_PAGES = 65536
USUAL_COUNT = 1 << 16
MOST_PAGES = 1 << 22


@dataclass(frozen=True, slots=True)
class Case:
    """One row. `pages` is the footprint in 4-KiB pages, whatever the page sizes; a trace brings its own footprint.

    `cpu` gives the geometry of the TLB, of the walk caches and the costs; "none" has none of them.
    """

    pattern: str
    pages: int = USUAL_PAGES
    guest_page: str = "4K"
    ept_page: str = "4K"
    cpu: str = USUAL_CPU
    walk_caches: bool = True
    cycles: bool = True
    access: str = "read"
    count: int | None = None
    seed: int = 0
    streams: int = 1
    trace: Path | None = None

    @property
    def dependent(self) -> bool:
        """Whether each address depends on the result before it."""
        return self.pattern != TRACE and PATTERNS[self.pattern].dependent

    @property
    def cold(self) -> bool:
        """Whether caches are emptied before the first address."""
        return self.pattern != TRACE and PATTERNS[self.pattern].cold

    @property
    def sizes(self) -> str:
        """Guest page x EPT page."""
        return f"{self.guest_page} x {self.ept_page}"

    @property
    def caches(self) -> str:
        """The cache configuration in words."""
        if self.cpu == NONE:
            return NONE
        parts = [self.cpu, "" if self.walk_caches else "no walk caches", "" if self.cycles else "no cycles"]
        return ", ".join(part for part in parts if part)

    @property
    def label(self) -> str:
        """The case in one line."""
        streams = f", {self.streams} streams" if self.streams > 1 else ""
        footprint = self.trace.name if self.trace else f"{self.pages:,} pages"
        return f"{self.pattern}, {footprint}, {self.sizes}, {self.caches}{streams}"


@dataclass(frozen=True, slots=True)
class Selection:
    """What the user asks for; an empty choice leaves the usual value. All combinations are measured."""

    patterns: Sequence[str] = ()
    traces: Sequence[Path] = ()
    pages: Sequence[int] = ()
    guest_pages: Sequence[str] = ()
    ept_pages: Sequence[str] = ()
    cpus: Sequence[str] = ()
    walk_caches: Sequence[bool] = ()
    cycles: Sequence[bool] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing was asked for."""
        return not any(getattr(self, name) for name in self.__slots__)

    def cases(self, template: Case) -> list[Case]:
        """The combinations; the rest is as in the template."""
        patterns = list(self.patterns) or ([] if self.traces else list(PATTERNS))
        sizes = itertools.product(self.guest_pages or ("4K",), self.ept_pages or ("4K",))
        caches = itertools.product(self.cpus or (USUAL_CPU,), self.walk_caches or (True,), self.cycles or (True,))
        made = []
        for (guest, ept), cpu_caches in itertools.product(sizes, list(caches)):
            cpu, walk_caches, cycles = cpu_caches if cpu_caches[0] != NONE else (NONE, False, False)
            changes = {"guest_page": guest, "ept_page": ept, "cpu": cpu, "walk_caches": walk_caches, "cycles": cycles}
            for pages, pattern in itertools.product(self.pages or (USUAL_PAGES,), patterns):
                made.append(_with(template, changes | {"pattern": pattern, "pages": pages}))
            made += [_with(template, changes | {"pattern": TRACE, "pages": 0, "trace": path}) for path in self.traces]
        return list(dict.fromkeys(made))


def usual_cases(template: Case) -> list[Case]:
    """What is measured where nothing is asked for: each dimension once, from one case in the middle."""
    changes: list[dict[str, object]] = [{"pattern": pattern} for pattern in PATTERNS]
    changes += [
        {"pattern": "uniform", "pages": 4096},
        {"pattern": "uniform", "cycles": False},
        {"pattern": "uniform", "walk_caches": False, "cycles": False},
        {"pattern": "uniform", "ept_page": "2M"},
        {"pattern": "uniform", "guest_page": "2M", "ept_page": "2M"},
        {"pattern": "uniform", "guest_page": "1G", "ept_page": "1G"},
        {"pattern": "uniform", "ept_page": NONE},
        {"pattern": "uniform", "cpu": "icelake-sp"},
        {"pattern": "uniform", "cpu": "zen4-like"},
        {"pattern": "uniform", "cpu": "ideal"},
        {"pattern": "uniform", "cpu": NONE, "walk_caches": False, "cycles": False},
    ]
    return [_with(template, change) for change in changes]


def _with(template: Case, changes: dict[str, object]) -> Case:
    return replace(template, **changes)  # type: ignore[arg-type]

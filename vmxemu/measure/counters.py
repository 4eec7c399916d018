"""What the modelled hardware has counted."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Counters:
    """Sums over some processors."""

    stlb_hits: int
    walks: int
    references: int
    cycles: int
    table_hits: int  # of paging-structure caches
    ept_table_hits: int
    nested_hits: int

    @classmethod
    def of(cls, states: Iterable[Any]) -> "Counters":
        """What stands in the records now."""
        rows = [_counted(m) for m in states]
        return cls(*(sum(column) for column in zip(*rows, strict=True)))

    def since(self, earlier: "Counters") -> "Counters":
        """What came after `earlier`."""
        return Counters(*(getattr(self, name) - getattr(earlier, name) for name in self.__slots__))


def _counted(m: Any) -> tuple[int, ...]:
    tlb = m.tlb
    table_hits, ept_table_hits = tlb.table_hits.numpy.sum(), tlb.ept_table_hits.numpy.sum()
    numbers = (tlb.stlb_hits, tlb.walks, tlb.references, m.walk.cycles_due, table_hits, ept_table_hits, tlb.nested_hits)
    return tuple(int(number) for number in numbers)

"""What the modelled hardware has counted."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Counters:
    """Sums over some processors."""

    lookups: int
    stlb_hits: int
    walks: int
    references: int
    cycles: int

    @classmethod
    def of(cls, states: Iterable[Any]) -> "Counters":
        """What stands in the records now."""
        rows = [
            (m.tlb.clock, m.tlb.stlb_hits, m.tlb.walks, m.tlb.references, m.walk.cycles_due) for m in states
        ]
        return cls(*(sum(int(number) for number in column) for column in zip(*rows, strict=True)))

    def since(self, earlier: "Counters") -> "Counters":
        """What came after `earlier`."""
        return Counters(*(getattr(self, name) - getattr(earlier, name) for name in self.__slots__))

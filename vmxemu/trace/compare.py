"""The first difference between two streams of events."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from vmxemu.trace.schema import COLUMNS, Events, empty

CONTEXT_EVENTS = 5


@dataclass(frozen=True)
class Divergence:
    """The first event that differs: its index, both sides (None = that side has ended), the equal events before it."""

    index: int
    left: np.void | None
    right: np.void | None
    before: list[np.void]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that differ."""
        if self.left is None or self.right is None:
            return ()
        return tuple(name for name in COLUMNS if self.left[name] != self.right[name])


@dataclass
class Comparison:
    """Compares a stream that is read (left) with one that is pushed (right), holding one batch of each at most."""

    left: Iterator[Events]
    index: int = 0
    divergence: Divergence | None = None
    _rest: Events = field(default_factory=empty)
    _before: deque[np.void] = field(default_factory=lambda: deque(maxlen=CONTEXT_EVENTS))

    def __post_init__(self) -> None:
        self.left = (batch for batch in self.left if len(batch))

    def push(self, right: Events) -> bool:
        """Compare the next events of the right side; False once a difference has been found."""
        while self.divergence is None and len(right):
            if not len(self._rest):
                self._rest = next(self.left, empty())
            if not len(self._rest):
                self.divergence = Divergence(self.index, None, right[0].copy(), list(self._before))
                return False
            size = min(len(self._rest), len(right))
            self._compare(self._rest[:size], right[:size])
            self._rest, right = self._rest[size:], right[size:]
        return self.divergence is None

    def _compare(self, left: Events, right: Events) -> None:
        unequal = np.zeros(len(left), bool)
        for name in COLUMNS:
            unequal |= left[name] != right[name]
        first = int(np.argmax(unequal)) if unequal.any() else len(left)
        self._before.extend(event.copy() for event in left[max(0, first - CONTEXT_EVENTS) : first])
        if first < len(left):
            self.divergence = Divergence(
                self.index + first, left[first].copy(), right[first].copy(), list(self._before)
            )
        self.index += first

    def finish(self) -> Divergence | None:
        """The right side has ended: whatever the left side still has is a difference."""
        if self.divergence is None:
            rest = self._rest if len(self._rest) else next(self.left, empty())
            if len(rest):
                self.divergence = Divergence(self.index, rest[0].copy(), None, list(self._before))
        return self.divergence


def first_divergence(left: Iterable[Events], right: Iterable[Events]) -> Divergence | None:
    """The first difference of two streams, None if they are equal."""
    comparison = Comparison(iter(left))
    for batch in right:
        if not comparison.push(batch):
            break
    return comparison.finish()

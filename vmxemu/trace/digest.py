"""What a stream of events amounts to: exits by reason, decisions, migrations, phases. Fed batch by batch."""

from collections import Counter
from typing import Any

import numpy as np

from vmxemu.trace import events as known
from vmxemu.trace.names import exit_name, fields_of, kind_name, level_name, reason_name
from vmxemu.trace.schema import Events

Row = dict[str, Any]
RECORDS_KEPT = 1_000_000  # of each list; a storm must not eat the host's memory


class Digest:
    """Running totals and lists. `rules` are the policy's rule names, in order."""

    def __init__(self, rules: tuple[str, ...] = ()) -> None:
        self._rules = rules
        self._kinds: Counter[tuple[int, int]] = Counter()
        self._exits: Counter[tuple[int, int]] = Counter()
        self._lists: dict[str, list[Row]] = {name: [] for name in LISTS.values()}
        self.events = 0
        self.first_cycle: int | None = None
        self.last_cycle = 0

    def add(self, events: Events) -> None:
        """Take more events into account."""
        if not len(events):
            return
        if self.first_cycle is None:
            self.first_cycle = int(events["cycle"][0])
        self.last_cycle = int(events["cycle"][-1])
        self.events += len(events)
        kinds = events["kind"]
        _count(self._kinds, events["level"], kinds)
        exits = events[kinds == known.VM_EXIT]
        _count(self._exits, exits["level"], exits["reason"])
        for event in events[np.isin(kinds, LISTED)]:
            rows = self._lists[LISTS[int(event["kind"])]]
            if len(rows) < RECORDS_KEPT:
                rows.append(self._row(event))

    def _row(self, event: np.void) -> Row:
        kind = known.BY_NUMBER[int(event["kind"])]
        row: Row = {"cycle": int(event["cycle"]), "at_level": level_name(int(event["level"])), "rip": int(event["rip"])}
        words = fields_of(event, self._rules)
        if kind.reason:
            name = RENAMED.get(kind.reason, kind.reason)
            row[name] = reason_name(kind.number, int(event["reason"]), self._rules)
            if name == "status":
                row[name] = int(event["reason"])
        for letter in "abcd":
            if field := getattr(kind, letter):
                row[RENAMED.get(field, field)] = words[field] if field in IN_WORDS else int(event[letter])
        return row

    def kinds(self) -> dict[str, dict[str, int]]:
        """Events by level and kind."""
        return _nested(self._kinds, kind_name)

    def exits_by_reason(self) -> dict[str, dict[str, int]]:
        """VM exits by level ("L1", "L2") and reason, the most frequent first."""
        return _nested(self._exits, exit_name)

    def summary(self) -> dict[str, Any]:
        """Everything as a JSON-able dict: exits_by_reason, and the lists that LISTS names."""
        return {"exits_by_reason": self.exits_by_reason(), **{name: list(rows) for name, rows in self._lists.items()}}


LISTS: dict[int, str] = {
    int(known.PHASE): "phases",
    int(known.ARRIVAL): "management",
    int(known.DECISION): "decisions",
    int(known.DELIVERY): "deliveries",
    int(known.MIGRATION): "migrations",
    int(known.REFUSED): "refusals",
    int(known.BYPASS): "bypasses",
    int(known.INJECT): "injections",
}
LISTED = np.array(list(LISTS), np.uint16)
RENAMED = {"management_kind": "kind", "inject_kind": "kind", "phase": "name"}
IN_WORDS = frozenset(("management_kind", "inject_kind", "owner", "action", "level"))


def _count(into: Counter[tuple[int, int]], levels: Any, values: Any) -> None:
    keys, counts = np.unique(levels.astype(np.uint64) << np.uint64(32) | values.astype(np.uint64), return_counts=True)
    for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
        into[key >> 32, key & 0xFFFFFFFF] += count


def _nested(counts: Counter[tuple[int, int]], name: Any) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = {}
    for (level, value), count in sorted(counts.items(), key=lambda item: (item[0][0], -item[1], item[0][1])):
        nested.setdefault(level_name(level), {})[name(value)] = count
    return nested

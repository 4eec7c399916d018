"""Phases and management interrupts against virtual time, as bars."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from vmxemu.presentation.tables import seconds, table

COLUMNS = 60
MARKS = " .:+*#@"  # how many in one column: none, 1, up to 3, 10, 30, 100, more
STEPS = (0, 1, 3, 10, 30, 100)

Record = Mapping[str, Any]


def timeline(phases: Sequence[Record], management: Sequence[Record], last_cycle: int, hertz: int) -> Table | None:
    """One row for each phase (from its beginning to the next) and for each kind of management interrupt."""
    if not phases and not management:
        return None
    end = max([last_cycle, 1, *(int(record["cycle"]) for record in (*phases, *management))])
    rows = [*_phases(phases, end, hertz), *_kinds(management, end, hertz)]
    title = f"Timeline (0 to {seconds(end / hertz)} of virtual time)"
    return table(title, ("from", "", "what", "count"), rows, ("from", "count"))


def _phases(phases: Sequence[Record], end: int, hertz: int) -> list[tuple[object, ...]]:
    starts = [int(record["cycle"]) for record in phases]
    rows: list[tuple[object, ...]] = []
    for index, record in enumerate(phases):
        first = _column(starts[index], end)
        last = _column(starts[index + 1], end) if index + 1 < len(starts) else COLUMNS
        bar = " " * first + "━" * max(last - first, 1)
        rows.append((seconds(starts[index] / hertz), bar[:COLUMNS].ljust(COLUMNS), record.get("name", "?"), ""))
    return rows


def _kinds(management: Sequence[Record], end: int, hertz: int) -> list[tuple[object, ...]]:
    cycles: dict[str, list[int]] = {}
    for record in management:
        cycles.setdefault(str(record.get("kind", "?")), []).append(int(record["cycle"]))
    return [(seconds(min(when) / hertz), _marks(when, end), kind, f"{len(when):,}") for kind, when in cycles.items()]


def _marks(cycles: list[int], end: int) -> str:
    counts = [0] * COLUMNS
    for cycle in cycles:
        counts[_column(cycle, end)] += 1
    return "".join(MARKS[sum(count > step for step in STEPS)] for count in counts)


def _column(cycle: int, end: int) -> int:
    return min(cycle * COLUMNS // end, COLUMNS - 1)

"""Tables of measured rates."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from vmxemu.presentation.tables import plain, seconds, si, table

Facts = Mapping[str, Any]
GUEST_COLUMNS = ("what", "rate", "unit", "target", "of target", "operations", "time")
GOAL_COLUMNS = ("speed goal", "measured", "target", "reached", "C twin")
ROW_COLUMNS = (
    *("pattern", "pages", "guest x EPT", "caches", "with", "ns", "transl./s", "refs/walk", "L1 miss", "STLB miss"),
    *("cycles", "C twin ns", "x twin"),
)
STREAM_COLUMNS = ("streams", "one core ns", "speed-up")
THEN_COLUMNS = ("ns then", "now/then")
TEXT_COLUMNS = ("pattern", "guest x EPT", "caches", "with", "what", "unit", "speed goal", "reached")


def guest_table(rows: Sequence[Facts]) -> Table:
    """Rates of guest code and VM exits."""
    return _table("", GUEST_COLUMNS, [_guest_cells(row) for row in rows])


def _guest_cells(row: Facts) -> tuple[str, ...]:
    target = row["target"]
    share, goal = (f"{row['rate'] / target:.0%}", f">= {si(target)}") if target else ("", "")
    return (row["name"], si(row["rate"]), row["unit"], goal, share, f"{row['ops']:,}", seconds(row["seconds"]))


def goals_table(goals: Sequence[Facts]) -> Table:
    """The speed goals of address translation: met, or how far off."""
    return _table("Speed goals (one core, permissions, A/D flags and statistics on)", GOAL_COLUMNS, map(_goal_cells, goals))


def _goal_cells(goal: Facts) -> tuple[str, ...]:
    value, unit, target = goal["value"], goal["unit"], goal["target"]
    wanted = f"{'<=' if goal['at_most'] else '>='} {_quantity(target, unit)}"
    twin = f"{plain(goal['twin_ns'])} ns" if goal["twin_ns"] else ""
    if value is None:
        return (goal["name"], "", wanted, goal["why"], twin)
    share = target / value if goal["at_most"] else value / target
    return (goal["name"], _quantity(value, unit), wanted, "met" if goal["met"] else f"{share:.0%}", twin)


def _quantity(value: float, unit: str) -> str:
    if unit == "x":
        return f"{value:.2f}x"
    return f"{plain(value)} {unit}" if unit == "ns" else f"{si(value)} {unit}"


def rows_table(rows: Sequence[Facts]) -> Table:
    """The cases, one a row; columns that only some runs have come last."""
    columns: tuple[str, ...] = ROW_COLUMNS
    if any(row["streams"] > 1 for row in rows):
        columns += STREAM_COLUMNS
    if any("now_then" in row for row in rows):
        columns += THEN_COLUMNS
    cells = [dict(_row_cells(row)) for row in rows]
    return _table("Address translation", columns, [[row.get(column, "") for column in columns] for row in cells])


def _row_cells(row: Facts) -> list[tuple[str, str]]:
    def figure(name: str, pattern: str = "") -> str:
        value = row.get(name)
        return "" if value is None else pattern.format(value) if pattern else plain(value)

    extras = [name for name, on in (("walk caches", row["walk_caches"]), ("cycles", row["cycles"])) if on]
    return [
        ("pattern", row["trace"] or row["pattern"]),
        ("pages", f"{row['pages']:,}"),
        ("guest x EPT", f"{row['guest_page']} x {row['ept_page']}"),
        ("caches", row["cpu"]),
        ("with", ", ".join(extras) or "-"),
        ("ns", figure("ns")),
        ("transl./s", si(row["rate"])),
        ("refs/walk", figure("references_per_walk")),
        ("L1 miss", figure("l1_miss_rate", "{:.2%}")),
        ("STLB miss", figure("stlb_miss_rate", "{:.2%}")),
        ("cycles", figure("cycles_per_translation")),
        ("C twin ns", figure("twin_ns")),
        ("x twin", figure("twin_ratio", "{:.2f}")),
        ("streams", str(row["streams"])),
        ("one core ns", figure("one_core_ns")),
        ("speed-up", figure("speedup", "{:.2f}x")),
        ("ns then", figure("ns_then")),
        ("now/then", figure("now_then", "{:.2f}")),
    ]


def machine_line(machine: Facts) -> Text:
    """Where this was measured."""
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", "numba", "numpy") if name in machine)
    return Text(f"{machine['processor']}, {machine['cores']} cores; {versions}")


def _table(title: str, columns: Sequence[str], rows: Any) -> Table:
    return table(title, columns, rows, [column for column in columns if column not in TEXT_COLUMNS])

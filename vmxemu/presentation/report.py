"""The tables after a run, and those of `trace stats`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from vmxemu.presentation.tables import seconds, show, si, table
from vmxemu.presentation.timeline import timeline

ROWS_SHOWN = 40
Facts = Mapping[str, Any]


def run_report(facts: Facts, hertz: int) -> None:
    """Print what a finished run amounts to. `facts` is `Machine.statistics()`; parts that it lacks are left out."""
    show(*(part for part in _parts(facts, hertz) if part is not None))


def _parts(facts: Facts, hertz: int) -> Iterable[RenderableType | None]:
    last_cycle = int(facts.get("virtual_cycles") or 0)
    yield timeline(facts.get("phases") or (), facts.get("management") or (), last_cycle, hertz)
    yield exits_table(facts.get("exits_by_reason") or {})
    yield decisions_table(facts)
    yield migrations_table(facts)
    yield translation_table(facts.get("translation") or {})
    yield stale_table(facts.get("stale_translations"))
    yield expectations_table(facts.get("expectations") or ())
    yield Text(totals(facts, hertz))


def trace_report(header: Facts, facts: Facts) -> None:
    """Print what a trace holds."""
    configuration = header.get("configuration") or {}
    image = configuration.get("image") or {}
    hertz = int(configuration.get("frequency") or 0) or _profile_hertz(str(configuration.get("cpu")))
    ending = facts.get("ending") or {}
    sha256, cycles = str(image.get("sha256", "?"))[:16], f"{facts['first_cycle']} to {facts['last_cycle']}"
    lines = (
        f"image    {image.get('name', '?')} (sha256 {sha256}), cpu {configuration.get('cpu', '?')}",
        f"events   {facts['events']:,} in {facts['batches']:,} batches, cycles {cycles}",
        f"ended    {ending.get('reason', 'not closed')}",
    )
    kinds = Counter[str]()
    levels = list(facts["kinds"])
    for counts in facts["kinds"].values():
        kinds.update(counts)
    rows = [(kind, *(facts["kinds"][level].get(kind, "") for level in levels), n) for kind, n in kinds.most_common()]
    parts: list[RenderableType | None] = [Text("\n".join(lines))]
    if rows:
        parts.append(table("Events by kind and level", ("kind", *levels, "all"), rows, (*levels, "all")))
    parts.append(timeline(facts["phases"], facts["management"], facts["last_cycle"], hertz))
    parts += [exits_table(facts["exits_by_reason"]), decisions_table(facts), migrations_table(facts)]
    show(*(part for part in parts if part is not None))


def _profile_hertz(cpu: str) -> int:
    from vmxemu.isa import cpus

    return cpus.load(cpu).identity.tsc_hz if cpu in cpus.names() else 1_000_000_000


def exits_table(by_level: Facts) -> Table | None:
    """VM exits: a row for each reason, a column for each level."""
    levels = [level for level, counts in by_level.items() if any(counts.values())]
    if not levels:
        return None
    total = Counter[str]()
    for level in levels:
        total.update(by_level[level])
    titles = [_level(level) for level in levels]
    rows = [
        (reason, *(f"{by_level[level].get(reason, 0):,}" for level in levels), f"{count:,}")
        for reason, count in total.most_common()
        if count
    ]
    sums = (f"{sum(by_level[level].values()):,}" for level in levels)
    rows.append(("all", *sums, f"{total.total():,}"))
    return table("VM exits by reason and level", ("reason", *titles, "all"), rows, (*titles, "all"))


def _level(level: object) -> str:
    text = str(level)
    return f"L{text}" if text.isdigit() else text


def decisions_table(facts: Facts) -> Table | None:
    """What arrived, who has to handle it, why, and what was done; equal rows are counted."""
    arrivals = {record.get("serial"): record for record in facts.get("management") or ()}
    grouped: Counter[tuple[str, ...]] = Counter()
    first: dict[tuple[str, ...], int] = {}
    for record in facts.get("decisions") or ():
        arrival = arrivals.get(record.get("serial"), {})
        address = record.get("address", arrival.get("address")) or 0
        key = (
            str(record.get("kind", arrival.get("kind", "?"))),
            f"{int(address):#x}" if address else "",
            str(record.get("owner", "?")),
            str(record.get("rule", "?")),
            str(record.get("action", "?")),
        )
        grouped[key] += 1
        first.setdefault(key, int(record.get("cycle", 0)))
    if not grouped:
        return None
    rows = [(f"{first[key]:,}", *key, f"{grouped[key]:,}") for key in sorted(grouped, key=first.__getitem__)]
    columns = ("first cycle", "what", "address", "who", "why (rule)", "result", "count")
    return _cut("Decisions on management interrupts", columns, rows, ("first cycle", "address", "count"))


def migrations_table(facts: Facts) -> Table | None:
    """Pages that were moved."""
    rows = [
        (
            f"{int(record.get('cycle', 0)):,}",
            *(f"{int(record.get(name) or 0):#x}" for name in ("gpa", "old_hpa", "new_hpa")),
            f"{int(record.get('cycles') or 0):,}",
            "done" if not record.get("status") else f"failed: {record['status']}",
        )
        for record in facts.get("migrations") or ()
    ]
    columns = ("cycle", "GPA", "old HPA", "new HPA", "cycles taken", "result")
    return _cut("Page migrations", columns, rows, columns[:5]) if rows else None


def translation_table(translation: Facts) -> Table | None:
    """TLB and walk statistics, as they are named in the statistics."""
    rows = [(name.replace("_", " "), _figure(value)) for name, value in _flat(translation)]
    if not rows or translation.get("tlb_lookups") == 0:  # paging was never on
        return None
    return table("Translation", ("what", "value"), rows, ("value",))


def stale_table(found: Facts | None) -> RenderableType | None:
    """Uses of stale translations, page by page; a line if there were none, nothing if nobody looked."""
    if found is None:
        return None
    if not found["uses"]:
        return Text("Uses of stale translations: none")
    pages = dict.fromkeys(kind["gla"] >> 12 for kind in found["kinds"])
    rows: list[tuple[str, ...]] = []
    for page in pages:
        kinds = [kind for kind in found["kinds"] if kind["gla"] >> 12 == page]
        rows += [(f"{page << 12:#x}" if kind is kinds[0] else "", *_stale_row(kind)) for kind in kinds]
    columns = (
        "page", "count", "access", "from", "cached", "memory", "what changed", "owed", "cached at", "used at", "RIP", "by", "EPTP"
    )  # fmt: skip
    title = f"Uses of stale translations: {found['uses']:,}"
    return _cut(title, columns, rows, ("page", "count", "cached", "memory", "cached at", "used at", "RIP"))


def _stale_row(kind: Facts) -> tuple[str, ...]:
    by = f"{kind['level']} VPID {kind['vpid']}" + (f" PCID {kind['pcid']}" if kind["pcid"] else "")
    born = kind["cycle_cached"]
    return (
        f"{kind['count']:,}", kind["access"], kind["source"], kind["cached"], kind["now"], kind["changed"], kind["owed"],
        "" if born is None else f"{born:,}", f"{kind['cycle']:,}", f"{kind['rip']:#x}", by,
        f"{kind['eptp']:#x}" if kind["eptp"] else "",
    )  # fmt: skip


def expectations_table(verdicts: Sequence[Facts]) -> Table | None:
    """Whether each declared expectation holds."""
    rows = [("ok" if one["holds"] else "FAILED", one["name"], one.get("problem", "")) for one in verdicts]
    return table("Expectations", ("", "expectation", "problem"), rows) if rows else None


def totals(facts: Facts, hertz: int) -> str:
    """Time and speed in one line."""
    cycles, wall = int(facts.get("virtual_cycles") or 0), float(facts.get("wall_seconds") or 0)
    parts = [f"{cycles:,} virtual cycles ({seconds(cycles / hertz)})"]
    if facts.get("instructions"):
        parts.append(f"{int(facts['instructions']):,} instructions")
    parts.append(f"{seconds(wall)} wall time")
    if facts.get("mips"):
        parts.append(f"{float(facts['mips']):,.0f} MIPS")
    exits = sum(sum(counts.values()) for counts in (facts.get("exits_by_reason") or {}).values())
    if exits and wall:
        parts.append(f"{si(exits / wall)} exits/s")
    return ", ".join(parts)


def _flat(tree: Facts, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _cut(title: str, columns: Sequence[str], rows: list[tuple[str, ...]], right: Sequence[str]) -> Table:
    """The table of at most ROWS_SHOWN rows; the title counts those left out."""
    if len(rows) > ROWS_SHOWN:
        title = f"{title} (first {ROWS_SHOWN} of {len(rows):,}; --json has all)"
    return table(title, columns, rows[:ROWS_SHOWN], right)

"""The tables as rows of text, for `vmxemu isa TABLE [PATTERN]`."""

from collections.abc import Callable
from fnmatch import fnmatchcase

from vmxemu.isa import cpus, data

Columns = tuple[str, ...]
Row = tuple[str, ...]

CSV_TABLES: dict[str, str] = {
    "vmcs": "vmcs_fields",
    "exits": "exit_reasons",
    "errors": "vm_instruction_errors",
    "controls": "controls",
    "capabilities": "vmx_capabilities",
    "msrs": "msrs",
    "exceptions": "exceptions",
    "smm": "smm_save_map",
    "mca": "mca_codes",
    "features": "cpuid_features",
    "bits": "register_bits",
    "paging": "paging_entries",
    "instructions": "instruction_costs",
}


def _cpus() -> tuple[Columns, list[Row]]:
    columns = ("name", "signature", "bits", "tsc_mhz", "l1d", "stlb", "vm_exit", "description")
    rows: list[Row] = []
    for name in cpus.names():
        profile = cpus.load(name)
        identity, stlb, l1d = profile.identity, profile.tlb["stlb"], profile.caches["l1d"]
        rows.append(
            (
                name,
                f"0x{identity.signature:X}",
                f"{identity.physical_bits}/{identity.linear_bits}",
                str(identity.tsc_hz // 1_000_000),
                f"{l1d.bytes // 1024}K/{l1d.ways}",
                f"{stlb.entries}/{stlb.ways}",
                str(profile.costs["vm_exit"]),
                profile.description,
            )
        )
    return columns, rows


def _csv(file_name: str) -> tuple[Columns, list[Row]]:
    table = data.table(file_name)
    return tuple(table[0]), [tuple(row.values()) for row in table]


COMPUTED_TABLES: dict[str, Callable[[], tuple[Columns, list[Row]]]] = {"cpus": _cpus}


def names() -> list[str]:
    """The tables there are."""
    return sorted(CSV_TABLES | COMPUTED_TABLES)


def rows(table: str, pattern: str | None = None) -> tuple[Columns, list[Row]]:
    """Columns and rows of a table; with a pattern, the rows of which some cell matches.

    A pattern is a number (any base that Python reads) that one of the first two cells equals, a shell pattern if it
    holds one of `*?[`, or else a part of a cell; letter case does not matter. Raises ValueError, naming the tables, if
    there is no such table.
    """
    if table in COMPUTED_TABLES:
        columns, found = COMPUTED_TABLES[table]()
    elif table in CSV_TABLES:
        columns, found = _csv(CSV_TABLES[table])
    else:
        raise ValueError(f"no table {table!r}; known: {', '.join(names())}")
    if pattern:
        found = [row for row in found if _matches(row, pattern)]
    return columns, found


def _matches(row: Row, pattern: str) -> bool:
    wanted = _integer(pattern)
    if wanted is not None:
        return any(_integer(cell) == wanted for cell in row[:2])
    folded = pattern.casefold()
    if any(mark in folded for mark in "*?["):
        return any(fnmatchcase(cell.casefold(), folded) for cell in row)
    return any(folded in cell.casefold() for cell in row)


def _integer(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None

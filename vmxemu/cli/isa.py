"""`vmxemu isa`: the tables of facts."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from vmxemu.cli.status import BAD_INPUT, OK

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Listing:
    """One table: its columns, those that are numbers, and what gives its rows."""

    what: str
    columns: tuple[str, ...]
    right: tuple[str, ...]
    rows: Callable[[], Rows]


def _vmcs() -> Rows:
    from vmxemu.isa import fields

    return [
        (f"{row.encoding:#06x}", row.name, row.width, row.type, " or ".join(row.exists_if) or "always", row.sdm)
        for row in fields.ROWS
    ]


def _exits() -> Rows:
    from vmxemu.isa import exits

    return [(row.number, row.name, row.kind, row.sdm) for row in exits.ROWS]


def _msrs() -> Rows:
    from vmxemu.isa import msrs

    return [
        (
            f"{row.address:#x}",
            row.name,
            row.access,
            "" if row.reset is None else f"{row.reset:#x}",
            row.meaning,
            row.sdm,
        )
        for row in msrs.ROWS
    ]


def _cpus() -> Rows:
    from vmxemu.isa import cpus

    return [_cpu(cpus.load(name)) for name in cpus.names()]


def _cpu(profile: Any) -> tuple[Any, ...]:
    who = profile.identity
    tlb = ", ".join(f"{name} {geometry.entries}/{geometry.ways}w" for name, geometry in profile.tlb.items())
    return (
        profile.name,
        profile.description,
        f"{who.signature:#x}",
        f"{who.tsc_hz / 1e9:g} GHz",
        who.physical_bits,
        tlb,
    )


def _paging() -> Rows:
    from vmxemu.isa import paging

    return [
        (row.structure, f"{row.high}:{row.low}" if row.high > row.low else row.low, row.name, row.meaning, row.when_clear, row.sdm)
        for row in paging.FIELDS
    ]


LISTINGS = {
    "vmcs": Listing("VMCS field", ("encoding", "name", "width", "type", "exists if", "source"), ("encoding",), _vmcs),
    "exits": Listing("exit reason", ("number", "name", "kind", "source"), ("number",), _exits),
    "msrs": Listing("MSR", ("address", "name", "access", "reset", "meaning", "source"), ("address", "reset"), _msrs),
    "paging": Listing("paging entry", ("structure", "bits", "name", "1 means", "0 means", "source"), ("bits",), _paging),
    "cpus": Listing("CPU profile", ("name", "description", "signature", "TSC", "physical bits", "TLBs"), (), _cpus),
}


@click.command()
@click.argument("which", metavar="vmcs|exits|msrs|paging|cpus", type=click.Choice(tuple(LISTINGS)))
@click.argument("pattern", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def isa(which: str, pattern: str | None, as_json: bool) -> int:
    """Print a table of facts. PATTERN, a regular expression without regard to case, keeps the rows that contain it."""
    listing = LISTINGS[which]
    rows = _matching(listing.rows(), pattern)
    if not rows:
        click.echo(f"vmxemu: no {listing.what} matches {pattern!r}", err=True)
        return BAD_INPUT
    if as_json:
        click.echo(json.dumps([dict(zip(listing.columns, row, strict=True)) for row in rows], indent=1))
        return OK
    from vmxemu.presentation.tables import show, table

    show(table("", listing.columns, rows, listing.right))
    return OK


def _matching(rows: Rows, pattern: str | None) -> Rows:
    if pattern is None:
        return rows
    try:
        wanted = re.compile(pattern, re.IGNORECASE)
    except re.error as problem:
        raise click.BadParameter(f"{pattern!r} is no regular expression: {problem}", param_hint="PATTERN") from None
    return [row for row in rows if any(wanted.search(str(cell)) for cell in row)]

"""`vmxemu trace`: show, stats, diff, verify."""

import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from vmxemu.cli.lazy import LazyGroup
from vmxemu.cli.status import BAD_INPUT, DIFFERENT, OK

if TYPE_CHECKING:
    from vmxemu.trace.compare import Divergence
    from vmxemu.trace.file import Reader
    from vmxemu.trace.schema import Events

FILE = click.argument("file", type=click.Path(dir_okay=False))


@click.group(
    cls=LazyGroup,
    members={
        "show": ("vmxemu.cli.trace:show", "Print events as text, JSON lines or CSV."),
        "stats": ("vmxemu.cli.trace:stats", "Count events, VM exits, decisions and migrations."),
        "diff": ("vmxemu.cli.trace:diff", "Find the first event in which two traces differ."),
        "verify": ("vmxemu.cli.verify:verify", "Run again what the trace describes, and compare."),
    },
)
def trace() -> None:
    """Work with traces recorded by `vmxemu run --record FILE`."""


def open_trace(path: str) -> "Reader":
    """The trace at `path`; bad input if it is none."""
    from vmxemu.configuration import InputError
    from vmxemu.trace.file import Reader, TraceError

    try:
        return Reader(path)
    except TraceError as problem:
        raise InputError("", str(problem)) from None


def batches(reader: "Reader", damage: list[str]) -> Iterator["Events"]:
    """The readable part of a trace; what is wrong with the rest is added to `damage`."""
    from vmxemu.trace.file import TraceError

    try:
        yield from reader
    except TraceError as problem:
        damage.append(str(problem))


def end(damage: Iterable[str], status: int) -> int:
    """The exit status, after telling what was damaged."""
    told = False
    sys.stdout.flush()
    for line in damage:
        click.echo(f"vmxemu: {line}", err=True)
        told = True
    return BAD_INPUT if told else status


def _numbers(values: tuple[str, ...], names: dict[str, int], what: str) -> frozenset[int]:
    found = set()
    for value in values:
        number = names.get(value.upper())
        if number is None:
            raise click.BadParameter(f"no {what} {value!r}; expected one of {', '.join(names)}", param_hint=f"--{what}")
        found.add(number)
    return frozenset(found)


@click.command()
@FILE
@click.option("--format", "form", type=click.Choice(("text", "json", "csv")), default="text", show_default=True)
@click.option("--kind", multiple=True, metavar="KIND", help="Only events of this kind (repeatable), e.g. VM_EXIT.")
@click.option("--level", multiple=True, metavar="LEVEL", help="Only events at L0, L1, L2 or SMM (repeatable).")
@click.option("--limit", type=click.IntRange(min=0), help="Print at most so many.")
def show(file: str, form: str, kind: tuple[str, ...], level: tuple[str, ...], limit: int | None) -> int:
    """Print the events of a trace."""
    from vmxemu.trace import show as forms
    from vmxemu.trace.events import KINDS
    from vmxemu.trace.names import LEVELS, rules_of

    kinds = _numbers(kind, {row.name: row.number for row in KINDS}, "kind")
    levels = _numbers(level, {name: number for number, name in LEVELS.items()}, "level")
    reader = open_trace(file)
    line = forms.FORMATS[form](rules_of(reader.header))
    if form == "csv":
        print(forms.CSV_TITLE)
    damage: list[str] = []
    base = printed = 0
    for events in batches(reader, damage):
        for index in forms.chosen(events, kinds, levels):
            if printed == limit:
                return OK
            print(line(base + index, events[index]))
            printed += 1
        base += len(events)
    return end(damage, OK)


@click.command()
@FILE
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def stats(file: str, as_json: bool) -> int:
    """Count what a trace holds."""
    from vmxemu.trace.digest import Digest
    from vmxemu.trace.names import rules_of

    reader = open_trace(file)
    digest, damage = Digest(rules_of(reader.header)), list[str]()
    for events in batches(reader, damage):
        digest.add(events)
    facts: dict[str, Any] = {
        "events": digest.events,
        "batches": reader.batches,
        "first_cycle": digest.first_cycle,
        "last_cycle": digest.last_cycle,
        "ending": reader.ending,
        "kinds": digest.kinds(),
        **digest.summary(),
    }
    if as_json:
        click.echo(json.dumps({"header": reader.header, **facts}, indent=1))
        return end(damage, OK)
    from vmxemu.presentation.report import trace_report

    trace_report(reader.header, facts)
    return end(damage, OK)


@click.command()
@click.argument("left", type=click.Path(dir_okay=False))
@click.argument("right", type=click.Path(dir_okay=False))
def diff(left: str, right: str) -> int:
    """Compare two traces: exit status 0 if their events are equal, 1 with the first difference shown."""
    from vmxemu.trace.compare import first_divergence
    from vmxemu.trace.names import rules_of

    readers = open_trace(left), open_trace(right)
    damage: list[str] = []
    divergence = first_divergence(*(batches(reader, damage) for reader in readers))
    if divergence is None:
        if not damage:
            print(f"equal: {readers[0].events:,} events")
        return end(damage, OK)
    show_divergence(divergence, (left, right), rules_of(readers[0].header))
    return end(damage, DIFFERENT)


def show_divergence(
    divergence: "Divergence", titles: tuple[str, str], rules: tuple[str, ...], code: tuple[str, str] = ("", "")
) -> None:
    """Both sides of the first difference with the disassembly at their RIPs, after the events before it."""
    from vmxemu.presentation.divergence import divergence_table
    from vmxemu.presentation.tables import show as show_table
    from vmxemu.trace.show import as_text

    line = as_text(rules)
    first = divergence.index - len(divergence.before)
    print(f"first difference at event {divergence.index:,}")
    for offset, event in enumerate(divergence.before):
        print(f"  {line(first + offset, event)}")
    sys.stdout.flush()
    show_table(divergence_table(divergence, titles, rules, code))

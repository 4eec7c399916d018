"""`vmxemu bench ept`: rates of address translation."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vmxemu.cli.status import OK
from vmxemu.measure.cases import ACCESSES, MOST_PAGES, NONE, SIZES, USUAL_COUNT, Case, Selection, usual_cases
from vmxemu.measure.patterns import PATTERNS, TRACE

if TYPE_CHECKING:
    from vmxemu.cli.bench_session import Result
    from vmxemu.measure.comparison import Earlier

SWITCH = {None: (), "on": (True,), "off": (False,), "both": (True, False)}
SWITCHES = ("on", "off", "both")
MOST_COUNT, MOST_STREAMS = 1 << 26, 256
FILE = click.Path(path_type=Path)
LEGEND = "\b\nPatterns:\n" + "\n".join(f"  {name:<8} {one.description}" for name, one in PATTERNS.items())


@click.command(epilog=LEGEND)
@click.option("--pattern", "patterns", multiple=True, type=click.Choice([*PATTERNS, TRACE]), help="Which pages, when.")
@click.option("--trace", "traces", multiple=True, type=FILE, help="A recorded trace: one address a line, or .npy of uint64.")
@click.option("--pages", multiple=True, type=click.IntRange(1, MOST_PAGES), help="Footprint in 4-KiB pages.  [65536]")
@click.option("--guest-page", "guest_pages", multiple=True, type=click.Choice(SIZES), help="Page size of the guest.  [4K]")
@click.option("--ept-page", "ept_pages", multiple=True, type=click.Choice([*SIZES, NONE]), help="Page size of the EPT.  [4K]")
@click.option("--cpu", "cpus", multiple=True, metavar="PROFILE|none", help="Whose caches; none: no TLB.  [skylake-sp]")
@click.option("--walk-caches", type=click.Choice(SWITCHES), help="Walk caches and the nested TLB.  [on]")
@click.option("--cycles", type=click.Choice(SWITCHES), help="Cycle accounting.  [on]")
@click.option("--access", type=click.Choice(ACCESSES), default="read", show_default=True, help="What is done.")
@click.option("--count", type=click.IntRange(1, MOST_COUNT), help=f"Translations in a call.  [{USUAL_COUNT}, or the trace]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of what is random in the patterns.")
@click.option("--streams", type=click.IntRange(1, MOST_STREAMS), default=1, show_default=True, help="Independent streams.")
@click.option("--plot", type=FILE, help="Draw the rates: FILE.png or FILE.html.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--against", type=FILE, help="Compare with what --json printed earlier.")
def ept(
    walk_caches: str | None,
    cycles: str | None,
    access: str,
    count: int | None,
    seed: int,
    streams: int,
    plot: Path | None,
    as_json: bool,
    against: Path | None,
    **chosen: Any,
) -> int:
    """Measure address translation alone: patterns of addresses x page sizes x caches.

    Options that choose may be given several times: all combinations are measured. Without any of them, each dimension is
    gone through once, and the project's speed goals are shown. Times are the best of several rounds. "C twin" is the
    same work in plain C (cc -O2), where there is a compiler and the twin models the same.
    """
    selection = _selection(chosen | {"walk_caches": SWITCH.get(walk_caches), "cycles": SWITCH.get(cycles)})
    template = Case("hit", access=access, count=count, seed=seed, streams=streams)
    cases = usual_cases(template) if selection.empty else selection.cases(template)
    earlier = _prepared(plot, against, selection.traces)
    from vmxemu.cli.bench_session import measure_all

    result = measure_all(cases, with_goals=selection.empty)
    _show(result, earlier, plot, as_json)
    return result.status


def _selection(chosen: dict[str, Any]) -> Selection:
    from vmxemu.configuration import InputError
    from vmxemu.isa import cpus

    known = [*cpus.names(), NONE]
    for cpu in chosen["cpus"]:
        if cpu not in known:
            raise InputError("--cpu", f"expected one of {', '.join(known)}, not {cpu!r}")
    if TRACE in chosen["patterns"] and not chosen["traces"]:
        raise InputError("--pattern trace", "expected the file as --trace FILE")
    patterns = tuple(name for name in chosen["patterns"] if name != TRACE)
    return Selection(**(chosen | {"patterns": patterns}))


def _prepared(plot: Path | None, against: Path | None, traces: Sequence[Path]) -> "Earlier | None":
    """Complain of bad files before anything is measured."""
    if plot is not None:
        from vmxemu.cli.files import refuse_overwriting
        from vmxemu.presentation.plots import check_plot

        refuse_overwriting([plot], [*traces, *([against] if against else [])])
        check_plot(plot)
    if against is None:
        return None
    from vmxemu.measure.comparison import Earlier

    return Earlier.read(against)


def _show(result: "Result", earlier: "Earlier | None", plot: Path | None, as_json: bool) -> None:
    from vmxemu.cli.session import say
    from vmxemu.measure.comparison import FORMAT
    from vmxemu.measure.host import description

    machine, rows = description(), [row.facts() for row in result.rows]
    if earlier is not None:
        for difference in earlier.differences(machine, rows):
            say(f"{earlier.path}: {difference}")
        rows = [row | earlier.compared(row) for row in rows]
    interrupted = result.status != OK
    goals = [goal.facts() for goal in result.goals]
    if as_json:
        tree = {"format": FORMAT, "machine": machine, "interrupted": interrupted, "rows": rows, "goals": goals}
        click.echo(json.dumps(tree, indent=1))
    else:
        _show_tables(machine, rows, goals)
    if plot is not None and rows:
        _draw(plot, rows, machine)
    if interrupted:
        say("interrupted")


def _draw(plot: Path, rows: list[dict[str, Any]], machine: dict[str, Any]) -> None:
    from vmxemu.configuration import InputError
    from vmxemu.presentation.plots import draw

    try:
        sys.stdout.flush()
        draw(plot, rows, machine)
    except OSError as problem:
        raise InputError(str(plot), f"cannot be written: {problem.strerror or problem}") from None


def _show_tables(machine: dict[str, Any], rows: list[dict[str, Any]], goals: list[dict[str, Any]]) -> None:
    from vmxemu.presentation.rates import goals_table, machine_line, rows_table
    from vmxemu.presentation.tables import show

    parts = [rows_table(rows)] if rows else []
    parts += [goals_table(goals)] if goals else []
    show(*parts, machine_line(machine))

"""`vmxemu bench`: rates of this emulator on this computer."""

import json
from typing import TYPE_CHECKING, Any

import click

from vmxemu.cli.status import OK

if TYPE_CHECKING:
    from vmxemu.configuration.rates import Rate

COLUMNS = ("what", "rate", "unit", "target", "of target", "operations", "time")
TWIN_COLUMNS = ("C twin", "of C twin")


@click.command()
@click.argument("which", metavar="ept|exit|guest", type=click.Choice(("ept", "exit", "guest")))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(which: str, as_json: bool) -> int:
    """Measure rates: ept (batch translation), exit (VM exit round trips), guest (guest code and page walks)."""
    from vmxemu.configuration.rates import rates

    rows = rates(which)
    measured, twins = _translation(rows) if which == "ept" else (_guest(rows), [{} for _ in rows])
    results = [
        {"name": row.name, "rate": ops / spent, "unit": row.unit, "target": row.target, "ops": ops, "seconds": spent}
        | twin
        for row, (ops, spent), twin in zip(rows, measured, twins, strict=True)
    ]
    if as_json:
        click.echo(json.dumps(results, indent=1))
        return OK
    from vmxemu.presentation.tables import show, table

    columns = COLUMNS + TWIN_COLUMNS if which == "ept" else COLUMNS
    show(table("", columns, [_cells(row) for row in results], columns[1:2] + columns[3:]))
    return OK


def _translation(rows: "list[Rate]") -> tuple[list[tuple[int, float]], list[dict[str, Any]]]:
    """(operations, seconds) of each row, and the rate of the twin in C."""
    from vmxemu.cli.session import say

    say("measuring (the first time, kernels are compiled before) ...")
    from vmxemu.cli.translation_rates import Twin, measure

    twin = Twin.compiled()
    found = [measure(row.phase, twin) for row in rows]
    rates_of_twin = [f.operations / f.twin_seconds if f.twin_seconds else None for f in found]
    return [(f.operations, f.seconds) for f in found], [{"twin_rate": rate} for rate in rates_of_twin]


def _guest(rows: "list[Rate]") -> list[tuple[int, float]]:
    from vmxemu.cli.guest_rates import measure
    from vmxemu.cli.interrupt import Interrupts, Stop
    from vmxemu.cli.session import say, warm
    from vmxemu.presentation.progress import Progress

    progress = Progress(1, enabled=True)
    with Interrupts() as interrupts:
        try:
            warm(progress, interrupts)
        except Stop:
            raise KeyboardInterrupt from None
        finally:
            progress.close()
    from vmxemu.machine import Machine

    found: dict[tuple[str, str], tuple[int, float]] = {}
    for blob in dict.fromkeys(row.blob for row in rows):
        say(f"running {blob} ...")
        for phase, measured in measure(Machine, blob, frozenset(row.phase for row in rows if row.blob == blob)).items():
            found[blob, phase] = measured
    return [found[row.blob, row.phase] for row in rows]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    from vmxemu.presentation.tables import seconds, si

    target = row["target"]
    share, goal = (f"{row['rate'] / target:.0%}", f">= {si(target)}") if target else ("", "")
    cells = (row["name"], si(row["rate"]), row["unit"], goal, share, f"{row['ops']:,}", seconds(row["seconds"]))
    if "twin_rate" not in row:
        return cells
    twin = row["twin_rate"]
    return (*cells, si(twin), f"{row['rate'] / twin:.0%}") if twin else (*cells, "no compiler", "")

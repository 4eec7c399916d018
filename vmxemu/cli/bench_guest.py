"""`vmxemu bench exit` and `vmxemu bench guest`: rates inside the machine, by a shipped blob that measures itself."""

import json
from typing import TYPE_CHECKING, Any

import click

from vmxemu.cli.status import OK

if TYPE_CHECKING:
    from vmxemu.cli.interrupt import Interrupts
    from vmxemu.configuration.rates import Rate


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def exits(as_json: bool) -> int:
    """Measure round trips of VM exits."""
    return _bench("exit", as_json)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def guest(as_json: bool) -> int:
    """Measure guest code, and page walks in it."""
    return _bench("guest", as_json)


def _bench(which: str, as_json: bool) -> int:
    from vmxemu.cli.interrupt import Interrupts, Stop
    from vmxemu.cli.session import say
    from vmxemu.configuration.rates import rates

    rows = rates(which)
    with Interrupts() as interrupts:
        try:
            measured = _measured(rows, interrupts)
        except Stop as stop:
            say("interrupted")
            return stop.status
    results: list[dict[str, Any]] = [
        {"name": row.name, "rate": ops / spent, "unit": row.unit, "target": row.target, "ops": ops, "seconds": spent}
        for row, (ops, spent) in zip(rows, measured, strict=True)
    ]
    if as_json:
        click.echo(json.dumps(results, indent=1))
        return OK
    from vmxemu.presentation.rates import guest_table
    from vmxemu.presentation.tables import show

    show(guest_table(results))
    return OK


def _measured(rows: "list[Rate]", interrupts: "Interrupts") -> list[tuple[int, float]]:
    """(operations, seconds) of each row. Raises Stop."""
    from vmxemu.cli.session import say, warm
    from vmxemu.measure.guest import measure
    from vmxemu.presentation.progress import Progress

    progress = Progress(1, enabled=True)
    try:
        warm(progress, interrupts)
    finally:
        progress.close()
    from vmxemu.machine import Machine

    found: dict[tuple[str, str], tuple[int, float]] = {}
    for blob in dict.fromkeys(row.blob for row in rows):
        say(f"running {blob} ...")
        phases = frozenset(row.phase for row in rows if row.blob == blob)
        for phase, measured in measure(Machine, blob, phases, interrupts.check).items():
            found[blob, phase] = measured
    return [found[row.blob, row.phase] for row in rows]

"""`vmxemu blobs`."""

import json

import click

from vmxemu.cli.status import OK


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def blobs(as_json: bool) -> int:
    """List the shipped firmware blobs and what each shows."""
    from vmxemu.configuration.blobs import directory, shipped
    from vmxemu.presentation.tables import show, table

    rows = shipped()
    if as_json:
        click.echo(json.dumps([{name: getattr(row, name) for name in row.__slots__} for row in rows], indent=1))
        return OK
    if not rows:
        click.echo(f"no blobs: there is no manifest in {directory()}", err=True)
        return OK
    show(table("", ("name", "shows", "sha256"), ((row.name, row.shows, row.sha256[:12]) for row in rows)))
    return OK

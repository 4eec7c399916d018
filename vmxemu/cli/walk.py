"""`vmxemu walk`: one translation, step by step."""

import json
from typing import TYPE_CHECKING, Any

import click

from vmxemu.cli.run import Quantity
from vmxemu.cli.status import OK

if TYPE_CHECKING:
    from vmxemu.cli.walk_source import Source
    from vmxemu.presentation.walk_story import Story

ACCESSES = {"read": 0, "write": 1, "fetch": 2}
ADDRESS = Quantity("address")
REGISTERS = ("cr0", "cr3", "cr4", "efer", "eptp", "pkru", "pkrs")


class LinearAddress(Quantity):
    """An address, or rip or rsp where a machine has run."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or the register's name in lower case."""
        if isinstance(value, str) and value.lower() in ("rip", "rsp"):
            return value.lower()
        return super().convert(value, param, ctx)


@click.command()
@click.argument("address", required=False, type=LinearAddress("address"))
@click.option("--example", metavar="NAME", help="A shipped description of tables; see --list.")
@click.option("--list", "list_examples", is_flag=True, help="List the shipped descriptions.")
@click.option("--tables", metavar="FILE.toml", help="Tables that a small TOML file describes.")
@click.option("--image", metavar="FILE", help="Tables in a memory image: raw bytes.")
@click.option("--base", type=ADDRESS, metavar="ADDR", help="Physical address of the image's first byte; default 0.")
@click.option("--run", "run_what", metavar="WHAT", help="Run a scenario, image or blob, and walk in its machine.")
@click.option("--until", type=Quantity("cycles"), metavar="CYCLES", help="With --run: stop there, not at the end.")
@click.option("--trace", metavar="FILE", help="Run again what a recorded trace describes, and walk in its machine.")
@click.option("--at", type=click.IntRange(min=0), metavar="EVENT", help="With --trace: at this event; default the last.")
@click.option("--warm", is_flag=True, help="With --run, --trace: keep what the machine's TLB and walk caches hold.")
@click.option("--access", type=click.Choice(tuple(ACCESSES)), help="Default read; fetch for rip.")
@click.option("--implicit", is_flag=True, help="An implicit supervisor access, as to a descriptor table.")
@click.option("--shadow-stack", is_flag=True, help="An access to a shadow stack.")
@click.option("--repeat", type=click.IntRange(1, 16), metavar="N", help="Walk N times: what do warm caches spare?")
@click.option("--stride", type=Quantity("size"), metavar="SIZE", help="Between repeated walks, e.g. 4K; default 0.")
@click.option("--walk-caches/--no-walk-caches", default=None, help="Default: only with --repeat or --warm.")
@click.option("--cpu", metavar="PROFILE", help="CPU profile; see: vmxemu isa cpus.")
@click.option("--mode", type=click.Choice(("off", "32-bit", "pae", "4-level", "5-level")), help="With --image.")
@click.option("--cr3", type=ADDRESS, metavar="N", help="Registers; others than CR3 and EPTP follow from the mode.")
@click.option("--eptp", type=ADDRESS, metavar="N", help="EPT pointer; 0 = no EPT.")
@click.option("--cr0", type=ADDRESS, metavar="N")
@click.option("--cr4", type=ADDRESS, metavar="N")
@click.option("--efer", type=ADDRESS, metavar="N")
@click.option("--cpl", type=click.IntRange(0, 3), metavar="0..3", help="Default 0.")
@click.option("--ac", type=click.BOOL, metavar="0|1", help="RFLAGS.AC, which lifts SMAP.")
@click.option("--pkru", type=ADDRESS, metavar="N")
@click.option("--pkrs", type=ADDRESS, metavar="N")
@click.option("--pdpte", type=ADDRESS, multiple=True, metavar="N", help="The PAE PDPTE registers: four times, or from CR3.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--no-color", is_flag=True, help="No colours or other codes, on a terminal too.")
def walk(address: Any, list_examples: bool, as_json: bool, no_color: bool, **options: Any) -> int:
    """Show the translation of linear ADDRESS step by step: every reference that a page walk makes, with EPT or without.

    \b
    vmxemu walk --example 4x4
    vmxemu walk --tables FILE.toml --access write
    vmxemu walk 0xffff800000001000 --image memory.raw --cr3 0x1000 --eptp 0x201e
    vmxemu walk rip --run nested-ras --until 20M
    """
    if list_examples:
        return _list(as_json, no_color)
    from vmxemu.cli.walk_source import source_of

    options["registers"] = {name: options[name] for name in REGISTERS if options[name] is not None}
    source = source_of(address, options)
    stories = _walk(source, options)
    if as_json:
        from vmxemu.presentation.walk_json import as_json as plain

        click.echo(json.dumps(plain(stories, source.title), indent=1))
        return OK
    from vmxemu.presentation.tables import show
    from vmxemu.presentation.walk import Picture

    show(Picture(stories, source.title), plain=no_color)
    return OK


def _walk(source: "Source", options: dict[str, Any]) -> "list[Story]":
    from vmxemu.presentation.walk_story import tell
    from vmxemu.translation.account import account

    word = ACCESSES[source.access] | 4 * source.implicit | 8 * source.shadow_stack
    stride = source.stride if options["stride"] is None else options["stride"]
    mask = (1 << 64) - 1
    return [tell(account(source.m, source.address + number * stride & mask, word)) for number in range(source.repeat)]


def _list(as_json: bool, no_color: bool) -> int:
    from vmxemu.configuration import examples
    from vmxemu.presentation.tables import show, table

    rows = examples.shipped()
    if as_json:
        click.echo(json.dumps([{"name": name, "description": text} for name, text in rows], indent=1))
        return OK
    show(table("", ("example", "shows"), rows), plain=no_color)
    return OK

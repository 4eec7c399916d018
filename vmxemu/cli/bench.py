"""`vmxemu bench`: rates of this emulator on this computer."""

import click

from vmxemu.cli.lazy import LazyGroup


@click.group(
    cls=LazyGroup,
    members={
        "ept": ("vmxemu.cli.bench_ept:ept", "Address translation alone, over arrays of addresses."),
        "exit": ("vmxemu.cli.bench_guest:exits", "Round trips of VM exits."),
        "guest": ("vmxemu.cli.bench_guest:guest", "Guest code, and page walks in it."),
    },
)
def bench() -> None:
    """Measure this emulator's rates on this computer."""

"""The tree of commands."""

import click

from vmxemu.cli.lazy import LazyGroup

STATUSES = """\b
Exit status: 0 all well; 1 an expectation failed, a stale translation was used,
or traces differ; 2 bad input; 3 the guest went wrong; 70 internal error;
130 interrupted."""


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"vmxemu {version('vmxemu')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=STATUSES,
    members={
        "run": ("vmxemu.cli.run:run", "Run a scenario, a firmware image or a shipped blob."),
        "trace": ("vmxemu.cli.trace:trace", "Show, count, compare and verify recorded traces."),
        "walk": ("vmxemu.cli.walk:walk", "Show the translation of one address step by step."),
        "bench": ("vmxemu.cli.bench:bench", "Measure this emulator's rates."),
        "isa": ("vmxemu.cli.isa:isa", "Print the tables of facts: VMCS fields, exits, MSRs, paging entries, CPUs."),
        "blobs": ("vmxemu.cli.blobs:blobs", "List the shipped firmware blobs and what each shows."),
    },
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def vmxemu() -> None:
    """Emulate an x86-64 machine with Intel VMX, to develop and test hypervisors that run inside hypervisors.

    Start with: vmxemu run nested-ras
    """

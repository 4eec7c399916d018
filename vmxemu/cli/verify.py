"""`vmxemu trace verify`: run again what a trace describes, and compare."""

from typing import TYPE_CHECKING, Any

import click

from vmxemu.cli.status import DIFFERENT, OK

if TYPE_CHECKING:
    from vmxemu.configuration import Configuration
    from vmxemu.trace.compare import Comparison, Divergence
    from vmxemu.trace.file import Reader
    from vmxemu.trace.schema import Events


class _Enough(Exception):
    """The comparison is decided: the run need not go on."""


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--quiet", is_flag=True, help="No progress.")
def verify(file: str, quiet: bool) -> int:
    """Run again what a trace describes: exit status 0 if all events are equal, 1 with the first difference shown."""
    from vmxemu.cli.trace import batches, end, open_trace, show_divergence
    from vmxemu.configuration import Configuration, InputError
    from vmxemu.trace.compare import Comparison
    from vmxemu.trace.names import rules_of

    reader = open_trace(file)
    described = reader.header.get("configuration")
    if not isinstance(described, dict):
        raise InputError(file, "its header has no configuration")
    configuration = Configuration.from_header(described, f"{file}: header")
    damage: list[str] = []
    comparison = Comparison(batches(reader, damage))
    _replay(configuration, comparison, reader, quiet)
    divergence = comparison.divergence
    if divergence is not None and divergence.left is None and (damage or _stopped_early(reader)):
        divergence = None  # the trace ends before the run does, as it should
    if divergence is None:
        if not damage:
            print(f"equal: {comparison.index:,} events")
        return end(damage, OK)
    code = _disassembly(configuration, divergence)
    show_divergence(divergence, (file, "this run"), rules_of(reader.header), code)
    return end(damage, DIFFERENT)


def _stopped_early(reader: "Reader") -> bool:
    """Whether something outside the machine ended the recorded run."""
    return (reader.ending or {}).get("reason") in ("INTERRUPTED", "UNFINISHED")


def _replay(configuration: "Configuration", comparison: "Comparison", reader: "Reader", quiet: bool) -> None:
    from vmxemu.cli import session
    from vmxemu.cli.interrupt import Interrupts, Stop
    from vmxemu.presentation.progress import Progress

    progress = Progress(session.hertz_of(configuration), enabled=not quiet)
    with Interrupts() as interrupts:
        try:
            session.warm(progress, interrupts)
            machine = _machine(configuration)

            def compare(events: "Events") -> None:
                if not comparison.push(events):
                    raise _Enough

            def on_slice(running: Any) -> None:
                progress.slice(running)
                interrupts.check()

            machine.on_events(compare)
            machine.run(on_slice=on_slice)
            comparison.finish()
        except _Enough:
            pass
        except Stop:
            raise KeyboardInterrupt from None
        finally:
            progress.close()


def _machine(configuration: "Configuration") -> Any:
    from vmxemu.machine import Machine

    return Machine(configuration)


def _disassembly(configuration: "Configuration", divergence: "Divergence") -> tuple[str, str]:
    """The instructions at both events' RIPs, seen by running once more up to their cycle."""
    machine = _machine(configuration)
    sides = divergence.left, divergence.right
    machine.run(until=min(int(event["cycle"]) for event in sides if event is not None))
    left, right = (_instruction(machine, event) for event in sides)
    return left, right


def _instruction(machine: Any, event: Any) -> str:
    lines = [] if event is None else machine.disassemble(int(event["rip"]), 1)
    return str(lines[0]) if lines else ""

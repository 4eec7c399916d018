"""`vmxemu run`."""

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from vmxemu.cli.status import DIFFERENT, OK

if TYPE_CHECKING:
    from vmxemu.cli.session import Ending
    from vmxemu.configuration import Configuration


class Quantity(click.ParamType[int]):
    """An option value such as 256M, read by one of configuration.quantities."""

    def __init__(self, name: str) -> None:
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number. Fails with what was expected."""
        from vmxemu.configuration import quantities

        read: Callable[[Any], int] = getattr(quantities, self.name)
        try:
            return read(value)
        except ValueError as problem:
            self.fail(str(problem), param, ctx)


@click.command()
@click.argument("what", metavar="SCENARIO.toml|IMAGE|BLOB")
@click.option("--memory", type=Quantity("size"), metavar="SIZE", help="RAM, e.g. 256M.")
@click.option("--cpu", metavar="PROFILE", help="CPU profile; see: vmxemu isa cpus.")
@click.option("--topology", type=click.Choice(("bare", "layered")), help="bare: the image owns VMX root operation.")
@click.option("--max-cycles", type=Quantity("cycles"), metavar="N", help="Stop after so many cycles, e.g. 500M.")
@click.option("--seed", type=click.IntRange(0, (1 << 64) - 1), help="Seed of everything that is random in the machine.")
@click.option("--tlb", type=click.Choice(("exact", "lazy", "eager")), help="What the TLB drops: what it must, or all it may.")
@click.option("--check-translations", is_flag=True, default=None, help="Report uses of stale translations (slow).")
@click.option("--serial", metavar="FILE|-", default="-", show_default=True, help="Where serial output goes.")
@click.option("--debugcon", metavar="FILE|-", help="Where output on the debug port 0xE9 goes; without it, nowhere.")
@click.option("--inject", multiple=True, metavar="KIND@cycle=N,...", help="E.g. ce@cycle=5M,hpa=0x1f3000 (repeatable).")
@click.option("--record", metavar="FILE", help="Write a trace; see: vmxemu trace --help.")
@click.option("--quiet", is_flag=True, help="Guest output only: no progress, no tables.")
@click.option("--json", "as_json", is_flag=True, help="Print the tables as JSON (guest output goes to standard error).")
def run(what: str, **options: Any) -> int:
    """Run a scenario (.toml), a firmware image (a flat ROM that ends at 4 GiB) or a shipped blob (see: vmxemu blobs).

    Guest output appears as it comes; then come a timeline, VM exits, decisions, migrations and translation figures.
    """
    from vmxemu.configuration import Configuration

    configuration = Configuration.find(
        what,
        memory_size=options["memory"],
        cpu=options["cpu"],
        topology=options["topology"],
        max_cycles=options["max_cycles"],
        seed=options["seed"],
        inject=options["inject"] or None,
        tlb=options["tlb"],
        check_translations=options["check_translations"],
    )
    _check_outputs(what, configuration, options)
    return _run(configuration, options)


def _check_outputs(what: str, configuration: "Configuration", options: dict[str, Any]) -> None:
    """Complain before anything has been overwritten, or compiled."""
    from vmxemu.cli.files import check_writable, refuse_overwriting
    from vmxemu.configuration import InputError

    given = [name for option in ("serial", "debugcon", "record") if (name := options[option]) not in (None, "-")]
    refuse_overwriting(map(Path, given), [Path(what), Path(configuration.image.path)])
    if options["record"] is not None:
        try:
            check_writable(options["record"])
        except OSError as problem:
            raise InputError(options["record"], f"cannot be written: {problem.strerror}") from None


def _run(configuration: "Configuration", options: dict[str, Any]) -> int:
    from vmxemu.cli import session
    from vmxemu.cli.interrupt import Interrupts, Stop
    from vmxemu.presentation.progress import Progress

    hertz = session.hertz_of(configuration)
    progress = Progress(hertz, enabled=not options["quiet"])
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        stack.callback(progress.close)
        default: IO[bytes] = sys.stderr.buffer if options["as_json"] else sys.stdout.buffer
        streams = _streams(stack, {session.SERIAL: options["serial"], session.DEBUG_E9: options["debugcon"]}, default)
        output = session.Output(progress, default, streams)
        try:
            session.warm(progress, interrupts)
            from vmxemu.machine import Machine

            machine = Machine(configuration)
        except Stop as stop:
            session.say("interrupted before the first instruction")
            return stop.status
        writer = _writer(options["record"], configuration)
        if writer is not None:
            stack.callback(writer.abandon)
        machine.on_output(output.receive)
        begun = time.monotonic()
        ending = session.execute(machine, progress, interrupts, writer)
        facts = session.statistics_of(machine, begun)
        facts["expectations"] = _verdicts(configuration, facts, ending, output.text)
        _report(facts, ending, hertz, options)
    return _status(configuration, facts, ending)


def _streams(stack: ExitStack, names: dict[str, str | None], terminal: IO[bytes]) -> dict[str, IO[bytes]]:
    """Files for the channels that have a file name; "-" is the terminal's stream."""
    from vmxemu.cli.session import SERIAL
    from vmxemu.configuration import InputError

    streams: dict[str, IO[bytes]] = {}
    for channel, name in names.items():
        if name is None or (channel, name) == (SERIAL, "-"):
            continue
        try:
            streams[channel] = terminal if name == "-" else stack.enter_context(open(name, "wb", buffering=0))
        except OSError as problem:
            raise InputError(name, f"cannot be written: {problem.strerror}") from None
    return streams


def _writer(name: str | None, configuration: "Configuration") -> Any:
    from vmxemu.configuration import InputError

    if name is None:
        return None
    from vmxemu.trace.file import Writer, header_of

    try:
        return Writer(name, header_of(configuration.to_header()))
    except OSError as problem:
        raise InputError(name, f"cannot be written: {problem.strerror}") from None


def _verdicts(
    configuration: "Configuration", facts: dict[str, Any], ending: "Ending", output: str
) -> list[dict[str, Any]]:
    from vmxemu.configuration.expectations import Facts, judge

    if ending.reason in ("INTERRUPTED", "OUTPUT_FAILED"):
        return []
    verdicts = judge(configuration.expect, Facts(facts, ending.reason, ending.exit_status, output))
    return [{"name": one.name, "holds": one.holds, "problem": one.problem} for one in verdicts]


def _report(facts: dict[str, Any], ending: "Ending", hertz: int, options: dict[str, Any]) -> None:
    from vmxemu.cli.session import say

    if options["as_json"]:
        about = {"reason": ending.reason, "exit_status": ending.exit_status, "message": ending.message}
        print(json.dumps({"ending": {**about, "details": ending.details}, **facts}, indent=1, default=_plain))
    elif not options["quiet"]:
        from vmxemu.presentation.report import run_report

        run_report(facts, hertz)
    if stale := _stale(facts):
        say(f"{stale:,} use{'s' if stale != 1 else ''} of stale translations")
    if ending.message and (ending.exit_status or not options["quiet"]):
        say(ending.message)
    for line in ending.details:
        print(f"  {line}", file=sys.stderr)
    if options["quiet"]:
        for verdict in facts["expectations"]:
            if not verdict["holds"]:
                say(f"expectation failed: {verdict['name']}: {verdict['problem']}")


def _plain(value: Any) -> Any:
    """NumPy scalars and the like as JSON has them."""
    return value.item() if hasattr(value, "item") else str(value)


def _status(configuration: "Configuration", facts: dict[str, Any], ending: "Ending") -> int:
    """The exit status: how the run ended, unless the scenario expects just that; then whether its expectations hold, and
    whether no stale translation was used unless the scenario has a word on that.
    """
    verdicts = facts["expectations"]
    clean = not _stale(facts) or any(one.check.startswith("stale_translations") for one in configuration.expect)
    if not verdicts:
        return ending.exit_status or (OK if clean else DIFFERENT)
    expected_end = any(one.check in ("exit_status", "reason") for one in configuration.expect)
    if ending.exit_status and not expected_end:
        return ending.exit_status
    return OK if clean and all(verdict["holds"] for verdict in verdicts) else DIFFERENT


def _stale(facts: dict[str, Any]) -> int:
    """Uses of stale translations."""
    return int(facts.get("stale_translations", {}).get("uses", 0))

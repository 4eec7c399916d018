"""A machine that has run up to the place where `vmxemu walk` is to look at it."""

from typing import Any

from vmxemu.configuration import Configuration, InputError


def ran(what: str, until: int | None, cpu: str | None) -> tuple[Any, str]:
    """Run a scenario, an image or a blob, to its end or to a cycle: the machine, and what it is."""
    configuration = Configuration.find(what, cpu=cpu)
    machine, reason = _run(configuration, until)
    return machine, _title(what, machine, reason)


def replayed(file: str, event: int | None, cpu: str | None) -> tuple[Any, str]:
    """Run again what a trace describes, up to the cycle of an event (default the last)."""
    from vmxemu.cli.trace import batches, open_trace

    reader = open_trace(file)
    described = reader.header.get("configuration")
    if not isinstance(described, dict):
        raise InputError(file, "its header has no configuration")
    if cpu is not None:
        raise InputError("--cpu", "a trace has the CPU profile that it was recorded with")
    damage: list[str] = []
    base, cycle = 0, None
    for events in batches(reader, damage):
        if event is None:
            cycle = int(events["cycle"][-1]) if len(events) else cycle
        elif event < base + len(events):
            cycle = int(events["cycle"][event - base])
            break
        base += len(events)
    if cycle is None or damage:
        problem = damage[0] if damage else f"it has no event {event}" if base else "it has no events"
        raise InputError(file, f"{problem}; expected a number below {base}" if event is not None and not damage else problem)
    configuration = Configuration.from_header(described, f"{file}: header")
    machine, reason = _run(configuration, cycle)
    where = f"at event {event:,}" if event is not None else "at its last event"
    return machine, _title(f"{file} {where}", machine, reason)


def _title(what: str, machine: Any, reason: str) -> str:
    end = "" if reason == "UNTIL" else f"; the run has ended ({reason})"
    return f"{what}: {machine.cycles:,} cycles, {machine.level} runs{end}."


def _run(configuration: Configuration, until: int | None) -> tuple[Any, str]:
    from vmxemu.cli import session
    from vmxemu.cli.interrupt import Interrupts, Stop
    from vmxemu.presentation.progress import Progress

    progress = Progress(session.hertz_of(configuration), enabled=True)
    with Interrupts() as interrupts:
        try:
            session.warm(progress, interrupts)
            from vmxemu.machine import Machine

            machine = Machine(configuration)

            def on_slice(running: Any) -> None:
                progress.slice(running)
                interrupts.check()

            result = machine.run(until=until, on_slice=on_slice)
        except Stop:
            raise KeyboardInterrupt from None
        finally:
            progress.close()
    return machine, result.reason

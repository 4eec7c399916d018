"""One run as the command line makes it: machine, guest output, progress, trace file, signals."""

import sys
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from vmxemu.cli.interrupt import Interrupts, Stop
from vmxemu.cli.status import BAD_INPUT
from vmxemu.presentation.progress import Progress

if TYPE_CHECKING:
    from vmxemu.configuration import Configuration
    from vmxemu.trace.file import Writer

OUTPUT_KEPT_BYTES = 16 << 20  # for the expectations; a guest that prints for ever must not eat the host's memory
# The debug port 0xE9 repeats what blobs say on the serial port, so the terminal and the expectations do without it.
SERIAL, DEBUG_E9 = "serial", "debug"


@dataclass
class Ending:
    """How a run ended. `details` are the lines of a failure report."""

    reason: str
    exit_status: int
    message: str = ""
    details: list[str] = field(default_factory=list)


class Output:
    """Where the guest's bytes go. `streams` maps a channel to its stream; others go to `default`, port 0xE9 nowhere."""

    def __init__(self, progress: Progress, default: IO[bytes], streams: dict[str, IO[bytes]]) -> None:
        self._progress, self._default, self._streams = progress, default, streams
        self._kept = bytearray()

    def receive(self, channel: str, data: bytes) -> None:
        """Bytes that the guest has written to a channel."""
        stream = self._streams.get(channel)
        if channel == DEBUG_E9:
            if stream is not None:
                _write(stream, data)
            return
        room = OUTPUT_KEPT_BYTES - len(self._kept)
        self._kept += data[: max(room, 0)]
        if stream is None:
            self._progress.guest(data, self._default)
        else:
            _write(stream, data)

    @property
    def text(self) -> str:
        """Everything that the guest printed, up to a limit."""
        return self._kept.decode("utf-8", "replace")


def _write(stream: IO[bytes], data: bytes) -> None:
    """Raises OSError with the file's name."""
    try:
        stream.write(data)
    except OSError as problem:
        raise OSError(problem.errno, problem.strerror, stream.name) from None


def hertz_of(configuration: "Configuration") -> int:
    """Cycles of a second of virtual time."""
    if configuration.frequency is not None:
        return configuration.frequency
    from vmxemu.isa import cpus

    return cpus.load(configuration.cpu).identity.tsc_hz


def warm(progress: Progress, interrupts: Interrupts) -> None:
    """Compile or load all kernels, telling the user what he waits for. Raises Stop as soon as he does not want to."""
    interrupts.check()
    interrupts.at_once = True
    try:
        _warm(progress)
    finally:
        interrupts.at_once = False


def _warm(progress: Progress) -> None:
    cold = kernels_missing()
    progress.compiling(cold)
    from vmxemu.machine import warm_up

    warm_up(lambda name, done, total: progress.compiling(cold, name, done, total))


def kernels_missing() -> bool:
    """Whether the largest part of the machine has never been compiled, or not since its source changed."""
    from vmxemu.compile_cache import compiled_before

    return not compiled_before("vmxemu.machine.callbacks", "vmxemu_step")


def execute(machine: Any, progress: Progress, interrupts: Interrupts, writer: "Writer | None") -> Ending:
    """Run the machine to its end and close the trace. Whatever ends the run, what was recorded stays readable."""

    def on_slice(running: Any) -> None:
        progress.slice(running)
        interrupts.check()

    machine.on_events(progress.events)
    if writer is not None:
        machine.on_events(writer.add)
    try:
        result = machine.run(on_slice=on_slice)
        ending = Ending(result.reason, int(result.exit_status), result.message, list(result.details))
    except Stop as stop:
        ending = Ending("INTERRUPTED", stop.status, "interrupted")
    except OSError as problem:
        _abandon(writer)
        ending = Ending("OUTPUT_FAILED", BAD_INPUT, _told(problem, writer))
    except BaseException:
        _abandon(writer)
        raise
    finally:
        progress.close()
    return _close(writer, ending)


def _close(writer: "Writer | None", ending: Ending) -> Ending:
    if writer is None or ending.reason == "OUTPUT_FAILED":
        return ending
    try:
        writer.close({"reason": ending.reason, "exit_status": ending.exit_status})
    except OSError as problem:
        return Ending("OUTPUT_FAILED", BAD_INPUT, _told(problem, writer))
    return ending


def _abandon(writer: "Writer | None") -> None:
    if writer is not None:
        writer.abandon()


def _told(problem: OSError, writer: "Writer | None") -> str:
    if isinstance(problem, BrokenPipeError):
        raise problem
    where = f"{problem.filename}: " if problem.filename else ""
    kept = f"; the {writer.events:,} events before that can be read" if writer is not None else ""
    return f"{where}cannot be written: {problem.strerror or problem}{kept}"


def say(text: str) -> None:
    """One line for the user, out of the way of the guest's output."""
    sys.stdout.flush()
    print(f"vmxemu: {text}", file=sys.stderr, flush=True)


def statistics_of(machine: Any, begun: float) -> dict[str, Any]:
    """The machine's statistics; the wall time is ours if it has none."""
    facts = dict(machine.statistics())
    facts.setdefault("wall_seconds", time.monotonic() - begun)
    return facts

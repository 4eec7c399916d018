"""The command `vmxemu`. `main` is its entry point; each command is loaded only when it is asked for."""

import os
import signal
import sys
from collections.abc import Sequence

from vmxemu.cli.status import BAD_INPUT, BROKEN_PIPE, INTERNAL_ERROR, INTERRUPTED, OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. Nothing gets out as a traceback unless VMXEMU_DEBUG=1 is set."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us: no file of ours may take its number
            setattr(sys, name, open(os.devnull, "r+"))
    if os.environ.get("VMXEMU_DEBUG") == "1":
        return _run(arguments)
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _abandon_output()
        return BROKEN_PIPE
    except OSError as problem:
        _say(f"{problem.filename}: {problem.strerror}" if problem.filename else f"cannot go on: {problem}")
        return BAD_INPUT
    except Exception as problem:
        text = " ".join(str(problem).split())[:300]
        _say(f"internal error: {type(problem).__name__}: {text} (set VMXEMU_DEBUG=1 for the traceback)")
        return INTERNAL_ERROR


def _run(arguments: Sequence[str] | None) -> int:
    import click

    from vmxemu.cli.commands import vmxemu
    from vmxemu.configuration import InputError

    try:
        status = vmxemu.main(
            args=None if arguments is None else list(arguments), prog_name="vmxemu", standalone_mode=False
        )
        sys.stdout.flush()
        return status if isinstance(status, int) else OK
    except InputError as problem:
        _say(str(problem))
    except click.exceptions.NoArgsIsHelpError as problem:
        problem.show()
    except click.UsageError as problem:
        path = problem.ctx.command_path if problem.ctx else "vmxemu"
        text = " ".join(problem.format_message().split()).rstrip(".")
        _say(f"{text} (see {path} --help)")
    except click.ClickException as problem:
        _say(problem.format_message())
    except click.Abort:
        raise KeyboardInterrupt from None
    except SystemExit:  # Click's way with a broken pipe, and used for nothing else here
        raise BrokenPipeError from None
    return BAD_INPUT


def _say(text: str) -> None:
    try:
        print(f"vmxemu: {text}", file=sys.stderr, flush=True)
    except OSError:
        pass


def _abandon_output() -> None:
    """Whoever read our output has gone: keep the interpreter from complaining about it at exit."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(nowhere, stream.fileno())

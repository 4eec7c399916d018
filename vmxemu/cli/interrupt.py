"""Ctrl-C and SIGTERM end a run between two slices, so that the summary can be shown and the trace closed."""

import signal
from types import FrameType, TracebackType
from typing import Any, Self

from vmxemu.cli.status import INTERRUPTED, TERMINATED

STATUS = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


class Stop(BaseException):
    """The user wants the run to end; `status` is the exit status. Not an error, so that no handler of errors takes it."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__("interrupted")


class Interrupts:
    """While entered, the first signal is only noted: `check` raises Stop. A second one ends things the hard way.

    Where nothing can be spoiled, as in compiling, `at_once` is set and the first signal raises Stop itself.
    """

    def __init__(self) -> None:
        self.at_once = False
        self._status = 0
        self._before: dict[signal.Signals, Any] = {}

    def check(self) -> None:
        """Raises Stop if a signal has come."""
        if self._status:
            raise Stop(self._status)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._status = STATUS[signal.Signals(number)]
        self._restore()
        if self.at_once:
            self.check()

    def __enter__(self) -> Self:
        for number in STATUS:
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread: signals are somebody else's business
                break
        return self

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

"""How far a list of measurements has come: a line on a terminal's standard error, nothing elsewhere."""

import sys
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vmxemu.presentation.tables import console, escape

LABEL_COLUMNS = 60


class Tally:
    """While entered, shows what is measured now and how many of `total` are done."""

    def __init__(self, total: int) -> None:
        columns = (MofNCompleteColumn(), BarColumn(20), TimeElapsedColumn(), TextColumn("{task.description}"))
        shown = sys.stderr.isatty()
        self._progress = Progress(*columns, console=console(sys.stderr), transient=True, disable=not shown)
        self._task = self._progress.add_task("", total=total)

    def now(self, label: str) -> None:
        """The next one begins."""
        self._progress.update(self._task, description=escape(label[:LABEL_COLUMNS]))

    def done(self) -> None:
        """It has ended."""
        self._progress.advance(self._task)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

"""Tables for people, on a terminal or in a pipe."""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import IO

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

PIPE_COLUMNS = 240  # nothing is cut or folded when nobody's terminal limits the width


def console(stream: IO[str], plain: bool = False) -> Console:
    """A console on the stream; `plain`: without colours and other codes."""
    if stream.isatty():
        return Console(file=stream, highlight=False, soft_wrap=False, color_system=None if plain else "auto")
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdigit() and int(columns) else PIPE_COLUMNS
    return Console(file=stream, highlight=False, width=width)


def show(*renderables: RenderableType, stream: IO[str] | None = None, plain: bool = False) -> None:
    """Print to the stream (default standard output); in a pipe, lines end where their text ends."""
    target = stream or sys.stdout
    screen = console(target, plain)
    if target.isatty():
        screen.print(*renderables, sep="\n")
        return
    with screen.capture() as captured:
        screen.print(*renderables, sep="\n")
    target.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> Table:
    """A table; the columns named in `right` are numbers."""
    made = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(escape(str(cell)) for cell in row))
    return made


def escape(text: str) -> str:
    """Keep rich from reading markup in the text."""
    return text.replace("[", r"\[")


def si(value: float) -> str:
    """A rate or count in at most four digits: 12.3 M."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {unit}" if abs(value) < 999.5 * limit else f"{value / limit:.0f} {unit}"
    return f"{value:.3g}" if value != int(value) else f"{int(value)}"


def seconds(value: float) -> str:
    """A duration with a fitting unit."""
    for limit, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {unit}" if abs(value) < 1000 else f"{value:.0f} s"
    return "0 s" if value == 0 else f"{value * 1e9:.3g} ns"

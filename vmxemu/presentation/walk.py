"""One or more translations as `vmxemu walk` shows them."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from vmxemu.presentation.walk_grid import Glyphs, glyphs, grid, outcome_name
from vmxemu.presentation.walk_reason import reason
from vmxemu.presentation.walk_result import head, result
from vmxemu.presentation.walk_story import Story
from vmxemu.presentation.walk_table import references

WIDEST = 110  # wider lines are hard to read, however wide the terminal is


@dataclass(frozen=True, slots=True)
class Picture:
    """All of it: the first walk in full, later ones with what caches spared them, and a comparison. Fits the console on
    which it is printed.
    """

    stories: Sequence[Story]
    title: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.lines(min(options.max_width, WIDEST), glyphs(options.encoding)):
            line.no_wrap, line.overflow = True, "ignore"
            yield line

    def lines(self, columns: int, marks: Glyphs) -> list[Text]:
        """The lines, no wider than `columns` as far as addresses allow."""
        lines: list[Text] = []
        for number, story in enumerate(self.stories):
            lines += [Text(), *_one(story, self.stories[0], number, self.title, columns, marks)]
        return [*lines, Text(), *comparison(self.stories)] if len(self.stories) > 1 else lines


def _one(story: Story, first: Story, number: int, title: str, columns: int, marks: Glyphs) -> list[Text]:
    why = reason(story)
    like = first if number else None
    if number:
        gla = story.account.gla
        same = gla == first.account.gla
        lines = [Text(f" Walk {number + 1}: {'the same address again' if same else f'linear address {gla:#x}'}", "bold")]
    else:
        lines = head(story, columns, title)
    for part in (grid(story, why, marks, columns, like), references(story, why, marks, columns), result(story, why, columns)):
        if part:
            lines += [Text(), *part]
    return lines


def comparison(stories: Sequence[Story]) -> list[Text]:
    """One line for each walk: what it took, and what caches spared it."""
    rows = [("walk", "linear address", "outcome", "references", "cycles")]
    for number, story in enumerate(stories):
        account = story.account
        rows.append(
            (str(number + 1), f"{account.gla:#x}", outcome_name(story), str(account.count), f"{account.cycles:,}")
        )
    widths = [max(len(row[index]) for row in rows) for index in range(5)]
    lines = []
    for index, row in enumerate(rows):
        text = [f"{cell:{width}}" for cell, width in zip(row[:3], widths[:3], strict=True)]
        numbers = [f"{cell:>{width}}" for cell, width in zip(row[3:], widths[3:], strict=True)]
        lines.append(Text(" " + "  ".join([*text, *numbers]), "" if index else "bold"))
    return lines

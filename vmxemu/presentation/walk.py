"""One or more translations as `vmxemu walk` shows them."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from vmxemu.presentation.walk_grid import Glyphs, grid, outcome_name
from vmxemu.presentation.walk_reason import reason
from vmxemu.presentation.walk_result import head, result
from vmxemu.presentation.walk_story import Story
from vmxemu.presentation.walk_table import references

WIDEST = 110  # wider lines are hard to read, however wide the terminal is


def picture(stories: Sequence[Story], title: str, columns: int, marks: Glyphs) -> RenderableType:
    """All of it: the first walk in full, later ones with what caches spared them, and a comparison."""
    columns = min(columns, WIDEST)
    lines: list[Text] = []
    for number, story in enumerate(stories):
        lines += [Text(), *_one(story, stories[0], number, title, columns, marks)]
    if len(stories) > 1:
        lines += [Text(), *comparison(stories)]
    for line in lines:
        line.no_wrap, line.overflow = True, "ignore"
    return Group(*lines)


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

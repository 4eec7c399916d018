"""The picture of a two-dimensional walk: a row for each guest's table and the page, a column for each EPT level.

Every reference has its number, in order; what a cache spared is hollow, what was not reached a dot.
"""

from dataclasses import dataclass

from rich.text import Text

from vmxemu import outcome as outcomes
from vmxemu.presentation.walk_reason import Reason
from vmxemu.presentation.walk_story import LEVEL_NAMES, Row, Story, target_name
from vmxemu.translation.account import EPT, EPT_CACHE, GUEST, PAGE

WIDE_CELL, NARROW_CELL, NARROW_FROM = 8, 6, 5  # columns of a level, and from how many levels on they are narrow
NARROWEST = 14
PAGE_NAMES = {1: "4K", 2: "2M", 3: "1G"}
READ_EPT, READ_GUEST, SPARED, FAILED, LINE = "cyan", "green", "dim", "bold red", "dim"


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The marks; terminals without Unicode have others."""

    ept: str
    guest: str
    ept_spared: str
    guest_spared: str
    failed: str
    line: str
    arrow: str
    unreached: str
    bullet: str


UNICODE = Glyphs("●", "■", "○", "□", "✗", "─", "▶", "·", "▸")
ASCII = Glyphs("*", "#", "o", "o", "X", "-", ">", ".", ">")


def glyphs(encoding: str) -> Glyphs:
    """Those that the encoding of a stream can show."""
    return UNICODE if encoding.lower().replace("-", "").startswith("utf") else ASCII


OUTCOMES = {
    int(outcomes.DONE): "translated",
    int(outcomes.FAULT): "#GP",
    int(outcomes.EPT_VIOLATION): "EPT violation",
    int(outcomes.EPT_MISCONFIG): "EPT misconfiguration",
    int(outcomes.POISON): "poisoned",
    int(outcomes.PML_FULL): "PML full",
    int(outcomes.SPP_EVENT): "SPP event",
    int(outcomes.RETIRED_FRAME): "retired frame",
}


def grid(story: Story, why: Reason, marks: Glyphs, columns: int, like: Story | None = None) -> list[Text]:
    """The lines of the picture. `like`: an earlier walk whose shape stands for what this one was spared."""
    levels = range(story.account.processor.ept_levels, 0, -1)
    targets = _targets(story, like)
    places = {target: _place(story, like, target) for target in targets}
    if not targets or not story.rows:
        return []
    label = max(len(_label(target)) for target in targets)
    width = max(NARROWEST, *map(len, places.values()))
    lines = _heading(levels, label, width)
    for target in targets:
        line = Text(f" {_label(target):{label}}  {places[target]:{width}} ")
        line.append_text(_row(story, why, marks, like, target, levels))
        note = story.spared_by(target) or ("EPT cache" if story.of(EPT_CACHE, target) else "")
        if note and len(line) + 1 + len(note) <= columns:
            line.append(f" {note}", SPARED)
        lines.append(line)
    return [*lines, Text(), _legend(story, marks, bool(levels), bool(why.row))]


def _cell(levels: range) -> int:
    return NARROW_CELL if len(levels) >= NARROW_FROM else WIDE_CELL


def _lead(cell: int) -> int:
    return 2 if cell == WIDE_CELL else 1


def _heading(levels: range, label: int, width: int) -> list[Text]:
    left = f" {'to find':{label}}  {'guest-physical' if levels else 'at':{width}} "
    if not levels:
        return [Text(f"{left}   leads to", "bold")]
    cell = _cell(levels)
    lead = " " * _lead(cell)
    names = "".join(f"{lead}{LEVEL_NAMES[level]}".ljust(cell) for level in levels)
    above = Text(" " * len(left)).append(f"{lead}read these EPT entries".ljust(len(names)), "dim").append("   leads to", "dim")
    return [above, Text(left + names.rstrip(), "bold")]


def _label(target: int) -> str:
    return "the page" if target == PAGE else target_name(target)


def _targets(story: Story, like: Story | None) -> list[int]:
    """Guest levels from the top to the leaf, then the page."""
    top = story.account.processor.guest_levels
    leaf = next((one.guest_leaf for one in (story, like) if one and one.guest_leaf), None)
    lowest = leaf.reference.level if leaf else 1
    return [*range(top, lowest - 1, -1), *([PAGE] if top or story.account.processor.ept_levels else [])]


def _place(story: Story, like: Story | None, target: int) -> str:
    """The guest-physical address that is looked for, as far as it is known."""
    for row in story.final:
        if row.target == target and row.kind in (GUEST, EPT):
            return f"{row.reference.gpa:#x}"
    if target == PAGE and story.account.kind == 0:
        return f"{story.account.gpa:#x}"
    same = like is not None and like.account.gla == story.account.gla
    return _place(like, None, target) if like is not None and same else ""


def _row(story: Story, why: Reason, marks: Glyphs, like: Story | None, target: int, levels: range) -> Text:
    """The EPT walk for one target, then the guest's entry or the end."""
    line = Text()
    read = {row.reference.level: row for row in story.of(EPT, target)}
    spared = story.spared_by(target)
    reached = bool(read) or bool(spared) or bool(story.of(GUEST, target)) or _is_end(story, target)
    lowest = _lowest(story, like, target)
    complete = reached and (bool(spared) or not read or _is_complete(story, target))
    cell = _cell(levels)
    cached = story.ept_spared_from(target)
    for level in levels:
        if level in read:
            goes_on = complete or level > min(read)
            line.append_text(_read(read[level], why, marks, cell, goes_on))
        elif (spared and level >= lowest) or (cached is not None and level >= cached):
            line.append(marks.line * _lead(cell), LINE).append(marks.ept_spared, SPARED)
            line.append(marks.line * (cell - _lead(cell) - 1), LINE)
        elif complete:
            size = f" {PAGE_NAMES[level + 1]} " if level + 1 in read else ""
            line.append(size, "italic").append(marks.line * (cell - len(size)), LINE)
        else:
            line.append((" " * _lead(cell) + marks.unreached).ljust(cell), LINE)
    if complete:
        line.append(f"{marks.line}{marks.arrow} ", LINE)
        line.append_text(_end(story, why, marks, target))
    elif reached:
        line.append(" ").append(outcome_name(story), FAILED)
    else:
        line.append("   ").append(marks.unreached, LINE)
    return line


def _read(row: Row, why: Reason, marks: Glyphs, width: int, goes_on: bool) -> Text:
    """A cell with a reference's number."""
    decided = row is why.row
    number = f"{marks.failed if decided else marks.ept}{row.number}"
    cell = Text().append(marks.line * _lead(width), LINE).append(number, FAILED if decided else READ_EPT)
    return cell.append((marks.line if goes_on else " ") * (width - _lead(width) - len(number)), LINE)


def _is_end(story: Story, target: int) -> bool:
    """Whether the walk came to the page without a look into EPT."""
    return target == PAGE and story.account.kind == 0


def _is_complete(story: Story, target: int) -> bool:
    """Whether the EPT walk for the target found it."""
    if target != PAGE:
        return bool(story.of(GUEST, target))
    return story.account.kind == 0


def _lowest(story: Story, like: Story | None, target: int) -> int:
    """The level at which the EPT walk for a target ends, seen in this walk or in the earlier one."""
    for one in (story, like):
        rows = one.of(EPT, target) if one else []
        if rows:
            return min(row.reference.level for row in rows)
    return 1


def _end(story: Story, why: Reason, marks: Glyphs, target: int) -> Text:
    """What an arrow leads to."""
    end = Text()
    if target == PAGE:
        end.append(f"{story.account.hpa:#x}", "bold green")
    for row in story.of(GUEST, target):
        decided = row is why.row
        end.append(f"{marks.failed if decided else marks.guest}{row.number}", FAILED if decided else READ_GUEST)
        if row.is_leaf and row.present and row.reference.level > 1:
            end.append(f" {'4M' if row.structure == 'PDE_4M' else PAGE_NAMES[row.reference.level]} page", "italic")
        if story.account.kind and row.number == max(one.number or 0 for one in story.rows):
            end.append(f" {outcome_name(story)}", FAILED)
    if target != PAGE and not story.of(GUEST, target):
        end.append(marks.guest_spared, SPARED)
    return end


def outcome_name(story: Story) -> str:
    """The outcome in a word or two."""
    account = story.account
    if account.is_page_fault:
        return "#PF"
    return OUTCOMES.get(account.kind, "?")


def _legend(story: Story, marks: Glyphs, two_dimensional: bool, decided: bool) -> Text:
    legend = Text(" ")
    entries = [(marks.ept, READ_EPT, "EPT entry read")] if two_dimensional and story.of(EPT) else []
    entries += [(marks.guest, READ_GUEST, "guest entry read")] if story.of(GUEST) else []
    if story.of(EPT_CACHE) or any(story.spared_by(target) for target in range(6)):
        hollow = f"{marks.ept_spared} {marks.guest_spared}" if two_dimensional else marks.guest_spared
        entries.append((hollow, SPARED, "spared by a cache"))
    if decided:
        entries.append((marks.failed, FAILED, "decided the outcome"))
    for mark, style, text in entries:
        legend.append(mark, style).append(f" {text}   ", "dim")
    return legend


__all__ = ["ASCII", "UNICODE", "Glyphs", "glyphs", "grid", "outcome_name"]

"""The numbered table of a walk's references, in groups: who needed them."""

from collections.abc import Sequence

from rich.text import Text

from vmxemu.presentation.walk_grid import FAILED, READ_EPT, READ_GUEST, SPARED, Glyphs
from vmxemu.presentation.walk_reason import Reason
from vmxemu.presentation.walk_story import CACHES, FLAG_STORE, Row, Story, level_name, target_name
from vmxemu.translation.account import EPT, EPT_CACHE, FLAGS, GUEST, NESTED_TLB, PML, SPP, STLB, TLB, WALK_CACHE

COLUMNS = ("#", "which", "at host-phys.", "entry", "flags", "so far", "cycles")
RIGHT = ("#", "cycles")
FLAGS_AT_LEAST = 12
STYLES = {GUEST: READ_GUEST, EPT: READ_EPT, SPP: "magenta"}
FIXED_HEADINGS = {
    WALK_CACHE: "spared: the tables above",
    TLB: "spared: the whole walk",
    STLB: "spared: the whole walk",
    SPP: "sub-page write permissions",
}
AGAIN = "again without the walk caches: they must not decide a fault"
FULL = "... and more: the journal is full"
Cells = tuple[str, ...]
Group = tuple[int, str, int]


def references(story: Story, why: Reason, marks: Glyphs, columns: int) -> list[Text]:
    """The lines of the table, no wider than `columns` as far as that can be."""
    if not story.rows:
        return []
    shown = [row for row in story.rows if row.target != FLAG_STORE or row.kind not in (EPT, *CACHES) or row is why.row]
    table = [_cells(row) for row in shown]
    widths = [max(len(name), *(len(cells[index]) for cells in table)) for index, name in enumerate(COLUMNS)]
    gap = 2 if sum(widths) + 2 * len(widths) + 1 <= columns else 1
    spare = columns - 1 - sum(widths) - gap * (len(widths) - 1)
    widths[4] = max(widths[4] + min(spare, 0), FLAGS_AT_LEAST)
    lines = [_line(COLUMNS, widths, gap, "bold")]
    group: Group = (0, "", 0)
    for row, cells in zip(shown, table, strict=True):
        if (found := _group(story, row)) != group:
            if found[0] != group[0]:
                lines.append(Text(f" {marks.bullet} {AGAIN}", style="bold yellow"))
            group = found
            lines.append(Text(f" {marks.bullet} {_heading(story, row, group[1])}", style="bold"))
        lines += _lines(cells, widths, gap, FAILED if row is why.row else _style(row))
    return [*lines, Text(f" {FULL}", style="bold yellow")] if story.account.is_cut else lines


def _style(row: Row) -> str:
    return SPARED if row.kind in CACHES else STYLES.get(row.kind, "yellow")


def _group(story: Story, row: Row) -> Group:
    """Rows of one group stand under one heading: the attempt, what kind of group, for whom."""
    if row.kind in FIXED_HEADINGS:
        return row.attempt, FIXED_HEADINGS[row.kind], 0
    of_guest = row.kind == FLAGS and any(one.reference.hpa == row.reference.hpa for one in story.of(GUEST))
    if row.target == FLAG_STORE or of_guest:
        return row.attempt, "accessed and dirty flags", 0
    if not story.account.processor.ept_levels:
        return row.attempt, "guest tables", 0
    return row.attempt, "", row.target


def _heading(story: Story, row: Row, fixed: str) -> str:
    """Who needed the references of a group."""
    if fixed:
        return fixed
    how = "EPT translates" if story.of(EPT, row.target) or row.attempt < story.rows[-1].attempt else "at guest-physical"
    return f"{target_name(row.target)}: {how} {row.reference.gpa:#x}"


def _cells(row: Row) -> Cells:
    reference = row.reference
    number = str(row.number) if row.number else "-"
    cycles = f"{reference.cycles:,}" if reference.cycles or row.number else ""
    value = f"{reference.entry:#x}" if row.kind in (GUEST, EPT, SPP, FLAGS) else ""
    flags = " ".join(row.flags)
    if row.kind == PML:
        value = f"{reference.gpa & ~0xFFF:#x}"
        flags = "page logged"
    elif row.kind in CACHES:
        flags = _given(row)
    return number, row.title, f"{reference.hpa:#x}", value, flags, row.so_far, cycles


def _given(row: Row) -> str:
    """What a cache knew."""
    if row.kind in (WALK_CACHE, EPT_CACHE):
        side = "EPT" if row.kind == EPT_CACHE else "guest"
        return f"the table of {side} {level_name(row.reference.level - 1)}"
    return f"the frame of {target_name(row.target)}" if row.kind == NESTED_TLB else "the frame of the page"


def _lines(cells: Cells, widths: Sequence[int], gap: int, style: str) -> list[Text]:
    """One row; flags that are too many for their column go on below."""
    pieces, text = [], cells[4]
    while len(text) > widths[4]:
        cut = text.rfind(" ", 0, widths[4] + 1)
        cut = cut if cut > 0 else widths[4]
        pieces.append(text[:cut])
        text = text[cut:].lstrip()
    pieces.append(text)
    first = _line((*cells[:4], pieces[0], *cells[5:]), widths, gap, style)
    blank = ("",) * 4
    return [first, *(_line((*blank, piece, "", ""), widths, gap, style) for piece in pieces[1:])]


def _line(cells: Sequence[str], widths: Sequence[int], gap: int, style: str) -> Text:
    line = Text(" ")
    for index, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        text = f"{cell:>{width}}" if COLUMNS[index] in RIGHT else f"{cell:{width}}"
        plain = style == "bold" or index in (0, 1) or style in (FAILED, SPARED)
        line.append(text, style if plain else "")
        line.append(" " * gap)
    line.rstrip()
    return line

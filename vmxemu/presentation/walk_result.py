"""What a walk is about (head) and how it ended (result), for people."""

import textwrap

from rich.text import Text

from vmxemu import outcome as outcomes
from vmxemu.isa import bits, exits, paging
from vmxemu.presentation.walk_grid import PAGE_NAMES, outcome_name
from vmxemu.presentation.walk_reason import Reason, access_name
from vmxemu.presentation.walk_story import LEVEL_NAMES, Row, Story, pat_type
from vmxemu.translation import layout
from vmxemu.translation.account import EPT, GUEST, OFF, PAE, PAGE, STLB, TLB, Processor

CONTROLS = (
    ("cr0", "CR0_WP"), ("cr4", "CR4_PSE"), ("cr4", "CR4_PGE"), ("efer", "EFER_NXE"), ("cr4", "CR4_SMEP"),
    ("cr4", "CR4_SMAP"), ("cr4", "CR4_PKE"), ("cr4", "CR4_PKS"),
)  # fmt: skip
EXTENSIONS = {
    int(layout.EPT_MODE_BASED_EXECUTE): "mode-based execute",
    int(layout.EPT_SUBPAGE_WRITE): "sub-page write",
    int(layout.EPT_PAGE_MODIFICATION_LOG): "PML",
    int(layout.EPT_CONVERT_TO_VE): "#VE",
}
EXIT_OF = {
    int(outcomes.EPT_VIOLATION): "EPT_VIOLATION",
    int(outcomes.EPT_MISCONFIG): "EPT_MISCONFIG",
    int(outcomes.PML_FULL): "PML_FULL",
    int(outcomes.SPP_EVENT): "SPP_EVENT",
}
LABEL = 16
GOOD, BAD = "bold green", "bold red"


def head(story: Story, columns: int, title: str = "") -> list[Text]:
    """What is translated, by what kind of processor, and how the address is cut into indices."""
    account = story.account
    line = Text(" ").append(f"{_start(access_name(account))} of linear address {account.gla:#x}", "bold")
    lines = [line]
    if title:
        lines += _wrapped(title, columns)
    lines += _wrapped(processor_text(account.processor), columns)
    cut = indices(story)
    if len(cut) > 1:
        widths = [max(len(above), len(below)) for above, below in cut]
        rows = ("   ".join(f"{pair[row]:{width}}" for pair, width in zip(cut, widths, strict=True)) for row in (0, 1))
        above, below = rows
        lines += [Text(), Text(f" {above}".rstrip(), "dim"), Text(f" {below}".rstrip())]
    return lines


def processor_text(processor: Processor) -> str:
    """Mode, controls, roots of the tables."""
    mode = "paging off" if processor.mode == OFF else f"{processor.mode} paging"
    on = [name.partition("_")[2] for register, name in CONTROLS if getattr(processor, register) & int(getattr(bits, name))]
    parts = [mode + (f" ({' '.join(on)})" if on and processor.mode != OFF else ""), f"CPL {processor.cpl}"]
    if processor.mode == PAE:
        parts.append("PDPTEs " + " ".join(f"{value:#x}" for value in processor.pdptes))
    elif processor.mode != OFF:
        parts.append(f"CR3 {processor.cr3:#x}")
    if processor.ept_levels:
        fields = paging.decode("EPTP", processor.eptp)
        extras = [text for flag, text in (("AD", "A/D flags"), ("SSS", "shadow-stack control")) if fields[flag]]
        extras += [text for mask, text in EXTENSIONS.items() if processor.ept_extensions & mask]
        parts.append(f"{processor.ept_levels}-level EPT" + (f" ({', '.join(extras)})" if extras else ""))
        parts.append(f"EPTP {processor.eptp:#x}")
    return "; ".join([*parts, "walk caches on"] if processor.walk_caches else parts)


def indices(story: Story) -> list[tuple[str, str]]:
    """The parts of the linear address: which bits choose what, and their value."""
    account = story.account
    processor, gla, low = account.processor, account.gla, 12
    step = processor.index_bits
    leaf = story.guest_leaf.reference.level if story.guest_leaf else 1
    parts: list[tuple[str, str]] = []
    for level in range(processor.guest_levels, leaf - 1, -1):
        low = 12 + step * (level - 1)
        parts.append((f"{low + step - 1}:{low} {LEVEL_NAMES[level]}", str(gla >> low & (1 << step) - 1)))
    if processor.mode == PAE:
        parts.insert(0, ("31:30 PDPTE register", str(gla >> 30 & 3)))
    return [*parts, (f"{low - 1}:0 offset", f"{gla & (1 << low) - 1:#x}")]


def result(story: Story, why: Reason, columns: int) -> list[Text]:
    """How it ended."""
    account = story.account
    if account.kind == int(outcomes.DONE):
        lines = _translated(story)
    elif account.is_page_fault:
        lines = _titled(f"Page fault (#PF): error code {account.error_code:#x}", BAD)
        lines += _decoded("PAGE_FAULT", account.error_code, 6)
    elif account.kind == int(outcomes.FAULT):
        lines = _titled("General-protection fault (#GP), error code 0x0", BAD)
    else:
        lines = _event(story)
    cost = f"{account.count} reference{'s' * (account.count != 1)}, {account.cycles:,} cycles"
    return [lines[0], *_wrapped(why.sentence, columns, "why"), *lines[1:], _item("cost", cost)]


def _translated(story: Story) -> list[Text]:
    account, guest, ept = story.account, story.guest_leaf, story.ept_leaf
    pages = [f"guest page {_size(guest)}" if guest else "", f"EPT page {_size(ept)}" if ept else ""]
    cached = f"cached as {size_name(account.page_bytes)}" if any(pages) else f"page {size_name(account.page_bytes)}"
    lines = _titled("Translated", GOOD)
    if account.processor.ept_levels and account.processor.mode != OFF:
        lines.append(_item("guest-physical", f"{account.gpa:#x}"))
    lines.append(_item("host-physical", f"{account.hpa:#x}", GOOD))
    lines.append(_item("page", ", ".join(text for text in (*pages, cached) if text)))
    if text := rights(story):
        lines.append(_item("rights", text))
    if text := memory_type(story):
        lines.append(_item("memory type", text))
    return lines


def rights(story: Story) -> str:
    """What the entries read permit: the guest's, EPT's, and both together; or what the TLB says."""
    for row in (*story.of(TLB), *story.of(STLB)):
        return f"{row.so_far[:3]}, {'user' if row.so_far[-1] == 'U' else 'supervisor'} page, says the {row.title}"
    guest = next((row.so_far for row in reversed(story.of(GUEST))), "")
    ept = next((row.so_far for row in reversed(story.of(EPT, PAGE))), "")
    if not guest and not ept:
        return ""
    parts = [f"guest {guest}"] * bool(guest) + [f"EPT {ept.strip()}"] * bool(ept)
    if not guest:
        return ept.strip()
    page = "user page" if guest[-1] == "U" else "supervisor page"
    if not ept:
        return f"{guest[:3]}, {page}"
    both = "".join(one if one == other else "-" for one, other in zip(guest[:3], ept[:3], strict=True))
    return f"{both}, {page} ({', '.join(parts)})"


def memory_type(story: Story) -> str:
    """The effective type, and the types that the entries read ask for."""
    guest, ept, effective = story.guest_leaf, story.ept_leaf, story.account.memory_type
    parts = []
    if guest:
        parts.append(f"guest's PAT {pat_type(paging.decode(guest.structure, guest.reference.entry), story.account.processor)}")
    if ept:
        fields = paging.decode(ept.structure, ept.reference.entry)
        parts.append(f"EPT {paging.memory_type(fields['TYPE'])}{', which ignores the PAT' if fields['IPAT'] else ''}")
    elif not story.account.processor.ept_levels:
        parts.append("MTRRs")
    if effective is None:
        return ", ".join(parts)
    return paging.memory_type(effective) + (f" ({', '.join(parts)})" if story.rows and parts else "")


def _event(story: Story) -> list[Text]:
    account = story.account
    if account.kind not in EXIT_OF:
        return [*_titled("The frame is out of use", BAD), _item("host-physical", f"{account.hpa:#x}")]
    name = EXIT_OF[account.kind]
    lines = _titled(f"{_start(outcome_name(story))}: VM exit {int(getattr(exits, name))} ({name})", BAD)
    lines.append(_item("guest-physical", f"{account.gpa:#x}"))
    if account.kind == int(outcomes.EPT_VIOLATION):
        lines.append(_item("qualification", f"{account.qualification:#x}"))
        lines += _decoded("EPT_VIOLATION", account.qualification, 14)
        if account.convertible:
            lines.append(_item("#VE", "the entry lets it become a virtualization exception instead"))
    elif account.kind == int(outcomes.SPP_EVENT):
        lines.append(_item("qualification", f"{account.qualification:#x}"))
        lines += _decoded("SPP_EVENT", account.qualification, 11)
    return lines


def _decoded(structure: str, value: int, last: int) -> list[Text]:
    """A word bit by bit, up to bit `last` or the highest that is 1."""
    lines = []
    for one in paging.STRUCTURES[structure]:
        if one.kind != "flag" or (one.low > last and not one.of(value)):
            continue
        is_set = one.of(value)
        line = Text(f"   bit {one.low:2}  {one.name.replace('_', ' '):14}  ")
        line.append(f"{is_set}  {one.meaning if is_set else one.when_clear}")
        line.stylize("bold" if is_set else "dim")
        lines.append(line)
    return lines


def _titled(text: str, style: str) -> list[Text]:
    return [Text(" ").append(text, style)]


def _item(label: str, text: str, style: str = "") -> Text:
    return Text(f"   {label:{LABEL}}").append(text, style)


def _wrapped(text: str, columns: int, label: str = "") -> list[Text]:
    indent = LABEL + 3 if label else 1
    pieces = textwrap.wrap(text, max(columns - indent - 1, 20), break_long_words=False) or [""]
    first = _item(label, pieces[0], "bold") if label else Text(f" {pieces[0]}")
    return [first, *(Text(" " * indent).append(piece, "bold" if label else "") for piece in pieces[1:])]


def _size(row: Row) -> str:
    return "4M" if row.structure == "PDE_4M" else PAGE_NAMES[row.reference.level]


def size_name(size: int) -> str:
    """4K, 2M, 4M or 1G."""
    return f"{size >> 30}G" if size >= 1 << 30 else f"{size >> 20}M" if size >= 1 << 20 else f"{size >> 10}K"


def _start(text: str) -> str:
    return text[:1].upper() + text[1:]


__all__ = ["head", "indices", "memory_type", "processor_text", "result", "rights", "size_name"]

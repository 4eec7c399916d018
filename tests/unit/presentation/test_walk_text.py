"""The picture and the tables, as text."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from tests.unit.presentation import handmade
from vmxemu import outcome as outcomes
from vmxemu.presentation.walk import WIDEST, Picture
from vmxemu.presentation.walk_grid import ASCII, UNICODE, glyphs
from vmxemu.presentation.walk_json import as_json
from vmxemu.presentation.walk_story import tell
from vmxemu.translation.account import EPT, EPT_CACHE, GUEST, PAGE, TLB, WALK_CACHE, Account, Reference
from vmxemu.translation.layout import STEPS

GRID = """\
                               read these EPT entries           leads to
 to find      guest-physical   PML4E   PDPTE   PDE     PTE
 guest PML4E  0x1007f0       ──●1──────●2──────●3──────●4─────▶ ■5
 guest PDPTE  0x101240       ──●6──────●7──────●8──────●9─────▶ ■10
 guest PDE    0x102d10       ──●11─────●12─────●13─────●14────▶ ■15
 guest PTE    0x103b38       ──●16─────●17─────●18─────●19────▶ ■20
 the page     0x400abc       ──●21─────●22─────●23─────●24────▶ 0x900abc

 ● EPT entry read   ■ guest entry read
"""
ASCII_GRID = """\
                               read these EPT entries           leads to
 to find      guest-physical   PML4E   PDPTE   PDE     PTE
 guest PML4E  0x1007f0       --*1------*2------*3---- 2M -----> #4
 guest PDPTE  0x101240       --*5------*6------*7---- 2M -----> #8
 guest PDE    0x102d10       --*9------*10-----*11--- 2M -----> #12 2M page
 the page     0x400abc       --*13-----*14-----*15--- 2M -----> 0x900abc
"""
FIVE_GRID = """\
                              read these EPT entries          leads to
 to find      guest-physical  PML5E PML4E PDPTE PDE   PTE
 guest PML5E  0x100000       ─●1────●2────●3────●4────●5────▶ ■6
"""
NATIVE_GRID = """\
 to find      at                leads to
 guest PML4E  0x1007f0       ─▶ ■1
 guest PDPTE  0x101240       ─▶ ■2
 guest PDE    0x102d10       ─▶ ■3
 guest PTE    0x103b38       ─▶ ■4
 the page     0x400abc       ─▶ 0x400abc
"""
TABLE = """\
  #  which        at host-phys.  entry      flags           so far  cycles
 ▸ guest PML4E: EPT translates 0x1007f0
  1  EPT PML4E    0x2000000      0x2001007  RWX             RWX          4
  2  EPT PDPTE    0x2001000      0x2002007  RWX             RWX          4
  3  EPT PDE      0x2002000      0x2003007  RWX             RWX          4
  4  EPT PTE      0x2003800      0x1000037  RWX WB          RWX          4
  5  guest PML4E  0x10007f0      0x101027   P RW US A       RWX U       12
 ▸ guest PDPTE: EPT translates 0x101240
"""
RESULT = """\
 Translated
   why             Every entry on the way permits this user read.
   guest-physical  0x400abc
   host-physical   0x900abc
   page            guest page 4K, EPT page 4K, cached as 4K
   rights          RWX, user page (guest RWX U, EPT RWX)
   memory type     WB (guest's PAT WB, EPT WB)
   cost            24 references, 128 cycles
"""
HEAD = """\
 User read of linear address 0x7f1234567abc
 A title.
 4-level paging (WP NXE); CPL 3; CR3 0x100000; 4-level EPT; EPTP 0x200001e

 47:39 PML4E   38:30 PDPTE   29:21 PDE   20:12 PTE   11:0 offset
 254           72            418         359         0xabc
"""


def text_of(*accounts: Account, columns: int = 80, marks=UNICODE) -> str:
    lines = Picture([tell(account) for account in accounts], "A title.").lines(columns, marks)
    return "".join(f"{line.plain.rstrip()}\n" for line in lines)


def test_the_whole_of_a_4x4_walk() -> None:
    text = text_of(replace(handmade.walk(), memory_type=6))
    for part in (HEAD, GRID, TABLE, RESULT):
        assert part in text


def test_pictures_of_other_shapes() -> None:
    assert ASCII_GRID in text_of(handmade.walk(4, 4, 2, 2), marks=ASCII)
    assert FIVE_GRID in text_of(handmade.walk(5, 5))
    assert NATIVE_GRID in text_of(handmade.walk(4, 0))


def failed() -> Account:
    made = handmade.walk()
    references = [*made.references[:17], replace(made.references[17], entry=0)]
    return replace(
        made, references=tuple(references), count=18, outcome=int(outcomes.EPT_VIOLATION), gpa=0x10_3B38, qualification=0x81
    )


def test_an_ept_violation() -> None:
    text = text_of(failed())
    assert " guest PTE    0x103b38       ──●16─────●17─────✗18     ·      EPT violation\n" in text
    assert " the page                      ·       ·       ·       ·        ·\n" in text
    assert "✗ decided the outcome" in text
    assert " EPT violation: VM exit 48 (EPT_VIOLATION)\n" in text
    assert "   bit  0  READ            1  the access was a data read\n" in text
    assert "   bit  7  GLA VALID       1  there is a guest linear address\n" in text
    assert " 18  EPT PDE      0x2002000      0x0        not present                4\n" in text


def test_a_page_fault() -> None:
    made = handmade.walk(access=1)
    references = tuple(replace(row, entry=0x10_3025) if row.kind == GUEST and row.level == 2 else row for row in made.references)
    fault = int(outcomes.FAULT) | 14 << 8 | 1 << 16 | 7 << 32
    text = text_of(replace(made, references=references[:20], outcome=fault, count=20))
    assert "●13─────●14────▶ ✗15\n" in text and "▶ ■20 #PF\n" in text
    assert " Page fault (#PF): error code 0x7\n" in text
    bits = [line.split()[2:4] for line in text.splitlines() if line.startswith("   bit")]
    assert bits == [["P", "1"], ["W", "1"], ["U", "1"], ["RSVD", "0"], ["I", "0"], ["PK", "0"], ["SS", "0"]]


def warm() -> list[Account]:
    first = handmade.walk()
    cached = Reference(WALK_CACHE, 2, 2, hpa=0x100_3000, entry=0x100_3006)
    rest = [row for row in first.references if (row.kind, row.level) == (GUEST, 1) or (row.kind, row.guest_level) == (EPT, PAGE)]
    hit = Reference(TLB, gpa=first.gpa, hpa=0x90_0000, entry=0b1111)
    return [
        first,
        replace(first, references=(cached, *rest), count=5, cycles=28),
        replace(first, references=(hit,), count=0, cycles=0),
    ]


def test_what_caches_spared_is_hollow() -> None:
    text = text_of(*warm())
    assert " guest PDE    0x102d10       ──○───────○───────○───────○──────▶ □ walk cache\n" in text
    assert " guest PTE    0x103b38       ──○───────○───────○───────○──────▶ ■1 walk cache\n" in text
    assert " the page     0x400abc       ──○───────○───────○───────○──────▶ 0x900abc L1 TLB\n" in text
    assert " 2     0x7f1234567abc  translated           5      28\n" in text


def test_a_walk_cache_of_ept() -> None:
    made = handmade.walk(4, 4)
    cached = Reference(EPT_CACHE, 2, 3, gpa=made.references[5].gpa, hpa=0x200_3000, entry=0x200_3007)
    text = text_of(replace(made, references=(*made.references[:5], cached, *made.references[8:])))
    assert " guest PDPTE  0x101240       ──○───────○───────○───────●6─────▶ ■7 EPT cache\n" in text
    (line,) = [line for line in text.splitlines() if line.startswith("  -")]
    assert line.split()[1:4] == ["EPT", "cache", "0x2003000"] and "the table of EPT PTE" in line


ACCOUNTS = {
    "5x5": [handmade.walk(5, 5)], "4x4": [handmade.walk()], "2m": [handmade.walk(4, 4, 2, 2)], "1g": [handmade.walk(4, 5, 3, 3)],
    "native": [handmade.walk(5, 0)], "off": [handmade.walk(0, 4)], "violation": [failed()], "warm": warm(),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCOUNTS)
@pytest.mark.parametrize("marks", (UNICODE, ASCII))
def test_80_columns_are_enough(name: str, marks) -> None:
    assert max(len(line) for line in text_of(*ACCOUNTS[name], marks=marks).splitlines()) <= 80


def test_flags_that_do_not_fit_go_on_below() -> None:
    made = handmade.walk()
    last = replace(made.references[-1], entry=0xA000_0000_0090_0337 | 1 << 60 | 1 << 50)
    text = text_of(replace(made, references=(*made.references[:-1], last)))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "RWX A D SSS" in text and "reserved 50!" in text.replace("\n" + " " * 49, " ")


def test_a_full_journal_is_told() -> None:
    made = handmade.walk()
    full = made.references * (int(STEPS) // len(made.references) + 1)
    assert "the journal is full" in text_of(replace(made, references=full))
    assert "the journal is full" not in text_of(made)


def test_wide_terminals_get_no_endless_lines() -> None:
    stories = [tell(handmade.walk())]
    stream = io.StringIO()
    Console(file=stream, width=300).print(Picture(stories, "word " * 60))
    assert max(len(line.rstrip()) for line in stream.getvalue().splitlines()) <= WIDEST


def test_marks_follow_the_encoding() -> None:
    assert glyphs("utf-8") is UNICODE and glyphs("UTF8") is UNICODE
    assert glyphs("ascii") is ASCII and glyphs("iso-8859-1") is ASCII
    text_of(handmade.walk(), marks=ASCII).encode("ascii")


def test_json_has_all_that_the_tables_say() -> None:
    facts = as_json([tell(handmade.walk()), tell(failed())], "title")
    assert facts["description"] == "title" and facts["processor"]["mode"] == "4-level"
    done, violation = facts["walks"]
    assert (done["outcome"], done["gpa"], done["hpa"], done["references"]) == ("translated", 0x40_0ABC, 0x90_0ABC, 24)
    assert [step["number"] for step in done["steps"]] == list(range(1, 25))
    step = done["steps"][4]
    assert (step["kind"], step["structure"], step["level"], step["permissions_so_far"]) == ("guest", "PML4E", 4, "RWX U")
    assert step["fields"]["RW"] == 1 and step["fields"]["ADDRESS"] == 0x10_1000
    assert done["steps"][0]["for"] == "PML4E" and done["steps"][23]["for"] == "page"
    assert violation["decoded"]["READ"] == 1 and violation["decided_by"] == 18 and violation["hpa"] is None
    assert violation["steps"][17]["decided"] and not violation["steps"][17]["present"]


def test_a_story_without_rows_has_no_picture() -> None:
    general = replace(handmade.walk(), references=(), count=0, outcome=int(outcomes.FAULT) | 13 << 8 | 1 << 16)
    text = text_of(general)
    assert "to find" not in text and "General-protection fault (#GP)" in text
    assert tell(general).guest_leaf is None

"""The blob `paging`, generated guest tables x EPT tables: the same under vmxemu, under Bochs (up to the listed differences) and
by the reference written from the SDM.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conformance import bochs, ours
from tests.conformance.paging_cases import Case, cases, image_with
from tests.conformance.paging_differences import BIT_12, KNOWN, explanation, has_bit_12_of_a_large_page
from tests.conformance.paging_oracle import Memory, details, expected

pytestmark = pytest.mark.skipif(not bochs.AVAILABLE, reason="Bochs is not installed")

CASES = 4096
WITH_DETAILS = 1024  # the reference looks at so many
SEEDS, CASES_PER_SEED = range(1, 9), 16384


class Printed(NamedTuple):
    bochs: dict[int, Case]
    ours: dict[int, Case]
    ends: list[list[str]]  # the totals, Bochs's and vmxemu's
    status: int


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("paging")


@pytest.fixture(scope="module")
def printed(folder: Path) -> Printed:
    theirs = bochs.run(ours.BLOBS / "paging.bin", folder)
    lines, status = ours.run("paging", folder, "--memory", "64M", "--topology", "bare")
    return Printed(cases(theirs), cases(lines), [theirs[-7:], lines[-7:]], status)


@pytest.fixture(scope="module")
def reference(folder: Path) -> dict[int, str]:
    """The first cases' lines as the SDM asks for them."""
    found = details(bochs.run(image_with(folder, 0, WITH_DETAILS, details=True), folder))
    memory = Memory()
    lines = {number: expected(memory, entries) for number, entries in found.items()}
    return {number: line for number, line in lines.items() if line is not None}


def differing(printed: Printed) -> Iterator[tuple[Case, Case]]:
    """Both cases, Bochs's first, where the lines differ."""
    for number, theirs in printed.bochs.items():
        mine = printed.ours[number]
        if theirs.line != mine.line:
            yield theirs, mine


def report(wrong: list[tuple[str, str]]) -> str:
    """The first of (expected line, printed line)."""
    return "\n".join([f"{len(wrong)} cases", *(f"expected: {line}\nprinted:  {other}" for line, other in wrong[:20])])


def test_all_cases_are_worked_off(printed: Printed) -> None:
    assert list(printed.bochs) == list(printed.ours) == list(range(CASES))
    assert printed.status == 0
    for end in printed.ends:
        assert end[-2:] == ["paging: other exits 0", "paging: stores astray 0"]
        assert sum(int(line.split()[-1]) for line in end[:-1]) == CASES


def test_the_same_lines(printed: Printed) -> None:
    wrong = [(theirs.line, mine.line) for theirs, mine in differing(printed) if not explanation(theirs, mine)]
    assert not wrong, report(wrong)


def test_known_differences_are_still_there(printed: Printed, folder: Path) -> None:
    """Bochs is the Bochs that the list describes; the rule that sees least in a line is looked into."""
    found = [(known, theirs, mine) for theirs, mine in differing(printed) if (known := explanation(theirs, mine))]
    assert {known.name for known, _, _ in found} == {known.name for known in KNOWN}
    for known, theirs, mine in found:
        if known is BIT_12:
            lines = details(bochs.run(image_with(folder, theirs.number, 1, details=True), folder))[theirs.number]
            assert has_bit_12_of_a_large_page(lines), "\n".join(lines)
            assert mine.line == expected(Memory(), lines)


def test_the_reference_says_the_same(printed: Printed, reference: dict[int, str]) -> None:
    assert len(reference) > WITH_DETAILS * 0.98
    mine = printed.ours
    wrong = [(line, mine[number].line) for number, line in reference.items() if line != mine[number].line]
    assert not wrong, report(wrong)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", SEEDS)
def test_more_cases(folder: Path, seed: int) -> None:
    image = image_with(folder, 0, CASES_PER_SEED, details=False, seed=seed)
    theirs = cases(bochs.run(image, folder, timeout_seconds=600))
    lines, status = ours.run_image(image, folder, "--memory", "64M", "--topology", "bare")
    mine = cases(lines)
    assert status == 0 and list(mine) == list(theirs) == list(range(CASES_PER_SEED))
    both = Printed(theirs, mine, [], status)
    wrong = [(case.line, other.line) for case, other in differing(both) if not explanation(case, other)]
    assert not wrong, report(wrong)

"""The blobs print the same under vmxemu and under Debian's Bochs, up to the listed differences."""

from functools import cache
from pathlib import Path

import pytest

from tests.conformance import bochs, ours
from tests.conformance.differences import ABSENT, KNOWN
from tests.conformance.ours import BLOBS

pytestmark = pytest.mark.skipif(not bochs.AVAILABLE, reason="Bochs is not installed")


def sections(lines: list[str]) -> dict[str, list[str]]:
    """The report of `exits`: heading -> the indented lines below it."""
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("  "):
            found[list(found)[-1]].append(line)
        else:
            assert line not in found, f"two headings {line!r}"
            found[line] = []
    return found


@cache
def bochs_exits(folder: Path) -> dict[str, list[str]]:
    return sections(bochs.run(BLOBS / "exits.bin", folder))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bochs")


def test_hello(folder: Path) -> None:
    lines, status = ours.run("hello", folder)
    assert lines == bochs.run(BLOBS / "hello.bin", folder)
    assert lines[-1] == "hello: done" and status == 0


def test_bochs_is_the_bochs_that_the_differences_describe(folder: Path) -> None:
    """A difference that has gone must leave the list."""
    found = bochs_exits(folder)
    assert {name: found[name] for name in KNOWN} == {name: known.bochs for name, known in KNOWN.items()}


def test_exits(folder: Path) -> None:
    theirs = bochs_exits(folder)
    lines, status = ours.run("exits", folder, "--memory", "64M")
    found = sections(lines)
    assert status == 0
    assert list(found) == list(theirs)
    wrong = []
    for name, printed in found.items():
        if printed == ABSENT or theirs[name] == ABSENT:
            continue
        expected = KNOWN[name].sdm if name in KNOWN else theirs[name]
        if printed != expected:
            wrong.append("\n".join([name, "expected:", *expected, "printed:", *printed]))
    assert not wrong, "\n\n".join(wrong)


def test_vmm2_on_the_bare_processor(folder: Path) -> None:
    lines, status = ours.run("vmm2-bare", folder, "--memory", "64M")
    assert lines == bochs.run(BLOBS / "vmm2-bare.bin", folder)
    assert status == 0


@pytest.mark.parametrize("name", ["exits", "bench"])
def test_bochs_ends_well(folder: Path, name: str) -> None:
    """The blob itself is sound: Bochs works it off to its last line."""
    if name == "exits":
        assert list(bochs_exits(folder))[-1] == "exits: done"
    else:
        assert bochs.run(BLOBS / "bench.bin", folder, memory_mib=128)[-1] == "DONE"

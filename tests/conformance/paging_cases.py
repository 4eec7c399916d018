"""The blob `paging`: its lines taken apart, and images of it that work off other cases or show every table entry."""

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.ours import BLOBS

LINE = re.compile(
    r"(?P<number>[0-9a-f]{5}) (?P<kind>[RWFMLV])(?P<cpl>[03]) (?P<controls>\S{10}) \d:\d{5} s\d(?P<loop> l\d)? "
    r"(?P<outcome>.*) g(?P<guest>\S{4}) e(?P<ept>.*)"
)
SETTINGS_MARK = b"PAGING-1"  # then seed (8 bytes), first case, number of cases, details (4 bytes each)
SETTINGS = struct.Struct("<QIII")


@dataclass(frozen=True)
class Case:
    """One line. firmware_blobs/paging.asm explains its columns."""

    line: str
    number: int
    kind: str  # R W F M L V
    cpl: int
    controls: str  # the letters of those that are on
    data_is_table: bool  # the page accessed is one of the guest's tables
    outcome: str
    guest_flags: str

    @property
    def qualification(self) -> int | None:
        """Of an EPT violation."""
        found = re.match(r"violation ([0-9a-f]{3}) ", self.outcome)
        return int(found.group(1), 16) if found else None

    def with_qualification(self, value: int) -> str:
        """The line with another qualification."""
        return re.sub(r"violation [0-9a-f]{3} ", f"violation {value:03x} ", self.line)

    @property
    def has_implicit_access(self) -> bool:
        """The processor itself reads a descriptor table, while SMAP is on."""
        return self.kind in "LV" and "M" in self.controls


def parse(line: str) -> Case | None:
    """The case of a line; None for other lines."""
    found = LINE.fullmatch(line)
    if not found:
        return None
    return Case(
        line=line,
        number=int(found["number"], 16),
        kind=found["kind"],
        cpl=int(found["cpl"]),
        controls=found["controls"].replace("-", ""),
        data_is_table=found["loop"] == " l0",
        outcome=found["outcome"],
        guest_flags=found["guest"],
    )


def cases(lines: list[str]) -> dict[int, Case]:
    """All cases by number."""
    found = [case for line in lines if (case := parse(line))]
    return {case.number: case for case in found}


def image_with(folder: Path, first: int, count: int, details: bool, seed: int | None = None) -> Path:
    """The blob with other settings; no seed: its own."""
    data = bytearray((BLOBS / "paging.bin").read_bytes())
    at = data.index(SETTINGS_MARK) + len(SETTINGS_MARK)
    own_seed = SETTINGS.unpack_from(data, at)[0]
    SETTINGS.pack_into(data, at, own_seed if seed is None else seed, first, count, details)
    path = folder / f"paging-{first}-{count}-{int(details)}-{seed}.bin"
    path.write_bytes(data)
    return path

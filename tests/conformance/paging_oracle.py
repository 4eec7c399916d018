"""What the reference, written from the SDM, says of a case of the blob `paging` whose table entries were printed."""

import re

from tests.conformance.paging_cases import Case, parse
from tests.reference.translation import FETCH, READ, WRITE, EptMisconfiguration, EptViolation, PageFault, Processor

RAM_BYTES = 32 << 20
DATA_AREA = 0x1200000
STUB_PDPT_ENTRY = 0x11D027
# The well-behaved tables: EPT for the first GiB, the stubs' guest tables. Address -> entry.
FIXED = {
    0x110000: 0x111107,
    0x111000: 0x3B7,
    0x11D000: 0x11E027,
    0x11D008: 0x11F027,
    0x11E000: 0xE3,
    0x11F000: 0xE7,
}
CR4_BITS = {"G": 7, "P": 17, "E": 20, "M": 21}
ACCESS = {"R": READ, "W": WRITE, "F": FETCH, "M": WRITE, "L": READ, "V": READ}
GUEST_SHIFT, EPT_SHIFT = 5, 8  # of the accessed flag; dirty is the next bit
GUEST_NAMES = ("PML4E", "PDPTE", "PDE", "PTE")
EPT_NAMES = ("PDPTE", "PDE", "PTE")
EPT_OWNERS = ("PML4", "PDPT", "PD", "PT", "page")


class Memory:
    """32 MiB that are put back after each case."""

    def __init__(self) -> None:
        self.bytes = bytearray(RAM_BYTES)
        for address, entry in FIXED.items():
            self.put(address, entry)

    def put(self, address: int, value: int) -> None:
        self.bytes[address : address + 8] = value.to_bytes(8, "little")

    def get(self, address: int) -> int:
        return int.from_bytes(self.bytes[address : address + 8], "little")


def tag(address: int) -> int:
    """The quadword at an address of the data area: MOV EAX, address; VMCALL."""
    return 0xC1010F00000000B8 | address << 8


class Details:
    """A case with its addresses and its entries (name -> address and value before)."""

    def __init__(self, lines: list[str]) -> None:
        case = parse(lines[0])
        assert case is not None, lines[0]
        self.case: Case = case
        numbers = re.findall(r"\b[0-9a-f]{16}\b", lines[1])
        self.gla, self.cr3, self.rip, _, self.target = (int(number, 16) for number in numbers)
        self.entries: dict[str, tuple[int, int]] = {}
        for line in lines[2:]:
            name, address, before = re.match(r" *(.*) at ([0-9a-f]+): ([0-9a-f]+) ->", line).groups()  # type: ignore[union-attr]
            self.entries[re.sub(" +", " ", name).strip()] = int(address, 16), int(before, 16)


def details(lines: list[str]) -> dict[int, list[str]]:
    """The lines of each case that was printed with details."""
    found: dict[int, list[str]] = {}
    for line in lines:
        case = parse(line)
        if case:
            found[case.number] = [line]
        elif found and line.startswith("      "):
            list_of_latest = found[next(reversed(found))]
            list_of_latest.append(line)
    return found


def expected(memory: Memory, lines: list[str]) -> str | None:
    """The line that the SDM asks for; None where more than translation decides."""
    this = Details(lines)
    if this.case.kind == "V" and this.case.data_is_table:
        return None  # a table as a gate
    written = {address: before for address, before in this.entries.values()}
    written[this.entries["guest PML4E"][0] & ~0xFFF] = STUB_PDPT_ENTRY
    if this.target >= DATA_AREA:
        written[this.target] = tag(this.target)
    for address, value in written.items():
        memory.put(address, value)
    outcome = _outcome(memory, this)
    flags = _flags(memory, this)
    for address in [*written, this.target]:
        memory.put(address, 0)
    start = lines[0][: lines[0].index(this.case.outcome)]
    return f"{start}{outcome} {flags}"


def _processor(memory: Memory, this: Details) -> Processor:
    on = this.case.controls
    return Processor(
        memory.bytes,
        cr0=0x80000031 | ("W" in on) << 16,
        cr3=this.cr3 & ~0xFFF,
        cr4=0x2020 | sum(1 << bit for letter, bit in CR4_BITS.items() if letter in on),
        efer=0x500 | ("N" in on) << 11,
        cpl=this.case.cpl,
        ac="C" in on,
        eptp=0x110018 | (0 if "U" in on else 6) | ("D" in on) << 6,
    )


def _outcome(memory: Memory, this: Details) -> str:
    kind = this.case.kind
    processor = _processor(memory, this)
    accesses = [(this.gla, ACCESS[kind], kind in "LV")]
    if kind in "RWML":
        accesses.insert(0, (this.rip, FETCH, False))  # the stub
    try:
        for gla, access, implicit in accesses:
            hpa = processor.translate(gla, access, implicit)[1]
    except PageFault as fault:
        text = f"#PF {fault.error_code:04x} gla {gla:016x}"
    except EptViolation as violation:
        told = violation.qualification
        if kind == "M" and told & 0x100:
            told &= ~1  # whether it is a read too is the processor's choice
        text = f"violation {told:03x} gpa {violation.gpa:010x} gla {gla:016x}"
    except EptMisconfiguration as misconfiguration:
        text = f"misconfig gpa {misconfiguration.gpa:010x}"
    else:
        return _done(memory, this, hpa)
    return text + (" vectoring 80000310" if kind == "V" else "")


def _done(memory: Memory, this: Details, hpa: int) -> str:
    kind, found = this.case.kind, memory.get(hpa)
    if kind == "V":
        return "exception 80000b0b error 0083 vectoring 80000310"  # the tag is a gate that is not present
    if kind == "L":
        return "done"
    if kind == "F":
        return f"done {hpa:016x}"
    if kind in "WM":
        pattern = 0xA5C3000000001234 | this.case.number << 16
        found = pattern if kind == "W" else (found + pattern) % 2**64
        memory.put(hpa, found)
    return f"done {found:016x}"


def _flags(memory: Memory, this: Details) -> str:
    def digit(name: str, shift: int) -> str:
        if name not in this.entries:
            return "."
        address, before = this.entries[name]
        after = memory.get(address)
        changed = before ^ after
        return "X" if changed & ~(3 << shift) else f"{after >> shift & 3 | (changed >> shift & 3) << 2:x}"

    guest = "".join(digit(f"guest {name}", GUEST_SHIFT) for name in GUEST_NAMES)
    ept = ["".join(digit(f"EPT {name} of the guest's {owner}", EPT_SHIFT) for name in EPT_NAMES) for owner in EPT_OWNERS]
    return f"g{guest} e{digit('EPT PML4E', EPT_SHIFT)} {' '.join(ept)}"

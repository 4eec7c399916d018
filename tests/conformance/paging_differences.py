"""Where Bochs 2.7 differs from the SDM in what the blob `paging` prints. The SDM wins: vmxemu prints the other line.

A difference is a rule on the two lines of a case. Each must still be there, and the reference (paging_oracle) must side with
vmxemu.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.conformance.paging_cases import Case

READ, WRITE, PERMITS_READ, PERMITS_WRITE, LINEAR_ADDRESS_VALID, OF_THE_PAGE = 1, 2, 8, 16, 0x80, 0x100
SET_HERE = "456789abcdef"  # digits of entries whose accessed or dirty flag was set by the access


@dataclass(frozen=True)
class Difference:
    """One known difference."""

    name: str
    section: str
    explains: Callable[[Case, Case], bool]  # Bochs's case, vmxemu's


def _only_the_write_is_told(bochs: Case, ours: Case) -> bool:
    told = bochs.qualification
    if told is None or "D" not in bochs.controls or told & OF_THE_PAGE or not told & WRITE:
        return False
    return bochs.with_qualification(told | READ) == ours.line


def _flags_are_stored_past_ept(bochs: Case, ours: Case) -> bool:
    told = ours.qualification
    if told is None or "D" in ours.controls:
        return False
    asked = READ | WRITE | PERMITS_READ | PERMITS_WRITE | LINEAR_ADDRESS_VALID | OF_THE_PAGE
    stored = [here in SET_HERE and there not in SET_HERE for here, there in zip(bochs.guest_flags, ours.guest_flags, strict=True)]
    return told & asked == READ | WRITE | PERMITS_READ | LINEAR_ADDRESS_VALID and any(stored)


def _ac_lifts_smap(bochs: Case, ours: Case) -> bool:
    overridden = ours.has_implicit_access and "C" in ours.controls
    return overridden and ours.outcome.startswith("#PF 0001 ") and not bochs.outcome.startswith("#PF")


def _bit_12_is_not_reserved(bochs: Case, ours: Case) -> bool:
    """Its cases are looked into one by one: `has_bit_12_of_a_large_page`."""
    return ours.outcome.startswith("misconfig ") and bochs.outcome != ours.outcome


def has_bit_12_of_a_large_page(details: list[str]) -> bool:
    """Whether an EPT entry of the case maps a large page with bit 12 of its address set, and no higher one."""
    for line in details:
        name, _, value = line.strip().partition(": ")
        entry = int(value[:16], 16) if value else 0
        if name.startswith(("EPT PDPTE", "EPT PDE")) and entry & 0x80 and entry >> 12 & 0x1FF == 1:
            return True
    return False


BIT_12 = Difference(
    name="bit 12 of an EPT entry that maps a 2-MByte or 1-GByte page",
    section='Vol. 3C, "EPT Translation Mechanism", formats of the PDE and PDPTE that map a page: bits 20:12 and 29:12 are reserved '
    '(must be 0); "EPT Misconfigurations". Bochs looks at bit 13 and above, as for a guest entry, whose bit 12 is PAT',
    explains=_bit_12_is_not_reserved,
)

KNOWN = [
    Difference(
        name="guest tables read with EPT accessed and dirty flags on",
        section='Vol. 3C, "Exit Qualification for EPT Violations", note to bits 0 and 1: with accessed and dirty flags for EPT, an '
        "access to a guest paging-structure entry sets both bits; Bochs sets bit 1 only",
        explains=_only_the_write_is_told,
    ),
    Difference(
        name="guest accessed and dirty flags stored in a page that EPT does not let be written",
        section='Vol. 3C, "EPT Violations" (a data write with bit 1 clear in an entry used), and "Exit Qualification for EPT '
        'Violations", bit 8: clear for the update of an accessed or dirty flag, which thus can violate; Bochs stores them unasked',
        explains=_flags_are_stored_past_ept,
    ),
    Difference(
        name="implicit supervisor accesses to user pages with SMAP and RFLAGS.AC on",
        section='Vol. 3A, "Determination of Access Rights": with CR4.SMAP = 1 data may not be read from a user-mode address by an '
        "implicit supervisor-mode access, whatever EFLAGS.AC; Bochs lets AC lift SMAP for descriptor tables too",
        explains=_ac_lifts_smap,
    ),
    BIT_12,
]


def explanation(bochs: Case, ours: Case) -> Difference | None:
    """The known difference that explains the two lines."""
    return next((known for known in KNOWN if known.explains(bochs, ours)), None)

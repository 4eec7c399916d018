"""Where Bochs 2.7 differs from the SDM in what the blob `exits` prints. The SDM wins: `sdm` is what vmxemu must print.

Test of the blob (its heading line) -> what Bochs 2.7 prints below it, what the SDM asks for, and where the SDM says so.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One known difference."""

    bochs: list[str]
    sdm: list[str]
    section: str


KNOWN = {
    "External interrupt while RFLAGS.IF = 0": Difference(
        bochs=[],
        sdm=["  EXTERNAL_INTERRUPT no event rip +0000", "  the host's handler ran: 1"],
        section='Vol. 3C, "Event Blocking" in VMX non-root operation: with "external-interrupt exiting" set, RFLAGS.IF '
        "does not control the blocking of external interrupts",
    ),
}

# Printed instead of exits if the processor lacks a control: no comparison is possible.
ABSENT = ["  not available"]

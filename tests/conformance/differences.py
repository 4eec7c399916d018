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


FAILURES = [
    "  VMXON in VMX root operation:  VMfailValid 15",
    "  VMRESUME before VMLAUNCH:  VMfailValid 5",
    "  VMCLEAR of the VMXON region:  VMfailValid 3",
    "  VMPTRLD of the VMXON region:  VMfailValid 10",
    "  VMCLEAR, pointer not aligned:  VMfailValid 2",
    "  VMPTRLD, pointer not aligned:  VMfailValid 9",
    "  VMPTRLD, pointer too wide:  VMfailValid 9",
    "  VMPTRLD, another revision:  VMfailValid 11",
    "  VMREAD of no field:  VMfailValid 12",
    "  VMWRITE of no field:  VMfailValid 12",
    "  VMWRITE of a read-only field:  VMfailValid 13",
    "  INVEPT of no type:  VMfailValid 28",
    "  INVVPID of no type:  VMfailValid 28",
    "  INVVPID of VPID 0:  VMfailValid 28",
    "  VMLAUNCH, EPT pointer of no memory type:  VMfailValid 7",
    "  VMLAUNCH, HOST_CR4 without fixed bits:  VMfailValid 8",
    "  VMLAUNCH, HOST_CS null:  VMfailValid 8",
    "  VMLAUNCH, default1 controls clear:  VMfailValid 7",
    "  VMLAUNCH behind MOV SS:  VMfailValid 26",
    "  VMREAD without a current VMCS:  VMfailInvalid",
    "  VMLAUNCH without a current VMCS:  VMfailInvalid",
]

KNOWN = {
    "VMX instructions that fail": Difference(
        bochs=[line for line in FAILURES if "read-only" not in line],
        sdm=FAILURES,
        section='Vol. 3D, "VMX Basic Information and Miscellaneous Data": with IA32_VMX_MISC[29] = 0, as this profile has it, '
        "VMWRITE cannot write the VM-exit information fields; Bochs sets the bit, and the blob leaves the case out",
    ),
    "External interrupt while RFLAGS.IF = 0": Difference(
        bochs=[],
        sdm=["  EXTERNAL_INTERRUPT no event rip +0000", "  the host's handler ran: 1"],
        section='Vol. 3C, "Event Blocking" in VMX non-root operation: with "external-interrupt exiting" set, RFLAGS.IF '
        "does not control the blocking of external interrupts",
    ),
}

# Printed instead of exits if the processor lacks a control: no comparison is possible.
ABSENT = ["  not available"]

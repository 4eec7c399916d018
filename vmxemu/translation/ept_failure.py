"""What an EPT walk asks for, and how it fails. SDM Vol. 3C, 'EPT-Induced VM Exits' and 'Exit Qualification for EPT Violations'."""

from typing import TYPE_CHECKING

from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.outcome import EPT_MISCONFIG, EPT_VIOLATION, PML_FULL, SPP_EVENT
from vmxemu.translation.bits import (
    EPT_SUPERVISOR_SHADOW_STACK,
    EPT_USER_EXECUTE,
    EPTP_SHADOW_STACK,
    QUALIFICATION_USER_EXECUTE,
    SHADOW_STACK_PAGE,
)
from vmxemu.translation.layout import EPT_CONVERT_TO_VE, EPT_MODE_BASED_EXECUTE

if TYPE_CHECKING:
    from vmxemu.state import State

FAILED = U(1 << 63)
VIOLATION, MISCONFIGURATION = FAILED | U(EPT_VIOLATION), FAILED | U(EPT_MISCONFIG)
LOG_FULL, SUBPAGE_EVENT = FAILED | U(PML_FULL), FAILED | U(SPP_EVENT)
# What is asked of a walk: R W X in bits 2:0, or bit 10 for a fetch through a user-mode linear address where the modes
# differ, and
ASKED = U(7)
WANT_SHADOW_STACK = U(1 << 11)  # a supervisor shadow-stack access, and EPTP says that these are controlled
WANT_LINEAR = U(1 << 12)  # the page of a linear address, not a table or a flag
SUPPRESS_VE = U(1 << 63)
REACHED_PAGE = U(1 << 62)  # or-ed to the permissions of a walk that came to an entry that maps a page


@kernel
def violation(m: "State", gpa: int, want: int, both: int, entry: int) -> int:
    """An EPT violation. `both`: the and of the entries used and REACHED_PAGE, or 0 if one was not present; `entry`: the
    last one.
    """
    m.walk.gpa = gpa
    qualification = want & ASKED | want >> 8 & 4 | (both & 7) << 3
    if m.paging.ept_extensions & EPT_MODE_BASED_EXECUTE != 0 and both & EPT_USER_EXECUTE != 0:
        qualification = qualification | QUALIFICATION_USER_EXECUTE
    if both & REACHED_PAGE != 0 and m.paging.ept_pointer & EPTP_SHADOW_STACK != 0 and entry & EPT_SUPERVISOR_SHADOW_STACK != 0:
        qualification = qualification | SHADOW_STACK_PAGE
    m.walk.qualification = qualification
    converts = m.paging.ept_extensions & EPT_CONVERT_TO_VE != 0 and entry & SUPPRESS_VE == 0
    m.walk.convertible = 1 if converts else 0
    return VIOLATION


@kernel
def misconfiguration(m: "State", gpa: int) -> int:
    """An EPT misconfiguration."""
    m.walk.gpa = gpa
    m.walk.qualification = 0
    m.walk.convertible = 0
    return MISCONFIGURATION

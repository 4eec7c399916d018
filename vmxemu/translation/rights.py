"""Rights: what a page permits, what an access requires, and how the two meet. SDM Vol. 3A, 'Access Rights'.

Both sides are sets of flags: an access is permitted if every flag it requires is there. So that one comparison
decides, a page says both USER and SUPERVISOR, and whether a store is possible with and without the guest's own R/W
rights (CR0.WP = 0).
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.layout import HF_CPL
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.translation.bits import CR0_WP, CR4_SMAP, CR4_SMEP, RFLAGS_AC, RW, US, XD
from vmxemu.translation.inline import inlined
from vmxemu.translation.layout import FETCH, IMPLICIT_SUPERVISOR, PERMIT_EXECUTE, PERMIT_READ, PERMIT_WRITE, WRITE

if TYPE_CHECKING:
    from vmxemu.state import State

MAY_READ, MAY_WRITE, MAY_FETCH, USER, SUPERVISOR, MAY_WRITE_WP0 = (U(1 << i) for i in range(6))
RIGHTS = U(0x3F)
CLASS_SHIFT, GUEST_CLASS_SHIFT = U(6), U(8)  # page-size class of the entry, and of the guest's page
GLOBAL = U(1 << 10)
BYTES_4K = U(4096)


@inlined
def is_user_access(m: "State", access: int) -> bool:
    """Whether the access is a user-mode access: CPL 3 and not a supervisor access made on its behalf."""
    return m.r.mode & HF_CPL == 3 and access & IMPLICIT_SUPERVISOR == 0


@kernel
def requirement(m: "State", access: int) -> int:
    """What the access requires in bits 5:0, what a data read would in 13:8, a data write in 21:16, of the same
    privilege.
    """
    if is_user_access(m, access):
        read = MAY_READ | USER
        write = MAY_WRITE | USER
        fetch = MAY_FETCH | USER
    else:
        read = MAY_READ
        write = MAY_WRITE if m.r.cr[0] & CR0_WP != 0 else MAY_WRITE_WP0
        if m.r.cr[4] & CR4_SMAP != 0 and (access & IMPLICIT_SUPERVISOR != 0 or m.r.eflags & RFLAGS_AC == 0):
            read = read | SUPERVISOR
            write = write | SUPERVISOR
        fetch = MAY_FETCH | SUPERVISOR if m.r.cr[4] & CR4_SMEP != 0 else MAY_FETCH
    own = read
    if access & 3 == WRITE:
        own = write
    elif access & 3 == FETCH:
        own = fetch
    return own | read << 8 | write << 16


@kernel
def unpaged_requirement(access: int) -> int:
    """The same with paging off, where nobody is user or supervisor."""
    return (1 << (access & 3)) | MAY_READ << 8 | MAY_WRITE << 16


@inlined
def permitted(word: int, required: int) -> bool:
    """Whether a page permits what the access requires."""
    return required & RIGHTS & ~word == 0


@inlined
def permissions(word: int, required: int, access: int) -> int:
    """PERMIT_* of a page for the privilege that `required` was made for. Execution is granted to fetches only."""
    granted = PERMIT_EXECUTE if access & 3 == FETCH else 0
    if required >> 8 & RIGHTS & ~word == 0:
        granted = granted | PERMIT_READ
    if required >> 16 & RIGHTS & ~word == 0:
        granted = granted | PERMIT_WRITE
    return granted


@inlined
def rights_of(both: int, either: int, dirty: int, ept: int) -> int:
    """Rights from all guest entries and-ed, or-ed, whether the guest page is dirty (1), and an EPT walk's answer."""
    store = ept >> 1 & ept >> 3 & dirty & 1
    rights = ept & MAY_READ | store << 5
    if both & RW != 0:
        rights = rights | store << 1
    if either & XD == 0:
        rights = rights | (ept & MAY_FETCH)
    return rights | (USER if both & US != 0 else SUPERVISOR)


@inlined
def page_offset(word: int) -> int:
    """Mask of the address bits within a page."""
    return (BYTES_4K << (word >> CLASS_SHIFT & 3) * 9) - 1

"""Rights: what a page permits, what an access requires, and how the two meet. SDM Vol. 3A, 'Access Rights'.

Both sides are sets of flags: an access is permitted if every flag it requires is there. So that one comparison
decides, a page says both USER and SUPERVISOR, and whether a store is possible with and without the guest's own R/W
rights (CR0.WP = 0). No page has LOOK_CLOSER: an access that requires it is decided elsewhere (translation.closer).

The word of a page: bits 5:0 rights; 7:6 page-size class of the entry; 9:8 that of the guest's page; 10 global; 51:12
the frame; 54:52 PAT, PCD, PWT of the guest's entry; 57:55 memory type of the EPT entry (7: no EPT); 58 ignore PAT;
62:59 protection key; 63 no word but a failure.
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.layout import HF_CPL
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.translation.bits import (
    CR0_WP,
    CR4_PKE,
    CR4_PKS,
    CR4_SMAP,
    CR4_SMEP,
    EFER_LMA,
    RFLAGS_AC,
    RW,
    US,
    XD,
)
from vmxemu.translation.inline import apart, inlined
from vmxemu.translation.layout import FETCH, IMPLICIT_SUPERVISOR, PERMIT_EXECUTE, PERMIT_READ, PERMIT_WRITE, SHADOW_STACK, WRITE

if TYPE_CHECKING:
    from vmxemu.state import State

MAY_READ, MAY_WRITE, MAY_FETCH, USER, SUPERVISOR, MAY_WRITE_WP0 = (U(1 << i) for i in range(6))
LOOK_CLOSER = U(1 << 11)
PAGE_RIGHTS = U(0x3F)
RIGHTS = PAGE_RIGHTS | LOOK_CLOSER
CLASS_SHIFT, GUEST_CLASS_SHIFT = U(6), U(8)  # page-size class of the entry, and of the guest's page
GLOBAL = U(1 << 10)
PAT_SHIFT, EPT_TYPE_SHIFT, KEY_SHIFT = U(52), U(55), U(59)
KEY_BITS = U(0xF << 59)
IGNORE_PAT = U(1 << 58)
BYTES_4K = U(4096)
# A requirement holds those of the access itself, of a data read and of a data write of the same privilege.
READ_SHIFT, WRITE_SHIFT = U(16), U(32)
KEYS_IN_FORCE = U(1 << 48)  # bit of a requirement
ACCESS_DISABLE, WRITE_DISABLE = U(1), U(2)  # of a key's two bits in PKRU and IA32_PKRS


@inlined
def is_user_access(m: "State", access: int) -> bool:
    """Whether the access is a user-mode access: CPL 3 and not a supervisor access made on its behalf."""
    return m.r.mode & HF_CPL == 3 and access & IMPLICIT_SUPERVISOR == 0


@kernel
def requirement(m: "State", access: int) -> int:
    """What the access requires (bits 11:0), what a data read would (from READ_SHIFT on), and a data write, of the same
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
    keyed = m.r.cr[4] & (CR4_PKE | CR4_PKS) != 0 and m.r.efer & EFER_LMA != 0
    if (keyed and access & 3 != FETCH) or m.tlb.checking | m.walk.recording | access & SHADOW_STACK != 0:
        own = own | LOOK_CLOSER
    return own | read << READ_SHIFT | write << WRITE_SHIFT | (KEYS_IN_FORCE if keyed else 0)


@kernel
def unpaged_requirement(m: "State", access: int) -> int:
    """The same with paging off, where nobody is user or supervisor."""
    closer = LOOK_CLOSER if m.tlb.checking | m.walk.recording != 0 else 0
    return (1 << (access & 3)) | closer | MAY_READ << READ_SHIFT | MAY_WRITE << WRITE_SHIFT


@inlined
def permitted(word: int, required: int) -> bool:
    """Whether a page permits what the access requires, without a closer look."""
    return required & RIGHTS & ~word == 0


@inlined
def page_permits(word: int, required: int) -> bool:
    """Whether the page's own rights permit the access, whatever its key."""
    return required & PAGE_RIGHTS & ~word == 0


@apart
def denied_by_key(m: "State", word: int, access: int) -> int:
    """PERMIT_READ and PERMIT_WRITE as far as the page's protection key denies them. SDM Vol. 3A, 'Protection Keys'."""
    if word & USER != 0:
        rights = m.paging.pkru if m.r.cr[4] & CR4_PKE != 0 else 0
    else:
        rights = m.paging.pkrs if m.r.cr[4] & CR4_PKS != 0 else 0
    rights = rights >> (word >> KEY_SHIFT & 15) * 2
    if rights & ACCESS_DISABLE != 0:
        return PERMIT_READ | PERMIT_WRITE
    by_user = word & USER != 0 and is_user_access(m, access)
    if rights & WRITE_DISABLE != 0 and (by_user or m.r.cr[0] & CR0_WP != 0):
        return PERMIT_WRITE
    return U(0)


@inlined
def key_denies(m: "State", word: int, required: int, access: int) -> bool:
    """Whether the page's key denies this access; keys do not count for fetches."""
    if required & KEYS_IN_FORCE == 0 or access & 3 == FETCH:
        return False
    return denied_by_key(m, word, access) & (PERMIT_WRITE if access & 3 == WRITE else PERMIT_READ) != 0


@inlined
def permissions(m: "State", word: int, required: int, access: int) -> int:
    """PERMIT_* of a page for the privilege that `required` was made for. Execution is granted to fetches only."""
    granted = PERMIT_EXECUTE if access & 3 == FETCH else 0
    if required >> READ_SHIFT & PAGE_RIGHTS & ~word == 0:
        granted = granted | PERMIT_READ
    if required >> WRITE_SHIFT & PAGE_RIGHTS & ~word == 0:
        granted = granted | PERMIT_WRITE
    if required & KEYS_IN_FORCE != 0:
        granted = granted & ~denied_by_key(m, word, access)
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

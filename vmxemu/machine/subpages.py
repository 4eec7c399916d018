"""Stores to pages with sub-page permissions: Unicorn knows pages only, so each permitted store is one instruction on its own.

Such a page is never writable for Unicorn. A store to it fails its fill; the run loop translates the exact address, and if the table
permits it, lets this one instruction run as a single step with the page writable, after which Unicorn forgets what it was given.
"""

from typing import TYPE_CHECKING

from vmxemu.cpu.flags import TF
from vmxemu.cpu.layout import HF_TF
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.outcome import RETRY
from vmxemu.translation.layout import EPT_SUBPAGE_WRITE, PERMIT_WRITE, READ, WRITE
from vmxemu.translation.translate import translate

if TYPE_CHECKING:
    from vmxemu.state import State

SINGLE_STEP = U(1 << 14)  # BS in DR6


@kernel
def store_to_subpage(m: "State", gla: int) -> int:
    """A store that the table permits: let the instruction at RIP do it. An instruction may store to two such pages."""
    engine = m.engine
    if engine.stepping == 0 or (engine.subpage ^ gla) >> 12 != 0:
        engine.subpage_before = engine.subpage if engine.stepping != 0 else gla
    engine.subpage = gla
    engine.stepping = 1
    m.r.mode = m.r.mode | HF_TF  # the guest's RFLAGS show nothing of it
    return RETRY


@kernel
def translate_for_fill(m: "State", page: int, access: int) -> int:
    """Translate the page that Unicorn asks for; a store is permitted only if `m.walk.permissions` has PERMIT_WRITE afterwards.

    With sub-page permissions in force a store needs its exact address: unless the page is known to be writable as a whole, it
    has to come through the run loop. So only a read is done here, which sets no dirty flag for a store that may be refused.
    """
    if access != WRITE or m.paging.ept_extensions & EPT_SUBPAGE_WRITE == 0 or m.vmx.non_root == 0:
        return translate(m, page, access)
    engine = m.engine
    at = page
    if engine.stepping == 0:
        return translate(m, page, READ)
    if (engine.subpage ^ page) >> 12 == 0:
        at = engine.subpage
    elif (engine.subpage_before ^ page) >> 12 == 0:
        at = engine.subpage_before
    else:
        return translate(m, page, READ)
    outcome = translate(m, at, WRITE)
    m.walk.permissions = m.walk.permissions | PERMIT_WRITE
    return outcome


@kernel
def end_step(m: "State", stepped: bool) -> bool:
    """The step is over, or something else came first. True if the trap in hand is the step's own #DB and nothing else."""
    engine = m.engine
    engine.stepping = 0
    engine.flush = 1
    m.r.mode = m.r.mode & ~HF_TF
    if not stepped or m.r.eflags & TF != 0:
        return False
    m.r.dr[6] = m.r.dr[6] & ~SINGLE_STEP
    return True

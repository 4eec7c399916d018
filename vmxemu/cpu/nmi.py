"""Blocking of NMIs from the delivery of one to the next IRET."""

from typing import TYPE_CHECKING

from vmxemu.cpu.layout import HF_INHIBIT_IRQ
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.timing.layout import AFTER_SHADOW

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
INTERCEPT_IRET = U(1 << 20)  # SVM exit code 74H in `m.r.intercept`


@kernel
def block_nmi(m: "State") -> None:
    """NMIs wait; IRET stops before it executes."""
    m.cpu.nmi_blocked = 1
    m.r.intercept = m.r.intercept | INTERCEPT_IRET


@kernel
def unblock_nmi(m: "State") -> None:
    """IRET is about to run natively: NMIs arrive again once it has (the shadow covers it), and it stops no more.

    vmx/ programs the intercepts afresh where it wants to see IRET for another reason.
    """
    m.cpu.nmi_blocked = 0
    m.cpu.iret_rip = m.r.rip
    m.cpu.iret_block = m.clock.blocks + 1
    m.r.intercept = m.r.intercept & ~INTERCEPT_IRET
    m.r.mode = m.r.mode | HF_INHIBIT_IRQ
    m.cpu.mov_ss_shadow = 1
    m.clock.attention = AFTER_SHADOW


@kernel
def unblocked_by_iret(m: "State") -> bool:
    """Whether the instruction at RIP, which now faults, is an IRET that has just ended the blocking: it runs in a block of its own.

    Of no meaning while an event is being delivered.
    """
    executing = m.cpu.iret_block != 0 and m.clock.blocks == m.cpu.iret_block and m.r.rip == m.cpu.iret_rip
    return executing and m.cpu.event_info == 0

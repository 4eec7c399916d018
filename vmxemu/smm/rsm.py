"""RSM: out of SMM. SDM Vol. 2B, 'RSM'; Vol. 3C, 'Default Treatment of RSM'."""

from typing import TYPE_CHECKING

from vmxemu.cpu.flags import VM
from vmxemu.cpu.layout import CS, SHUTDOWN, SS
from vmxemu.cpu.mode import refresh_mode, set_interrupt_shadow
from vmxemu.isa import exceptions
from vmxemu.isa.bits import CR0_PE, CR0_PG
from vmxemu.jit import kernel
from vmxemu.layout import u64
from vmxemu.outcome import DONE, fault
from vmxemu.smm.entry import area_buffer, copy_area
from vmxemu.smm.save_area import save_area_read
from vmxemu.timing import costs
from vmxemu.timing.clock import charge_event
from vmxemu.trace import events
from vmxemu.trace.emit import emit
from vmxemu.translation.invalidate import on_rsm

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
CR0_FIXED0, CR0_FIXED1, CR4_FIXED0, CR4_FIXED1 = U(6), U(7), U(8), U(9)  # in m.cpu.vmx_msr
RPL = U(3)


@kernel
def _apply_fixed_bits(m: "State") -> None:
    """VMX operation fixes bits of CR0 and CR4 whatever the handler left in the area."""
    ones = m.cpu.vmx_msr[CR0_FIXED0]
    if m.vmx.non_root != 0 and m.cpu.unrestricted != 0:
        ones = ones & ~(CR0_PE | CR0_PG)
    m.r.cr[0] = (m.r.cr[0] | ones) & m.cpu.vmx_msr[CR0_FIXED1]
    m.r.cr[4] = (m.r.cr[4] | m.cpu.vmx_msr[CR4_FIXED0]) & m.cpu.vmx_msr[CR4_FIXED1]


@kernel
def _return_to_vmx(m: "State") -> None:
    smm = m.smm
    m.vmx.on = smm.vmx_on
    m.vmx.non_root = smm.vmx_non_root
    m.paging.ept_pointer = smm.saved_ept_pointer
    m.paging.ept_extensions = smm.saved_ept_extensions
    m.paging.vpid = smm.saved_vpid
    m.cpu.unrestricted = smm.saved_unrestricted
    smm.vmx_on = 0
    smm.vmx_non_root = 0
    if m.vmx.on == 0:
        return
    _apply_fixed_bits(m)
    if m.r.eflags & VM == 0 and (m.vmx.non_root == 0 or m.cpu.unrestricted == 0):
        privilege = m.r.seg[SS].flags >> 13 & 3
        m.r.seg[CS].selector = m.r.seg[CS].selector & ~RPL | privilege
        m.r.seg[SS].selector = m.r.seg[SS].selector & ~RPL | privilege


@kernel
def execute_rsm(m: "State") -> int:
    """DONE: the interrupted program goes on (the caller programs the intercepts).

    #UD outside SMM; TRIPLE_FAULT: shutdown because of a bad save area.
    """
    if m.cpu.in_smm == 0:
        return fault(exceptions.UD)
    charge_event(m, costs.RSM)
    emit(m, events.SMM_LEAVE, 0, m.cpu.smbase, 0, 0, 0)
    copy_area(m, False)
    outcome = save_area_read(m, area_buffer(m))
    if outcome != DONE:
        m.cpu.activity = SHUTDOWN
        return outcome
    m.cpu.in_smm = 0
    _return_to_vmx(m)
    sti = m.cpu.sti_shadow
    mov_ss = m.cpu.mov_ss_shadow
    refresh_mode(m)
    set_interrupt_shadow(m, sti, mov_ss)
    on_rsm(m)
    m.clock.attention = 1  # an SMI or NMI may have waited
    return DONE

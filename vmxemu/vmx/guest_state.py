"""The guest-state area: loading it on VM entry and saving it on VM exit. SDM Vol. 3C, 'Loading Guest State', 'Saving
Guest State'."""

from typing import TYPE_CHECKING

from vmxemu.cpu.flags import read_flags, write_flags
from vmxemu.cpu.layout import GDTR, HALTED, HF_INHIBIT_IRQ, IDTR, RSP
from vmxemu.cpu.mode import refresh_mode, set_interrupt_shadow
from vmxemu.cpu.protection_keys import write_pkrs
from vmxemu.isa import bits, capabilities, controls, exceptions, exits
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.translation.pdpte import load_pdptes
from vmxemu.vmx import event
from vmxemu.vmx.capability import ENTRY_CTLS, MISC
from vmxemu.vmx.checks_controls import secondary_controls
from vmxemu.vmx.checks_guest import DEBUGCTL_BTF, is_ia32e_guest, uses_pdptes
from vmxemu.vmx.checks_host import MODE_BITS
from vmxemu.vmx.ept_extensions import load_ept_extensions, save_pml_index
from vmxemu.vmx.preemption import timer_value
from vmxemu.vmx.rights import load_segment, save_segment

if TYPE_CHECKING:
    from vmxemu.state import State
    from vmxemu.vmx.vmcs import Vmcs

CR0_KEPT = U(0xFFFF_FFFF_7FFA_FFD0)  # ET, NW, CD, 63:32, 28:19, 17, 15:6: neither VM entry nor VM exit changes them
DR7_LOADED, DR7_SET = U(0xFFFF_27FF), U(0x400)
SEGMENTS = U(8)
VECTOR_AND_TYPE = U(0x7FF)


@kernel
def _load_control_registers(m: "State", v: "Vmcs") -> None:
    m.r.cr[0] = v.guest_cr0 & ~CR0_KEPT | m.r.cr[0] & CR0_KEPT
    m.r.cr[3] = v.guest_cr3
    m.r.cr[4] = v.guest_cr4
    if v.vm_entry_controls & controls.ENTRY_LOAD_DEBUG != 0:
        m.r.dr[7] = v.guest_dr7 & DR7_LOADED | DR7_SET
        m.cpu.debugctl = v.guest_ia32_debugctl


@kernel
def _load_msrs(m: "State", v: "Vmcs") -> None:
    m.r.sysenter_cs = v.guest_sysenter_cs
    m.r.sysenter_esp = v.guest_sysenter_esp
    m.r.sysenter_eip = v.guest_sysenter_eip
    if v.vm_entry_controls & controls.ENTRY_LOAD_PAT != 0:
        m.r.pat = v.guest_ia32_pat
    if v.vm_entry_controls & controls.ENTRY_LOAD_PKRS != 0:
        write_pkrs(m, v.guest_ia32_pkrs)
    long = is_ia32e_guest(v)
    if v.vm_entry_controls & controls.ENTRY_LOAD_EFER != 0:
        m.r.efer = v.guest_ia32_efer
    else:
        # LMA follows the control; LME follows it too where paging is on, else it keeps its value.
        changes = MODE_BITS if v.guest_cr0 & bits.CR0_PG != 0 else bits.EFER_LMA
        m.r.efer = m.r.efer & ~changes | (MODE_BITS & changes if long else 0)


@kernel
def _load_paging(m: "State", v: "Vmcs") -> None:
    secondary = secondary_controls(v)
    with_ept = secondary & controls.SECONDARY_EPT != 0
    m.paging.ept_pointer = v.ept_pointer if with_ept else 0
    load_ept_extensions(m, v, secondary if with_ept else 0)
    m.paging.vpid = v.virtual_processor_id if secondary & controls.SECONDARY_VPID != 0 else 0
    m.cpu.unrestricted = 1 if secondary & controls.SECONDARY_UNRESTRICTED_GUEST != 0 else 0
    if uses_pdptes(v):
        if with_ept:
            m.paging.pdpte0 = v.guest_pdpte0
            m.paging.pdpte1 = v.guest_pdpte1
            m.paging.pdpte2 = v.guest_pdpte2
            m.paging.pdpte3 = v.guest_pdpte3
        else:
            load_pdptes(m, v.guest_cr3)  # the check has passed


@kernel
def load_guest_state(m: "State", v: "Vmcs") -> None:
    """Make the guest-state area the processor's state; all checks have passed."""
    _load_control_registers(m, v)
    _load_msrs(m, v)
    _load_paging(m, v)
    for number in range(SEGMENTS):
        load_segment(m, v, number)
    m.r.seg[GDTR].base = v.guest_gdtr_base
    m.r.seg[GDTR].limit = v.guest_gdtr_limit
    m.r.seg[IDTR].base = v.guest_idtr_base
    m.r.seg[IDTR].limit = v.guest_idtr_limit
    m.r.gpr[RSP] = v.guest_rsp
    m.r.rip = v.guest_rip
    write_flags(m, v.guest_rflags)
    refresh_mode(m)
    blocking = v.guest_interruptibility_info
    set_interrupt_shadow(m, blocking & event.STI_BLOCKING, blocking >> 1 & 1)
    m.cpu.nmi_blocked = blocking >> 3 & 1
    m.cpu.activity = v.guest_activity_state
    m.cpu.pending_debug = v.guest_pending_dbg_exceptions


@kernel
def _interruptibility(m: "State") -> int:
    """Blocking by STI, MOV SS, SMI and NMI as it stands."""
    blocking = (event.NMI_BLOCKING if m.cpu.nmi_blocked != 0 else 0) | (event.SMI_BLOCKING if m.cpu.in_smm != 0 else 0)
    if m.r.mode & HF_INHIBIT_IRQ == 0:
        return blocking
    # Unicorn does not say which of the two it was: after STI, IF is set.
    by_mov_ss = m.cpu.mov_ss_shadow != 0 or m.cpu.sti_shadow == 0 and m.r.eflags & bits.RFLAGS_IF == 0
    return blocking | (event.MOV_SS_BLOCKING if by_mov_ss else event.STI_BLOCKING)


@kernel
def _saved_flags(m: "State", reason: int) -> int:
    """RFLAGS with RF as the SDM wants it ('Saving RIP, RSP, RFLAGS, and SSP'): 1 for exits that stand for a fault."""
    flags = read_flags(m)
    if m.cpu.event_info & event.INFO_VALID != 0:
        return flags
    if reason == exits.EPT_VIOLATION or reason == exits.EPT_MISCONFIG:
        return flags | bits.RFLAGS_RF
    if reason == exits.PML_FULL or reason == exits.SPP_EVENT:
        return flags | bits.RFLAGS_RF
    what = m.exit.interruption_info & VECTOR_AND_TYPE
    if reason == exits.EXCEPTION_NMI and what >> 8 == event.HARDWARE_TYPE and what & 0xFF != exceptions.DB:
        return flags | bits.RFLAGS_RF
    return flags


@kernel
def _saved_pending_debug(m: "State", v: "Vmcs", reason: int) -> int:
    debug = event.INFO_VALID | event.HARDWARE_TYPE << 8 | exceptions.DB
    if reason == exits.EXCEPTION_NMI and m.exit.interruption_info == debug:
        return 0
    pending = m.cpu.pending_debug
    blocked = v.guest_interruptibility_info & (event.STI_BLOCKING | event.MOV_SS_BLOCKING) != 0
    if blocked or m.cpu.activity == HALTED:  # VM entry demands the single-step flag here
        if m.r.eflags & bits.RFLAGS_TF != 0 and m.cpu.debugctl & DEBUGCTL_BTF == 0:
            pending = pending | event.PENDING_SINGLE_STEP
    return pending


@kernel
def _save_msrs(m: "State", v: "Vmcs") -> None:
    v.guest_sysenter_cs = m.r.sysenter_cs & 0xFFFF_FFFF
    v.guest_sysenter_esp = m.r.sysenter_esp
    v.guest_sysenter_eip = m.r.sysenter_eip
    exit_controls = v.vm_exit_controls
    if exit_controls & controls.EXIT_SAVE_PAT != 0:
        v.guest_ia32_pat = m.r.pat
    if exit_controls & controls.EXIT_SAVE_EFER != 0:
        v.guest_ia32_efer = m.r.efer
    if m.cpu.vmx_msr[ENTRY_CTLS] >> 32 & controls.ENTRY_LOAD_PKRS != 0:  # no control of its own
        v.guest_ia32_pkrs = m.paging.pkrs
    if exit_controls & controls.EXIT_SAVE_DEBUG != 0:
        v.guest_dr7 = m.r.dr[7]
        v.guest_ia32_debugctl = m.cpu.debugctl
    if exit_controls & controls.EXIT_SAVE_PREEMPTION_TIMER != 0 and m.vmx.preemption_deadline != 0:
        v.vmx_preemption_timer_value = timer_value(m)
    if m.cpu.vmx_msr[MISC] & capabilities.MISC_STORE_LMA != 0:
        long = controls.ENTRY_IA32E_GUEST if m.r.efer & bits.EFER_LMA != 0 else 0
        v.vm_entry_controls = v.vm_entry_controls & ~controls.ENTRY_IA32E_GUEST | long


@kernel
def _save_paging(m: "State", v: "Vmcs") -> None:
    v.guest_cr0 = m.r.cr[0]
    v.guest_cr3 = m.r.cr[3]
    v.guest_cr4 = m.r.cr[4]
    save_pml_index(m, v)
    if secondary_controls(v) & controls.SECONDARY_EPT != 0 and uses_pdptes(v):
        v.guest_pdpte0 = m.paging.pdpte0
        v.guest_pdpte1 = m.paging.pdpte1
        v.guest_pdpte2 = m.paging.pdpte2
        v.guest_pdpte3 = m.paging.pdpte3


@kernel
def save_guest_state(m: "State", v: "Vmcs", reason: int) -> None:
    """Save the processor's state into the guest-state area; `reason` is the basic exit reason."""
    for number in range(SEGMENTS):
        save_segment(m, v, number)
    v.guest_gdtr_base = m.r.seg[GDTR].base
    v.guest_gdtr_limit = m.r.seg[GDTR].limit
    v.guest_idtr_base = m.r.seg[IDTR].base
    v.guest_idtr_limit = m.r.seg[IDTR].limit
    v.guest_rsp = m.r.gpr[RSP]
    v.guest_rip = m.r.rip
    v.guest_rflags = _saved_flags(m, reason)
    v.guest_interruptibility_info = _interruptibility(m)
    v.guest_activity_state = m.cpu.activity
    v.guest_pending_dbg_exceptions = _saved_pending_debug(m, v, reason)
    _save_msrs(m, v)
    _save_paging(m, v)

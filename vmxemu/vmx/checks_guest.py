"""VM entry, third group: the guest-state area. SDM Vol. 3C, 'Checking and Loading Guest State'. A failure is exit
reason 33."""

from typing import TYPE_CHECKING

from vmxemu.cpu.layout import ACTIVE, HALTED, SHUTDOWN, WAIT_FOR_SIPI
from vmxemu.isa import bits, capabilities, controls, exceptions
from vmxemu.jit import kernel, load64
from vmxemu.layout import u64 as U
from vmxemu.memory.physical import host_address, read64
from vmxemu.vmx import event, reasons
from vmxemu.vmx.capability import ALL_ONES, BASIC, MISC, REVISION_MASK, cr0_fits, cr4_fits, is_canonical, is_page
from vmxemu.vmx.checks_controls import secondary_controls
from vmxemu.vmx.checks_host import MODE_BITS, efer_fits, pat_fits
from vmxemu.vmx.checks_segments import check_segments, is_unrestricted
from vmxemu.vmx.rights import L, dpl_of
from vmxemu.vmx.vmcs import NO_VMCS

if TYPE_CHECKING:
    from vmxemu.state import State
    from vmxemu.vmx.vmcs import Vmcs

UNRESTRICTED_BITS = bits.CR0_PE | bits.CR0_PG
DEBUGCTL_ALLOWED = U(0xDFC3)
RFLAGS_ALLOWED = U(0x3F_7FD5) | bits.RFLAGS_FIXED
PENDING_ALLOWED = U(0x500F)  # B3:B0, enabled breakpoint, BS; RTM is not modelled
DEBUGCTL_BTF = U(2)
BLOCKING_ALLOWED = U(0xF)
PDPTE_RESERVED = U(0x1E6)
TYPE_AND_VECTOR = U(0x7FF)
# Entry-failure qualifications (SDM Vol. 3C, 'VM-Entry Failures During or After Loading Guest State')
QUALIFICATION_PDPTE, QUALIFICATION_NMI, QUALIFICATION_LINK = U(2), U(3), U(4)


@kernel
def is_ia32e_guest(v: "Vmcs") -> bool:
    """Whether the guest will be in IA-32e mode."""
    return v.vm_entry_controls & controls.ENTRY_IA32E_GUEST != 0


@kernel
def _control_registers(m: "State", v: "Vmcs") -> int:
    ignored = UNRESTRICTED_BITS if is_unrestricted(v) else 0
    cr0 = v.guest_cr0
    cr4 = v.guest_cr4
    if not cr0_fits(m.cpu.vmx_msr, cr0, ignored):
        return reasons.GUEST_CR0
    if cr0 & bits.CR0_PG != 0 and cr0 & bits.CR0_PE == 0:
        return reasons.GUEST_PAGING_WITHOUT_PROTECTION
    if not cr4_fits(m.cpu.vmx_msr, cr4):
        return reasons.GUEST_CR4
    if v.vm_entry_controls & controls.ENTRY_LOAD_DEBUG != 0 and v.guest_ia32_debugctl & ~DEBUGCTL_ALLOWED != 0:
        return reasons.GUEST_DEBUGCTL
    if is_ia32e_guest(v):
        if cr0 & bits.CR0_PG == 0 or cr4 & bits.CR4_PAE == 0:
            return reasons.GUEST_IA32E_NEEDS_PAGING
    elif cr4 & bits.CR4_PCIDE != 0:
        return reasons.GUEST_PCIDE
    if v.guest_cr3 >> m.cpu.physical_bits != 0:
        return reasons.GUEST_CR3
    return 0


@kernel
def _registers_and_msrs(m: "State", v: "Vmcs") -> int:
    entry = v.vm_entry_controls
    if entry & controls.ENTRY_LOAD_DEBUG != 0 and v.guest_dr7 >> 32 != 0:
        return reasons.GUEST_DR7
    if not is_canonical(m, v.guest_sysenter_esp) or not is_canonical(m, v.guest_sysenter_eip):
        return reasons.GUEST_SYSENTER
    if entry & controls.ENTRY_LOAD_PAT != 0 and not pat_fits(v.guest_ia32_pat):
        return reasons.GUEST_PAT
    if entry & controls.ENTRY_LOAD_EFER != 0:
        efer = v.guest_ia32_efer
        long = bits.EFER_LMA if is_ia32e_guest(v) else 0
        if not efer_fits(m, efer) or efer & bits.EFER_LMA != long:
            return reasons.GUEST_EFER
        if v.guest_cr0 & bits.CR0_PG != 0 and efer & MODE_BITS != 0 and efer & MODE_BITS != MODE_BITS:
            return reasons.GUEST_EFER
    return reasons.GUEST_PKRS if entry & controls.ENTRY_LOAD_PKRS != 0 and v.guest_ia32_pkrs >> 32 != 0 else 0


@kernel
def _descriptor_tables(m: "State", v: "Vmcs") -> int:
    if not is_canonical(m, v.guest_gdtr_base) or not is_canonical(m, v.guest_idtr_base):
        return reasons.GUEST_TABLE_BASE
    return reasons.GUEST_TABLE_LIMIT if (v.guest_gdtr_limit | v.guest_idtr_limit) >> 16 != 0 else 0


@kernel
def injects(v: "Vmcs", kind: int) -> bool:
    """Whether this entry injects an event of that type."""
    return v.vm_entry_intr_info_field & event.INFO_VALID != 0 and v.vm_entry_intr_info_field >> 8 & 7 == kind


@kernel
def _rip_and_rflags(m: "State", v: "Vmcs") -> int:
    if is_ia32e_guest(v) and v.guest_cs_ar_bytes & L != 0:
        high = v.guest_rip >> m.cpu.linear_bits
        if high != 0 and high != ALL_ONES >> m.cpu.linear_bits:
            return reasons.GUEST_RIP
    elif v.guest_rip >> 32 != 0:
        return reasons.GUEST_RIP
    flags = v.guest_rflags
    if flags & ~RFLAGS_ALLOWED != 0 or flags & bits.RFLAGS_FIXED == 0:
        return reasons.GUEST_RFLAGS
    if flags & bits.RFLAGS_VM != 0 and (is_ia32e_guest(v) or v.guest_cr0 & bits.CR0_PE == 0):
        return reasons.GUEST_RFLAGS_VM
    if flags & bits.RFLAGS_IF == 0 and injects(v, event.EXTERNAL_TYPE):
        return reasons.GUEST_RFLAGS_IF
    return 0


@kernel
def _wakes(v: "Vmcs", activity: int) -> bool:
    """Whether the injected event is one that this activity state lets through."""
    what = v.vm_entry_intr_info_field & TYPE_AND_VECTOR
    kind = what >> 8
    machine_check = what == event.HARDWARE_TYPE << 8 | exceptions.MC
    if activity == HALTED:
        debug = what == event.HARDWARE_TYPE << 8 | exceptions.DB
        return (
            kind == event.EXTERNAL_TYPE or kind == event.NMI_TYPE or kind == event.OTHER_TYPE or machine_check or debug
        )
    return activity == SHUTDOWN and (kind == event.NMI_TYPE or machine_check)


@kernel
def _activity(m: "State", v: "Vmcs") -> int:
    activity = v.guest_activity_state
    if activity == ACTIVE:
        return 0
    if activity > WAIT_FOR_SIPI or m.cpu.vmx_msr[MISC] & capabilities.MISC_ACTIVITY_HLT << (activity - 1) == 0:
        return reasons.GUEST_ACTIVITY
    if activity == HALTED and dpl_of(v.guest_ss_ar_bytes) != 0:
        return reasons.GUEST_HALTED_DPL
    if v.guest_interruptibility_info & (event.STI_BLOCKING | event.MOV_SS_BLOCKING) != 0:
        return reasons.GUEST_ACTIVITY_BLOCKING
    if v.vm_entry_intr_info_field & event.INFO_VALID != 0 and not _wakes(v, activity):
        return reasons.GUEST_ACTIVITY_EVENT
    return 0


@kernel
def _interruptibility(m: "State", v: "Vmcs") -> int:
    blocking = v.guest_interruptibility_info
    by_sti = blocking & event.STI_BLOCKING != 0
    by_mov_ss = blocking & event.MOV_SS_BLOCKING != 0
    if blocking & ~BLOCKING_ALLOWED != 0:
        return reasons.GUEST_BLOCKING_RESERVED
    if by_sti and by_mov_ss:
        return reasons.GUEST_BLOCKING_BOTH
    if by_sti and v.guest_rflags & bits.RFLAGS_IF == 0:
        return reasons.GUEST_BLOCKING_STI
    if injects(v, event.EXTERNAL_TYPE) and (by_sti or by_mov_ss):
        return reasons.GUEST_BLOCKING_INTERRUPT
    if injects(v, event.NMI_TYPE) and by_mov_ss:
        return reasons.GUEST_BLOCKING_NMI
    if blocking & event.SMI_BLOCKING != 0 and m.cpu.in_smm == 0:
        return reasons.GUEST_BLOCKING_SMI
    virtual = v.pin_based_vm_exec_control & controls.PIN_VIRTUAL_NMI != 0
    if virtual and blocking & event.NMI_BLOCKING != 0 and injects(v, event.NMI_TYPE):
        return reasons.GUEST_BLOCKING_VIRTUAL_NMI
    return 0


@kernel
def _pending_debug(v: "Vmcs") -> int:
    pending = v.guest_pending_dbg_exceptions
    if pending & ~PENDING_ALLOWED != 0:
        return reasons.GUEST_PENDING_RESERVED
    blocked = v.guest_interruptibility_info & (event.STI_BLOCKING | event.MOV_SS_BLOCKING) != 0
    if blocked or v.guest_activity_state == HALTED:
        stepping = v.guest_rflags & bits.RFLAGS_TF != 0 and v.guest_ia32_debugctl & DEBUGCTL_BTF == 0
        if stepping != (pending & event.PENDING_SINGLE_STEP != 0):
            return reasons.GUEST_PENDING_STEP
    return 0


@kernel
def check_link_pointer(m: "State", v: "Vmcs", host: int, current: int) -> int:
    """The VMCS link pointer; `host` is the host address of what it points to, `current` the current-VMCS pointer."""
    link = v.vmcs_link_pointer
    if link == NO_VMCS:
        return 0
    if not is_page(m, link):
        return reasons.GUEST_LINK_POINTER
    shadowing = secondary_controls(v) & controls.SECONDARY_VMCS_SHADOWING != 0
    revision = m.cpu.vmx_msr[BASIC] & REVISION_MASK | (1 << 31 if shadowing else 0)
    if host == 0 or load64(host) & 0xFFFF_FFFF != revision:
        return reasons.GUEST_LINK_REVISION
    return reasons.GUEST_LINK_CURRENT if link == current else 0


@kernel
def uses_pdptes(v: "Vmcs") -> bool:
    """Whether the guest will use PAE paging."""
    return v.guest_cr0 & bits.CR0_PG != 0 and v.guest_cr4 & bits.CR4_PAE != 0 and not is_ia32e_guest(v)


@kernel
def pdpte_fits(m: "State", entry: int) -> bool:
    """Whether a PDPTE has no reserved bit set (one that is not present may hold anything)."""
    return entry & 1 == 0 or entry & PDPTE_RESERVED == 0 and entry >> m.cpu.physical_bits == 0


@kernel
def check_pdptes(m: "State", v: "Vmcs") -> int:
    """The PDPTEs of a guest with PAE paging: in the VMCS with EPT, else in memory."""
    if not uses_pdptes(v):
        return 0
    good = True
    if secondary_controls(v) & controls.SECONDARY_EPT != 0:
        good = pdpte_fits(m, v.guest_pdpte0) and pdpte_fits(m, v.guest_pdpte1)
        good = good and pdpte_fits(m, v.guest_pdpte2) and pdpte_fits(m, v.guest_pdpte3)
    else:
        for number in range(4):
            good = good and pdpte_fits(m, read64(m, (v.guest_cr3 & 0xFFFF_FFE0) + (number << 3)))
    return 0 if good else reasons.GUEST_PDPTE


@kernel
def check_guest_but_link(m: "State", v: "Vmcs") -> int:
    """All checks on the guest-state area but those on the link pointer and PDPTEs, whose memory the caller finds."""
    failed = _control_registers(m, v)
    if failed == 0:
        failed = _registers_and_msrs(m, v)
    if failed == 0:
        failed = check_segments(m, v)
    if failed == 0:
        failed = _descriptor_tables(m, v)
    if failed == 0:
        failed = _rip_and_rflags(m, v)
    if failed == 0:
        failed = _activity(m, v)
    if failed == 0:
        failed = _interruptibility(m, v)
    if failed == 0:
        failed = _pending_debug(v)
    return failed


@kernel
def check_guest(m: "State", v: "Vmcs") -> int:
    """The first check on the guest-state area that fails (vmx.reasons), 0 if all pass; for the processor's own VMCS."""
    failed = check_guest_but_link(m, v)
    if failed == 0:
        failed = check_link_pointer(m, v, host_address(m, v.vmcs_link_pointer), m.vmx.current)
    return check_pdptes(m, v) if failed == 0 else failed


@kernel
def qualification_of(failed: int) -> int:
    """Exit qualification that goes with a failed guest-state check."""
    if failed == reasons.GUEST_PDPTE:
        return QUALIFICATION_PDPTE
    if failed >= reasons.GUEST_LINK_POINTER and failed <= reasons.GUEST_LINK_CURRENT:
        return QUALIFICATION_LINK
    return 0

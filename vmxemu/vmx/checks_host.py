"""VM entry, second group: the host-state area. SDM Vol. 3C, 'Checks on Host Control Registers, MSRs, and SSP' and
what follows it.

A failure is VMfail(8).
"""

from typing import TYPE_CHECKING

from vmxemu.isa import bits, controls
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.vmx import reasons
from vmxemu.vmx.capability import cr0_fits, cr4_fits, is_canonical
from vmxemu.vmx.vmcs import HOST_SELECTORS, slot_value

if TYPE_CHECKING:
    from vmxemu.state import State
    from vmxemu.vmx.vmcs import Vmcs

HOST_SELECTOR_COUNT = U(7)
RPL_AND_TI = U(7)
LOW_HALF = U(0xFFFF_FFFF)
MODE_BITS = bits.EFER_LME | bits.EFER_LMA


@kernel
def pat_fits(value: int) -> bool:
    """Whether each byte of a PAT value is a memory type: 0, 1, 4, 5, 6 or 7."""
    if value & 0xF8F8_F8F8_F8F8_F8F8 != 0:
        return False
    return value >> 1 & ~(value >> 2) & 0x0101_0101_0101_0101 == 0


@kernel
def efer_fits(m: "State", value: int) -> bool:
    """Whether EFER has no reserved bit set."""
    return value & ~(m.cpu.efer_allowed | bits.EFER_LMA) == 0


@kernel
def _registers(m: "State", v: "Vmcs") -> int:
    if not cr0_fits(m.cpu.vmx_msr, v.host_cr0, 0):
        return reasons.HOST_CR0
    if not cr4_fits(m.cpu.vmx_msr, v.host_cr4):
        return reasons.HOST_CR4
    if v.host_cr3 >> m.cpu.physical_bits != 0:
        return reasons.HOST_CR3
    if not is_canonical(m, v.host_ia32_sysenter_esp) or not is_canonical(m, v.host_ia32_sysenter_eip):
        return reasons.HOST_SYSENTER
    if v.vm_exit_controls & controls.EXIT_LOAD_PAT != 0 and not pat_fits(v.host_ia32_pat):
        return reasons.HOST_PAT
    if v.vm_exit_controls & controls.EXIT_LOAD_EFER != 0:
        mode = MODE_BITS if v.vm_exit_controls & controls.EXIT_HOST_64 != 0 else 0
        if not efer_fits(m, v.host_ia32_efer) or v.host_ia32_efer & MODE_BITS != mode:
            return reasons.HOST_EFER
    if v.vm_exit_controls & controls.EXIT_LOAD_PKRS != 0 and v.host_ia32_pkrs >> 32 != 0:
        return reasons.HOST_PKRS
    return 0


@kernel
def _segments(m: "State", v: "Vmcs") -> int:
    for number in range(HOST_SELECTOR_COUNT):
        if slot_value(v, HOST_SELECTORS, number) & RPL_AND_TI != 0:
            return reasons.HOST_SELECTOR_BITS
    if v.host_cs_selector == 0:
        return reasons.HOST_NULL_CS
    if v.host_tr_selector == 0:
        return reasons.HOST_NULL_TR
    if v.host_ss_selector == 0 and v.vm_exit_controls & controls.EXIT_HOST_64 == 0:
        return reasons.HOST_NULL_SS
    if (
        not is_canonical(m, v.host_fs_base)
        or not is_canonical(m, v.host_gs_base)
        or not is_canonical(m, v.host_tr_base)
    ):
        return reasons.HOST_BASE
    if not is_canonical(m, v.host_gdtr_base) or not is_canonical(m, v.host_idtr_base):
        return reasons.HOST_BASE
    return 0


@kernel
def _address_space(m: "State", v: "Vmcs", long_now: int) -> int:
    host_64 = v.vm_exit_controls & controls.EXIT_HOST_64 != 0
    guest_64 = v.vm_entry_controls & controls.ENTRY_IA32E_GUEST != 0
    if long_now == 0 and (host_64 or guest_64):
        return reasons.HOST_IA32E_NOW_32
    if long_now != 0 and not host_64:
        return reasons.HOST_IA32E_NOW_64
    if host_64:
        if v.host_cr4 & bits.CR4_PAE == 0:
            return reasons.HOST_64_PAE
        return 0 if is_canonical(m, v.host_rip) else reasons.HOST_64_RIP
    if guest_64:
        return reasons.HOST_32_GUEST_64
    if v.host_cr4 & bits.CR4_PCIDE != 0:
        return reasons.HOST_32_PCIDE
    return 0 if v.host_rip >> 32 == 0 else reasons.HOST_32_RIP


@kernel
def check_host_of(m: "State", v: "Vmcs", long_now: int) -> int:
    """check_host for a processor whose EFER.LMA is `long_now` (VM entry by VMM2: that of VMM2)."""
    failed = _registers(m, v)
    if failed == 0:
        failed = _segments(m, v)
    if failed == 0:
        failed = _address_space(m, v, long_now)
    return failed


@kernel
def check_host(m: "State", v: "Vmcs") -> int:
    """The first check on the host-state area that fails (vmx.reasons), 0 if all pass."""
    return check_host_of(m, v, m.r.efer & bits.EFER_LMA)

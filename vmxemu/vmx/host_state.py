"""The host-state area: what VM exit loads, with all that the SDM fixes. SDM Vol. 3C, 'Loading Host State'."""

from typing import TYPE_CHECKING

from vmxemu.cpu.flags import write_flags
from vmxemu.cpu.layout import (
    ACTIVE,
    CS,
    DS,
    ES,
    FS,
    GDTR,
    GS,
    IDTR,
    LDTR,
    RSP,
    SEG_DB,
    SEG_G,
    SEG_L,
    SEG_P,
    SEG_S,
    SS,
    TR,
)
from vmxemu.cpu.mode import refresh_mode, set_interrupt_shadow
from vmxemu.cpu.protection_keys import write_pkrs
from vmxemu.isa import bits, controls
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.outcome import DONE
from vmxemu.translation.pdpte import load_pdptes
from vmxemu.vmx.checks_host import MODE_BITS
from vmxemu.vmx.guest_state import CR0_KEPT, DR7_SET
from vmxemu.vmx.rights import FLAG_UNUSABLE

if TYPE_CHECKING:
    from vmxemu.state import State
    from vmxemu.vmx.vmcs import Vmcs

TYPE_SHIFT = U(8)
CODE_FLAGS = U(11 << 8) | SEG_S | SEG_P | SEG_G
DATA_FLAGS = U(3 << 8) | SEG_S | SEG_P | SEG_G | SEG_DB
TSS_FLAGS = U(11 << 8) | SEG_P
RFLAGS_AFTER_EXIT = U(2)


@kernel
def _put(m: "State", number: int, selector: int, base: int, limit: int, flags: int) -> None:
    segment = m.r.seg[number]
    segment.selector = selector
    segment.base = base
    segment.limit = limit
    segment.flags = flags


@kernel
def _put_data(m: "State", number: int, selector: int, base: int) -> None:
    """A flat data segment; unusable where the selector is null."""
    _put(m, number, selector, base, 0xFFFF_FFFF, DATA_FLAGS if selector != 0 else FLAG_UNUSABLE)


@kernel
def _load_segments(m: "State", v: "Vmcs") -> None:
    width = SEG_L if v.vm_exit_controls & controls.EXIT_HOST_64 != 0 else SEG_DB
    _put(m, CS, v.host_cs_selector, 0, 0xFFFF_FFFF, CODE_FLAGS | width)
    _put_data(m, SS, v.host_ss_selector, 0)
    _put_data(m, DS, v.host_ds_selector, 0)
    _put_data(m, ES, v.host_es_selector, 0)
    _put_data(m, FS, v.host_fs_selector, v.host_fs_base)
    _put_data(m, GS, v.host_gs_selector, v.host_gs_base)
    _put(m, TR, v.host_tr_selector, v.host_tr_base, 0x67, TSS_FLAGS)
    _put(m, LDTR, 0, 0, 0, FLAG_UNUSABLE)
    m.r.seg[GDTR].base = v.host_gdtr_base
    m.r.seg[GDTR].limit = 0xFFFF
    m.r.seg[IDTR].base = v.host_idtr_base
    m.r.seg[IDTR].limit = 0xFFFF


@kernel
def _load_registers(m: "State", v: "Vmcs") -> None:
    host_64 = v.vm_exit_controls & controls.EXIT_HOST_64 != 0
    m.r.cr[0] = v.host_cr0 & ~CR0_KEPT | m.r.cr[0] & CR0_KEPT
    m.r.cr[3] = v.host_cr3
    m.r.cr[4] = v.host_cr4 | bits.CR4_PAE if host_64 else v.host_cr4 & ~bits.CR4_PCIDE
    m.r.dr[7] = DR7_SET
    m.cpu.debugctl = 0
    m.r.sysenter_cs = v.host_ia32_sysenter_cs
    m.r.sysenter_esp = v.host_ia32_sysenter_esp
    m.r.sysenter_eip = v.host_ia32_sysenter_eip
    if v.vm_exit_controls & controls.EXIT_LOAD_EFER != 0:
        m.r.efer = v.host_ia32_efer
    else:
        m.r.efer = m.r.efer & ~MODE_BITS | (MODE_BITS if host_64 else 0)
    if v.vm_exit_controls & controls.EXIT_LOAD_PAT != 0:
        m.r.pat = v.host_ia32_pat
    if v.vm_exit_controls & controls.EXIT_LOAD_PKRS != 0:
        write_pkrs(m, v.host_ia32_pkrs)


@kernel
def load_host_state(m: "State", v: "Vmcs") -> int:
    """Make the host-state area the processor's state. Outcomes: DONE, or what loading the PDPTEs met."""
    m.paging.ept_pointer = 0
    m.paging.ept_extensions = 0
    m.paging.vpid = 0
    m.cpu.unrestricted = 0
    _load_registers(m, v)
    _load_segments(m, v)
    m.r.gpr[RSP] = v.host_rsp
    m.r.rip = v.host_rip
    write_flags(m, RFLAGS_AFTER_EXIT)
    refresh_mode(m)
    set_interrupt_shadow(m, 0, 0)
    m.cpu.activity = ACTIVE
    m.cpu.pending_debug = 0
    if v.host_cr4 & bits.CR4_PAE != 0 and m.r.efer & bits.EFER_LMA == 0:
        return load_pdptes(m, v.host_cr3)
    return DONE

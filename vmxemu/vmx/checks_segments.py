"""VM entry, guest state: segment registers. SDM Vol. 3C, 'Checks on Guest Segment Registers'."""

from typing import TYPE_CHECKING

from vmxemu.cpu.layout import CS, DS, ES, SS
from vmxemu.isa import bits, controls
from vmxemu.jit import kernel
from vmxemu.layout import u64 as U
from vmxemu.vmx import reasons, rights
from vmxemu.vmx.capability import is_canonical
from vmxemu.vmx.checks_controls import secondary_controls
from vmxemu.vmx.rights import dpl_of, granularity_fits, is_usable
from vmxemu.vmx.vmcs import GUEST_BASES, GUEST_LIMITS, GUEST_RIGHTS, GUEST_SELECTORS, slot_value

if TYPE_CHECKING:
    from vmxemu.state import State
    from vmxemu.vmx.vmcs import Vmcs

VM86_RIGHTS = U(0xF3)
LDT_TYPE, BUSY_TSS_16, BUSY_TSS = U(2), U(3), U(11)
DATA_WRITABLE = U(3)  # read/write, accessed, expand-up
CONFORMING_TYPE = U(12)  # types from here on are conforming code
SEGMENTS = U(6)


@kernel
def in_vm86(v: "Vmcs") -> bool:
    """Whether the guest will be in virtual-8086 mode."""
    return v.guest_rflags & bits.RFLAGS_VM != 0


@kernel
def is_unrestricted(v: "Vmcs") -> bool:
    """Whether the "unrestricted guest" control is 1."""
    return secondary_controls(v) & controls.SECONDARY_UNRESTRICTED_GUEST != 0


@kernel
def _selectors(v: "Vmcs") -> int:
    if v.guest_tr_selector & rights.TI != 0:
        return reasons.GUEST_TR_SELECTOR
    if is_usable(v.guest_ldtr_ar_bytes) and v.guest_ldtr_selector & rights.TI != 0:
        return reasons.GUEST_LDTR_SELECTOR
    if not in_vm86(v) and not is_unrestricted(v) and (v.guest_ss_selector ^ v.guest_cs_selector) & 3 != 0:
        return reasons.GUEST_SS_RPL
    return 0


@kernel
def _bases(m: "State", v: "Vmcs") -> int:
    if (
        not is_canonical(m, v.guest_tr_base)
        or not is_canonical(m, v.guest_fs_base)
        or not is_canonical(m, v.guest_gs_base)
    ):
        return reasons.GUEST_SEGMENT_BASE
    if is_usable(v.guest_ldtr_ar_bytes) and not is_canonical(m, v.guest_ldtr_base):
        return reasons.GUEST_SEGMENT_BASE
    if v.guest_cs_base >> 32 != 0:
        return reasons.GUEST_SEGMENT_BASE
    for number in range(SEGMENTS):
        if (number == SS or number == DS or number == ES) and is_usable(slot_value(v, GUEST_RIGHTS, number)):
            if slot_value(v, GUEST_BASES, number) >> 32 != 0:
                return reasons.GUEST_SEGMENT_BASE
    return 0


@kernel
def _vm86(v: "Vmcs") -> int:
    for number in range(SEGMENTS):
        if slot_value(v, GUEST_BASES, number) != slot_value(v, GUEST_SELECTORS, number) << 4:
            return reasons.GUEST_VM86_SEGMENT
        if slot_value(v, GUEST_LIMITS, number) != 0xFFFF or slot_value(v, GUEST_RIGHTS, number) != VM86_RIGHTS:
            return reasons.GUEST_VM86_SEGMENT
    return 0


@kernel
def _code_segment(v: "Vmcs") -> int:
    access = v.guest_cs_ar_bytes
    kind = access & rights.TYPE
    level = dpl_of(access)
    stack_level = dpl_of(v.guest_ss_ar_bytes)
    if kind == DATA_WRITABLE:
        if not is_unrestricted(v):
            return reasons.GUEST_CS_TYPE
        if level != 0:
            return reasons.GUEST_CS_DPL
    elif kind & (rights.CODE | rights.ACCESSED) != rights.CODE | rights.ACCESSED:
        return reasons.GUEST_CS_TYPE
    elif kind < CONFORMING_TYPE and level != stack_level or level > stack_level:
        return reasons.GUEST_CS_DPL
    if v.vm_entry_controls & controls.ENTRY_IA32E_GUEST != 0 and access & rights.L != 0 and access & rights.DB != 0:
        return reasons.GUEST_CS_DB
    return 0


@kernel
def _stack_segment(v: "Vmcs") -> int:
    access = v.guest_ss_ar_bytes
    if is_usable(access) and access & (rights.TYPE ^ 4) != DATA_WRITABLE:
        return reasons.GUEST_SS_TYPE
    if not is_unrestricted(v) and dpl_of(access) != v.guest_ss_selector & 3:
        return reasons.GUEST_SS_DPL
    if (v.guest_cs_ar_bytes & rights.TYPE == DATA_WRITABLE or v.guest_cr0 & bits.CR0_PE == 0) and dpl_of(access) != 0:
        return reasons.GUEST_SS_DPL
    return 0


@kernel
def _data_segment(v: "Vmcs", number: int) -> int:
    access = slot_value(v, GUEST_RIGHTS, number)
    if not is_usable(access):
        return 0
    if access & rights.ACCESSED == 0 or access & rights.CODE != 0 and access & 2 == 0:
        return reasons.GUEST_DATA_TYPE
    if (
        not is_unrestricted(v)
        and access & rights.TYPE < CONFORMING_TYPE
        and dpl_of(access) < slot_value(v, GUEST_SELECTORS, number) & 3
    ):
        return reasons.GUEST_DATA_DPL
    return 0


@kernel
def _common(v: "Vmcs", number: int) -> int:
    """What holds for CS and for every other usable segment register."""
    access = slot_value(v, GUEST_RIGHTS, number)
    if number != CS and not is_usable(access):
        return 0
    if access & rights.S == 0:
        return reasons.GUEST_SEGMENT_S
    if access & rights.P == 0:
        return reasons.GUEST_SEGMENT_PRESENT
    if access & rights.RESERVED != 0:
        return reasons.GUEST_SEGMENT_RESERVED
    return 0 if granularity_fits(access, slot_value(v, GUEST_LIMITS, number)) else reasons.GUEST_SEGMENT_GRANULARITY


@kernel
def _protected(v: "Vmcs") -> int:
    failed = _code_segment(v)
    if failed == 0:
        failed = _stack_segment(v)
    for number in range(SEGMENTS):
        if failed == 0 and number != CS and number != SS:
            failed = _data_segment(v, number)
        if failed == 0:
            failed = _common(v, number)
    return failed


@kernel
def _system_segments(v: "Vmcs") -> int:
    access = v.guest_tr_ar_bytes
    kind = access & rights.TYPE
    small = kind == BUSY_TSS_16 and v.vm_entry_controls & controls.ENTRY_IA32E_GUEST == 0
    if (
        kind != BUSY_TSS
        and not small
        or access & rights.S != 0
        or access & rights.P == 0
        or access & rights.RESERVED != 0
    ):
        return reasons.GUEST_TR_RIGHTS
    if not is_usable(access) or not granularity_fits(access, v.guest_tr_limit):
        return reasons.GUEST_TR_RIGHTS
    access = v.guest_ldtr_ar_bytes
    if not is_usable(access):
        return 0
    if (
        access & rights.TYPE != LDT_TYPE
        or access & rights.S != 0
        or access & rights.P == 0
        or access & rights.RESERVED != 0
    ):
        return reasons.GUEST_LDTR_RIGHTS
    return 0 if granularity_fits(access, v.guest_ldtr_limit) else reasons.GUEST_LDTR_RIGHTS


@kernel
def check_segments(m: "State", v: "Vmcs") -> int:
    """The first check on segment registers that fails (vmx.reasons), 0 if all pass."""
    failed = _selectors(v)
    if failed == 0:
        failed = _bases(m, v)
    if failed == 0:
        failed = _vm86(v) if in_vm86(v) else _protected(v)
    if failed == 0:
        failed = _system_segments(v)
    return failed

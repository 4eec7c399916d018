"""SMI delivery: from any mode into SMM. SDM Vol. 3C, 'Entering SMM' and 'Default Treatment of SMI Delivery'."""

from typing import TYPE_CHECKING

from vmxemu.cpu.flags import write_flags
from vmxemu.cpu.layout import ACTIVE, CS, DS, ES, FS, GS, SEG_G, SEG_P, SEG_S, SS
from vmxemu.cpu.mode import end_interrupt_shadow, refresh_mode
from vmxemu.cpu.nmi import block_nmi
from vmxemu.isa import smm_map
from vmxemu.isa.bits import CR0_EM, CR0_PE, CR0_PG, CR0_TS
from vmxemu.jit import address_of, kernel
from vmxemu.layout import u64
from vmxemu.memory.physical import copy_in, copy_out
from vmxemu.smm.layout import Smm
from vmxemu.smm.save_area import AREA_BYTES, SAVE_AREA_OFFSET, put32, put64, save_area_write
from vmxemu.timing import costs
from vmxemu.timing.clock import charge_event
from vmxemu.trace import events
from vmxemu.trace.emit import emit
from vmxemu.translation.invalidate import on_smi

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
AREA = U(Smm.FIELDS["area"].offset)
ENTRY_RIP, ENTRY_DR7, ENTRY_RFLAGS, FOUR_GIB_LIMIT = U(smm_map.AREA_OFFSET), U(0x400), U(2), U(0xFFFFFFFF)
DATA = SEG_P | SEG_S | SEG_G | U(0x300)  # read/write, accessed, 16-bit
PAGE = U(4096)
VMX_ON, VMX_NON_ROOT = U(1), U(2)


@kernel
def area_buffer(m: "State") -> int:
    """Host address of the processor's own copy of the area."""
    return address_of(m.smm) + AREA


@kernel
def copy_area(m: "State", to_memory: bool) -> None:
    """Move the area between its buffer and SMRAM at the current SMBASE; SMBASE need not be aligned."""
    hpa = m.cpu.smbase + SAVE_AREA_OFFSET
    first = PAGE - (hpa & (PAGE - 1))
    if first > AREA_BYTES:
        first = AREA_BYTES
    buffer = area_buffer(m)
    if to_memory:
        copy_in(m, hpa, buffer, first)
        if first < AREA_BYTES:
            copy_in(m, hpa + first, buffer + first, AREA_BYTES - first)
    else:
        copy_out(m, hpa, buffer, first)
        if first < AREA_BYTES:
            copy_out(m, hpa + first, buffer + first, AREA_BYTES - first)


@kernel
def load_entry_state(m: "State") -> None:
    """The registers as SMM's first instruction finds them: a 16-bit environment with 4-GiB limits.

    SDM Vol. 3C, 'Processor Register Initialization in SMM'.
    """
    m.r.cr[0] = m.r.cr[0] & ~(CR0_PE | CR0_EM | CR0_TS | CR0_PG)
    m.r.cr[4] = 0
    m.r.efer = 0
    m.r.dr[7] = ENTRY_DR7
    write_flags(m, ENTRY_RFLAGS)
    m.r.rip = ENTRY_RIP
    _flat_segment(m, ES)
    _flat_segment(m, SS)
    _flat_segment(m, DS)
    _flat_segment(m, FS)
    _flat_segment(m, GS)
    _flat_segment(m, CS)
    m.r.seg[CS].selector = m.cpu.smbase >> 4 & 0xFFFF
    m.r.seg[CS].base = m.cpu.smbase
    m.cpu.activity = ACTIVE
    m.cpu.pending_debug = 0
    m.cpu.monitor_armed = 0
    end_interrupt_shadow(m)
    refresh_mode(m)
    block_nmi(m)


@kernel
def _flat_segment(m: "State", register: int) -> None:
    segment = m.r.seg[register]
    segment.selector = 0
    segment.base = 0
    segment.limit = FOUR_GIB_LIMIT
    segment.flags = DATA


@kernel
def _leave_vmx(m: "State") -> None:
    """The processor remembers its VMX state itself; the area shows EPT for the handler to look at."""
    smm = m.smm
    smm.vmx_on = m.vmx.on
    smm.vmx_non_root = m.vmx.non_root
    smm.saved_ept_pointer = m.paging.ept_pointer
    smm.saved_ept_extensions = m.paging.ept_extensions
    smm.saved_vpid = m.paging.vpid
    smm.saved_unrestricted = m.cpu.unrestricted
    area = area_buffer(m)
    put64(area, smm_map.EPTP, m.paging.ept_pointer)
    put32(area, smm_map.ENABLE_EPT, 1 if m.paging.ept_pointer != 0 else 0)
    put64(area, smm_map.VMX_STATE, (VMX_ON if m.vmx.on != 0 else 0) | (VMX_NON_ROOT if m.vmx.non_root != 0 else 0))
    put64(area, smm_map.CURRENT_VMCS, m.vmx.current)
    m.vmx.on = 0
    m.vmx.non_root = 0
    m.paging.ept_pointer = 0
    m.paging.ept_extensions = 0
    m.paging.vpid = 0
    m.cpu.unrestricted = 0


@kernel
def enter_smm(m: "State", cause: int) -> None:
    """Deliver an SMI under the default treatment. The caller programs the intercepts afterwards."""
    charge_event(m, costs.SMM_ENTRY)
    emit(m, events.SMM_ENTER, cause, m.cpu.smbase, 0, 0, 0)
    save_area_write(m, area_buffer(m))
    _leave_vmx(m)
    m.cpu.in_smm = 1
    m.cpu.smi_count = m.cpu.smi_count + 1
    m.smm.entries = m.smm.entries + 1
    copy_area(m, True)
    load_entry_state(m)
    on_smi(m)

"""The state-save area: 1 KiB at SMBASE + FC00H. SDM Vol. 3C, 'SMRAM State Save Map' (64-bit).

What the SDM reserves is laid out in isa/. Both directions work on the area at any host address, so that VMM1 can use
them for the virtual SMM of its guest. VMX state is not touched here: smm.entry and smm.rsm keep it.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from vmxemu.cpu.flags import read_flags, write_flags
from vmxemu.cpu.layout import ACTIVE, GDTR, HALTED, HF_INHIBIT_IRQ, IDTR, LDTR, SEG_P
from vmxemu.cpu.mode import cpl, refresh_mode, set_interrupt_shadow
from vmxemu.cpu.nmi import block_nmi
from vmxemu.isa import smm_map
from vmxemu.isa.bits import CR0_CD, CR0_NW, CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME
from vmxemu.jit import kernel, load16, load32, load64, store16, store32, store64
from vmxemu.layout import u64
from vmxemu.outcome import DONE, TRIPLE_FAULT
from vmxemu.smm.layout import AREA_BYTES as _AREA_BYTES

if TYPE_CHECKING:
    from vmxemu.state import State

U = u64
FIRST = U(smm_map.FIRST_OFFSET)
SAVE_AREA_OFFSET = U(smm_map.AREA_OFFSET + smm_map.FIRST_OFFSET)  # from SMBASE
AREA_BYTES = U(_AREA_BYTES)
REVISION = U(0x30101)  # bits 17 and 16: SMBASE relocation and I/O restart; the SDM leaves the low half to the processor
LOW_HALF = U(0xFFFFFFFF)
RIGHTS, UNUSABLE, FLAG_UNUSABLE = U(0xF0FF), U(1 << 16), U(1)
STI_BLOCKING, MOV_SS_BLOCKING, NMI_BLOCKING = U(1), U(2), U(8)
HALT_RESTART, IO_RESTART, IO_SMI = U(1), U(0xFF), U(1)


def _offsets(names: str, suffix: str) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    return np.array([smm_map.BY_NAME[name + suffix].offset - smm_map.FIRST_OFFSET for name in names.split()], np.uint64)


# By register number. LDTR, GDTR and IDTR have their bases in two halves; TR comes before them in BASE.
GPR = _offsets("RAX RCX RDX RBX RSP RBP RSI RDI R8 R9 R10 R11 R12 R13 R14 R15", "")
SELECTOR = _offsets("ES CS SS DS FS GS LDTR TR", "_SELECTOR")
SEGMENT_RIGHTS = _offsets("ES CS SS DS FS GS LDTR TR", "_AR_BYTES")
LIMIT = _offsets("ES CS SS DS FS GS LDTR TR GDTR IDTR", "_LIMIT")
BASE = _offsets("ES CS SS DS FS GS", "_BASE")


@kernel
def put64(area: int, field: int, value: int) -> None:
    """Store a field of smm_map."""
    store64(area + field - FIRST, value)


@kernel
def put32(area: int, field: int, value: int) -> None:
    """Store a field of smm_map."""
    store32(area + field - FIRST, value)


@kernel
def get64(area: int, field: int) -> int:
    """Load a field of smm_map."""
    return load64(area + field - FIRST)


@kernel
def get32(area: int, field: int) -> int:
    """Load a field of smm_map."""
    return load32(area + field - FIRST)


@kernel
def _write_segments(m: "State", area: int) -> None:
    for i in range(10):
        segment = m.r.seg[i]
        store32(area + LIMIT[i], segment.limit)
        if i < 8:
            store32(area + SELECTOR[i], segment.selector)
            unusable = UNUSABLE if segment.flags & SEG_P == 0 else 0
            store32(area + SEGMENT_RIGHTS[i], segment.flags >> 8 & RIGHTS | unusable)
        if i < 6:
            store64(area + BASE[i], segment.base)
    put64(area, smm_map.TR_BASE, m.r.seg[7].base)
    put32(area, smm_map.LDTR_BASE_LOW, m.r.seg[LDTR].base)
    put32(area, smm_map.LDTR_BASE_HIGH, m.r.seg[LDTR].base >> 32)
    put32(area, smm_map.GDTR_BASE_LOW, m.r.seg[GDTR].base)
    put32(area, smm_map.GDTR_BASE_HIGH, m.r.seg[GDTR].base >> 32)
    put32(area, smm_map.IDTR_BASE_LOW, m.r.seg[IDTR].base)
    put32(area, smm_map.IDTR_BASE_HIGH, m.r.seg[IDTR].base >> 32)


@kernel
def _read_segments(m: "State", area: int) -> None:
    for i in range(10):
        segment = m.r.seg[i]
        segment.limit = load32(area + LIMIT[i])
        if i < 8:
            segment.selector = load32(area + SELECTOR[i])
            rights = load32(area + SEGMENT_RIGHTS[i])
            segment.flags = (rights & RIGHTS) << 8 | rights >> 16 & FLAG_UNUSABLE
        if i < 6:
            segment.base = load64(area + BASE[i])
    m.r.seg[7].base = get64(area, smm_map.TR_BASE)
    m.r.seg[LDTR].base = get32(area, smm_map.LDTR_BASE_LOW) | get32(area, smm_map.LDTR_BASE_HIGH) << 32
    m.r.seg[GDTR].base = get32(area, smm_map.GDTR_BASE_LOW) | get32(area, smm_map.GDTR_BASE_HIGH) << 32
    m.r.seg[IDTR].base = get32(area, smm_map.IDTR_BASE_LOW) | get32(area, smm_map.IDTR_BASE_HIGH) << 32


@kernel
def interruptibility(m: "State") -> int:
    """Blocking in the format of the VMCS's interruptibility state."""
    state = NMI_BLOCKING if m.cpu.nmi_blocked != 0 else 0
    if m.r.mode & HF_INHIBIT_IRQ == 0:
        return state
    return state | (MOV_SS_BLOCKING if m.cpu.mov_ss_shadow != 0 else STI_BLOCKING)


@kernel
def _write_control(m: "State", area: int) -> None:
    put64(area, smm_map.CR0, m.r.cr[0])
    put64(area, smm_map.CR2, m.r.cr[2])
    put64(area, smm_map.CR3, m.r.cr[3])
    put64(area, smm_map.CR4, m.r.cr[4])
    put64(area, smm_map.IA32_EFER, m.r.efer)
    put64(area, smm_map.DR6, m.r.dr[6])
    put64(area, smm_map.DR7, m.r.dr[7])
    put64(area, smm_map.RIP, m.r.rip)
    put64(area, smm_map.RFLAGS, read_flags(m))
    put64(area, smm_map.PDPTE0, m.paging.pdpte0)
    put64(area, smm_map.PDPTE1, m.paging.pdpte1)
    put64(area, smm_map.PDPTE2, m.paging.pdpte2)
    put64(area, smm_map.PDPTE3, m.paging.pdpte3)
    put64(area, smm_map.CPL, cpl(m))
    put64(area, smm_map.ACTIVITY_STATE, m.cpu.activity)
    put64(area, smm_map.INTERRUPTIBILITY, interruptibility(m))
    put64(area, smm_map.PENDING_DEBUG, m.cpu.pending_debug)
    put32(area, smm_map.SMBASE, m.cpu.smbase)
    put32(area, smm_map.SMM_REVISION_ID, REVISION)
    put64(area, smm_map.CURRENT_VMCS, 0)
    put64(area, smm_map.VMX_STATE, 0)
    put64(area, smm_map.EPTP, 0)
    put32(area, smm_map.ENABLE_EPT, 0)


@kernel
def _write_restart(m: "State", area: int) -> None:
    """Auto-HALT restart, and the I/O instruction that caused the SMI, if one did."""
    store16(area + smm_map.AUTO_HALT_RESTART - FIRST, HALT_RESTART if m.cpu.activity == HALTED else 0)
    store16(area + smm_map.IO_INSTRUCTION_RESTART - FIRST, 0)
    put32(area, smm_map.IO_MISC, m.smm.io_misc)
    put64(area, smm_map.IO_MEM_ADDR, m.smm.io_memory_address)
    put64(area, smm_map.IO_RIP, m.smm.io_rip)
    put64(area, smm_map.RESTART_RIP, m.smm.io_rip)
    m.smm.io_misc = 0
    m.smm.io_memory_address = 0
    m.smm.io_rip = 0


@kernel
def save_area_write(m: "State", area: int) -> None:
    """Write the processor's state into the 1 KiB at the host address `area`."""
    for i in range(16):
        store64(area + GPR[i], m.r.gpr[i])
    _write_segments(m, area)
    _write_control(m, area)
    _write_restart(m, area)


@kernel
def _is_valid(m: "State", area: int) -> bool:
    """What RSM checks; a failure is a shutdown. SDM Vol. 2B, 'RSM'."""
    cr0 = get64(area, smm_map.CR0)
    cr4 = get64(area, smm_map.CR4)
    efer = get64(area, smm_map.IA32_EFER)
    if cr0 > LOW_HALF or (cr0 & CR0_PG != 0 and cr0 & CR0_PE == 0) or (cr0 & CR0_NW != 0 and cr0 & CR0_CD == 0):
        return False
    if cr4 & ~m.cpu.cr4_allowed != 0 or efer & ~(m.cpu.efer_allowed | EFER_LMA) != 0:
        return False
    long_mode = cr0 & CR0_PG != 0 and efer & EFER_LME != 0
    if long_mode != (efer & EFER_LMA != 0) or (long_mode and cr4 & CR4_PAE == 0):
        return False
    return get64(area, smm_map.CR3) >> m.cpu.physical_bits == 0


@kernel
def _read_control(m: "State", area: int) -> None:
    m.r.cr[0] = get64(area, smm_map.CR0)
    m.r.cr[2] = get64(area, smm_map.CR2)
    m.r.cr[3] = get64(area, smm_map.CR3)
    m.r.cr[4] = get64(area, smm_map.CR4)
    m.r.efer = get64(area, smm_map.IA32_EFER)
    m.r.dr[6] = get64(area, smm_map.DR6)
    m.r.dr[7] = get64(area, smm_map.DR7)
    m.r.rip = get64(area, smm_map.RIP)
    write_flags(m, get64(area, smm_map.RFLAGS))
    m.paging.pdpte0 = get64(area, smm_map.PDPTE0)
    m.paging.pdpte1 = get64(area, smm_map.PDPTE1)
    m.paging.pdpte2 = get64(area, smm_map.PDPTE2)
    m.paging.pdpte3 = get64(area, smm_map.PDPTE3)
    m.cpu.pending_debug = get64(area, smm_map.PENDING_DEBUG)
    m.cpu.smbase = get32(area, smm_map.SMBASE)


@kernel
def _read_restart(m: "State", area: int) -> None:
    """Go back into HLT, or repeat the I/O instruction, if the handler wants that."""
    halted = get64(area, smm_map.ACTIVITY_STATE) == HALTED
    again = load16(area + smm_map.AUTO_HALT_RESTART - FIRST) & HALT_RESTART != 0
    m.cpu.activity = HALTED if halted and again else ACTIVE
    repeat = load16(area + smm_map.IO_INSTRUCTION_RESTART - FIRST) & IO_RESTART == IO_RESTART
    if repeat and get32(area, smm_map.IO_MISC) & IO_SMI != 0:
        m.r.rip = get64(area, smm_map.RESTART_RIP)


@kernel
def save_area_read(m: "State", area: int) -> int:
    """Take the processor's state from the 1 KiB at the host address `area`.

    DONE, or TRIPLE_FAULT with nothing changed if the area is invalid.
    """
    if not _is_valid(m, area):
        return TRIPLE_FAULT
    for i in range(16):
        m.r.gpr[i] = load64(area + GPR[i])
    _read_segments(m, area)
    _read_control(m, area)
    _read_restart(m, area)
    refresh_mode(m)
    blocking = get64(area, smm_map.INTERRUPTIBILITY)
    set_interrupt_shadow(m, blocking & STI_BLOCKING, blocking >> 1 & 1)
    m.cpu.nmi_blocked = 0
    if blocking & NMI_BLOCKING != 0:
        block_nmi(m)
    return DONE
